"""What the edits say of the pairs that rankings proposed: which are verified, and which ranking was right how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from visae.discovery.pairs import AT_RANDOM, BY_LABELS, RANKINGS, Pair
from visae.experiments.tables import ALPHA
from visae.features.resampling import benjamini_hochberg, wilson_interval

PRECISION_AT = (20, 100)
"""So many of the first pairs of a ranking are asked how many of them are verified."""

_NAMED = 10


def judged(rows: dict[Pair, dict[str, Any]], estimates: Mapping[Pair, float]) -> list[Pair]:
    """Add `q` and `verified` to the rows of measured pairs, in place; returns the pairs."""
    pairs = list(rows)
    q = benjamini_hochberg(np.array([rows[pair]["p"] for pair in pairs], dtype=np.float64))
    for pair, rate in zip(pairs, q, strict=True):
        row = rows[pair]
        row |= {"q": float(rate), "verified": bool(rate <= ALPHA and leaves_out_zero(row, estimates[pair]))}
    return pairs


def leaves_out_zero(row: Mapping[str, Any], estimate: float) -> bool:
    """Whether all of a measured effect's interval has the direction of the estimate."""
    return bool(row["effect_high"] < 0 if estimate < 0 else row["effect_low"] > 0)


def summary_of(table: pl.DataFrame) -> dict[str, Any]:
    """Precision of each ranking, how well the estimate agrees with what was measured, and the proven latents.

    Parameters
    ----------
    table
        effects.parquet.
    """
    measured = table.filter(pl.col("effect").is_not_null())
    at_random = measured.filter(pl.col(f"rank_{AT_RANDOM}").is_not_null())
    proven = table.filter(pl.col("verified"))
    return {
        "n_pairs": len(table),
        "n_measured": len(measured),
        "n_verified": len(proven),
        "n_replicated": int(table["replicates"].sum()),
        "precision": [
            found for name in RANKINGS for size in _asked(table) if (found := _precision(table, name, size)) is not None
        ],
        "rank_correlation": {"edited": _correlation(measured), "at_random": _correlation(at_random)},
        "classes": [_of_class(name, rows) for (name,), rows in table.group_by("class_name", maintain_order=True)],
    }


def _asked(table: pl.DataFrame) -> list[int]:
    """Those of PRECISION_AT that differ: where no ranking proposes more than so many, larger ones say the same."""
    most = max(int(table[f"rank_{name}"].count()) for name in RANKINGS)
    return [size for place, size in enumerate(PRECISION_AT) if place == 0 or most > PRECISION_AT[place - 1]]


def _precision(table: pl.DataFrame, ranking: str, size: int) -> dict[str, Any] | None:
    """Share of the first pairs of a ranking that are verified; what labels propose has to support the class."""
    first = table.filter(pl.col(f"rank_{ranking}") < size)
    if not len(first):
        return None
    verified = first["verified"].fill_null(False)
    if ranking == BY_LABELS:
        verified &= first["estimate"] < 0
    low, high = wilson_interval(np.array(int(verified.sum())), np.array(len(first)))
    replicated = verified & first["replicates"].fill_null(False)
    return {
        "ranking": ranking,
        "at": size,
        "n": len(first),
        "precision": float(verified.mean()),  # type: ignore[arg-type]
        "low": float(low),
        "high": float(high),
        "replicated": float(replicated.mean()),  # type: ignore[arg-type]
    }


def _correlation(rows: pl.DataFrame) -> float | None:
    """Spearman's correlation of estimate and measured effect; None where one of them is the same throughout."""
    if len(rows) < 3 or rows["estimate"].n_unique() < 2 or rows["effect"].n_unique() < 2:
        return None
    return float(rows.select(pl.corr("estimate", "effect", method="spearman")).item())


def _of_class(name: str, rows: pl.DataFrame) -> dict[str, Any]:
    """Latents that support a class and that oppose it, the largest effects first: proven, and shown again."""
    shown = rows.filter(pl.col("replicates")).sort(pl.col("effect").abs(), descending=True)
    supports, opposes = (
        [
            {name: row[name] for name in ("latent", "effect", "effect_low", "effect_high", "half_dose", "selectivity")}
            for row in part.head(_NAMED).to_dicts()
        ]
        for part in (shown.filter(pl.col("effect") < 0), shown.filter(pl.col("effect") > 0))
    )
    return {"name": name, "supports": supports, "opposes": opposes}
