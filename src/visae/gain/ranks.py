"""Ranks of an SAE among dictionaries that learned less, class by class, and what comes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.experiments.tables import ALPHA
from visae.features.resampling import benjamini_hochberg, p_value, wilson_interval
from visae.gain.kinds import BESIDE, TESTED

MEASURES = ("length_for_half", "selectivity", "natural_selectivity")
"""What dictionaries are ranked by; the first is the one that verdicts are given by."""


def ranked(table: pl.DataFrame) -> pl.DataFrame:
    """One row a rule, kind, measure and class: the tested value, those of the kind, and p and q of its rank.

    p is the share of dictionaries, the tested one included, that are at least as good: half of the targets turned at
    a length as short, or as large a selectivity. A dictionary that found no latent for the class, or with which no
    length turns half, is the last of all. q corrects for the classes of a rule, kind and measure.

    Parameters
    ----------
    table
        gain.parquet.
    """
    rows: list[dict[str, Any]] = []
    for (rule,), of_rule in table.group_by("rule", maintain_order=True):
        for kind in BESIDE:
            for measure in MEASURES:
                tests = _of_classes(of_rule, kind, measure)
                q = benjamini_hochberg(np.array([test["p"] for test in tests], dtype=np.float64))
                about = {"rule": rule, "kind": kind, "measure": measure}
                rows += [
                    {**about, **test, "q": float(rate), "significant": bool(rate <= ALPHA)}
                    for test, rate in zip(tests, q, strict=True)
                ]
    return pl.DataFrame(rows, schema=TESTS)


TESTS: dict[str, Any] = {
    "rule": pl.String,
    "kind": pl.String,
    "measure": pl.String,
    "class_id": pl.Int32,
    "class_name": pl.String,
    "tested": pl.Float64,
    "median": pl.Float64,
    "best": pl.Float64,
    "n": pl.Int64,
    "p": pl.Float64,
    "q": pl.Float64,
    "significant": pl.Boolean,
}


def _of_classes(table: pl.DataFrame, kind: str, measure: str) -> list[dict[str, Any]]:
    """Rank in each class; nothing where there is no dictionary of the kind."""
    tests = []
    for (class_id, class_name), rows in table.group_by("class_id", "class_name", maintain_order=True):
        others = goodness(rows.filter(kind=kind)[measure], measure)
        if len(others):
            own = goodness(rows.filter(kind=TESTED)[measure], measure)[0]
            # Nothing at all is no better than nothing.
            p = 1.0 if np.isneginf(own) else float(p_value(own, others))
            test = {"class_id": class_id, "class_name": class_name, "n": len(others), "p": p}
            found = {"tested": own, "median": np.median(others), "best": others.max()}
            tests.append({**test, **{name: _as_it_was(value, measure) for name, value in found.items()}})
    return tests


def goodness(values: pl.Series, measure: str) -> NDArray[np.float64]:
    """Values of which the larger is the better; what could not be measured is the worst."""
    found = values.cast(pl.Float64).to_numpy()
    return np.nan_to_num(-found if measure == MEASURES[0] else found, nan=-np.inf, neginf=-np.inf, posinf=np.inf)


def _as_it_was(value: float, measure: str) -> float | None:
    return None if not np.isfinite(value) else float(-value if measure == MEASURES[0] else value)


def over_classes(tests: pl.DataFrame) -> list[dict[str, Any]]:
    """By rule, kind and measure: in how many classes the SAE comes first at a false discovery rate of 5 %.

    `survives` says whether the smallest p that so many dictionaries allow would stay significant in one class alone.
    """
    found = []
    for (rule, kind, measure), rows in tests.group_by("rule", "kind", "measure", maintain_order=True):
        n_classes, n = len(rows), int(rows["n"].max())  # type: ignore[arg-type]
        found.append(
            {
                "rule": rule,
                "kind": kind,
                "measure": measure,
                "n_classes": n_classes,
                "n_significant": int(rows["significant"].sum()),
                "n_dictionaries": n,
                "smallest_p": 1 / (1 + n),
                "survives": n_classes / (1 + n) <= ALPHA,
            }
        )
    return found


def medians(table: pl.DataFrame) -> list[dict[str, Any]]:
    """By rule and kind: medians over classes and dictionaries, and the share that turns half at any length."""
    columns = [*MEASURES, "target_change", "other_change", "natural_target_change", "natural_other_change"]
    grouped = table.group_by("rule", "kind", maintain_order=True).agg(
        *(pl.col(name).median() for name in columns if name != MEASURES[0]),
        # What never turns half is longer than all others.
        pl.col(MEASURES[0]).fill_null(np.inf).median(),
        reached=pl.col(MEASURES[0]).is_not_null().mean(),
    )
    return [
        {name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()}
        for row in grouped.to_dicts()
    ]


def yields(discoveries: pl.DataFrame) -> list[dict[str, Any]]:
    """By kind: the share of all proposed pairs that are verified, and that show their effect again."""
    found = []
    for (kind,), rows in discoveries.group_by("kind", maintain_order=True):
        proposed, verified, replicated = (int(rows[name].sum()) for name in ("proposed", "verified", "replicated"))
        low, high = wilson_interval(np.array(verified), np.array(proposed))
        found.append(
            {
                "kind": kind,
                "n_dictionaries": len(rows),
                "proposed": proposed,
                "verified": verified,
                "replicated": replicated,
                "share": verified / proposed if proposed else None,
                "low": float(low) if proposed else None,
                "high": float(high) if proposed else None,
                "effect": rows["effect"].mean(),
            }
        )
    return found
