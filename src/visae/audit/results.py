"""Tables of an audit: the proposals with their verdicts, and the yield of each source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from visae.audit.held_out import SILENT, UNKNOWN, Held, Test
from visae.audit.proposals import Fitted, Proposal
from visae.features.resampling import benjamini_hochberg, p_value, wilson_interval

ALPHA = 0.05
"""False discovery rate at which a proposal survives."""

SCHEMA: dict[str, Any] = {
    "source": pl.String,
    "latent": pl.Int32,
    "meaning": pl.String,
    "aspect": pl.String,
    "score": pl.Float64,
    "auc_fit": pl.Float64,
    "auc": pl.Float64,
    "auc_low": pl.Float64,
    "auc_high": pl.Float64,
    "auc_null": pl.Float64,
    "average_precision": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "survives": pl.Boolean,
    "rank": pl.Int32,
    "n_meanings": pl.Int32,
    "n_units": pl.Int64,
    "n_pictures": pl.Int64,
    "share": pl.Float64,
    "p_untrained": pl.Float64,
    "q_untrained": pl.Float64,
    "above_untrained": pl.Boolean,
    "replicates": pl.Boolean,
    "not_testable": pl.String,
}
"""Columns of proposals.parquet: one row a proposal; null where it cannot be tested."""

SHARES = ("survived", "specific", "above")
"""Shares of proposals that beat chance; beat it and are what the latent tells best; beat untrained dictionaries."""

OF_WHICH = {"survived": "n_tested", "specific": "n_tested", "above": "n_compared"}

YIELDS: dict[str, Any] = {
    "untrained": pl.Int32,
    "source": pl.String,
    "n_proposed": pl.Int64,
    "n_tested": pl.Int64,
    "n_survived": pl.Int64,
    "n_specific": pl.Int64,
    "n_compared": pl.Int64,
    "n_above": pl.Int64,
    **{f"{share}{end}": pl.Float64 for share in SHARES for end in ("", "_low", "_high")},
    **{f"auc_{name}": pl.Float64 for name in ("lower", "median", "upper")},
    "auc_fit_median": pl.Float64,
    "n_edited": pl.Int64,
    "n_replicated": pl.Int64,
}
"""Columns of yields.parquet: one row a dictionary, null or the number of an untrained one, and source."""

_EXAMPLES = 5


def judged(
    proposals: Sequence[Proposal],
    fit: Fitted,
    held: Mapping[Test, Held],
    why_not: Mapping[tuple[str, int], str | None],
) -> pl.DataFrame:
    """Lay the verdicts beside the proposals, in their order: `SCHEMA`.

    Parameters
    ----------
    fit
        Of the split that proposals were made on.
    held
        What the other split says of each test.
    why_not
        Of each aspect and value, why it cannot be tested, or nothing.
    """
    rows = [_row(proposal, fit, held, why_not) for proposal in proposals]
    table = pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))
    return _corrected(table, "p", "q", "survives")


def _corrected(table: pl.DataFrame, p: str, q: str, verdict: str) -> pl.DataFrame:
    """Fill the column `q` with the p-values of each source corrected, and `verdict` with what stays below ALPHA."""
    if table.is_empty():
        return table
    rates = pl.col(p).map_batches(
        lambda values: pl.Series(benjamini_hochberg(values.fill_null(np.nan).to_numpy())), return_dtype=pl.Float64
    )
    table = table.with_columns(rates.over("source").fill_nan(None).alias(q))
    return table.with_columns((pl.col(q) <= ALPHA).alias(verdict)).select(*SCHEMA)


def beside_untrained(table: pl.DataFrame, untrained: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Compare each proposal with those that untrained dictionaries make from the same source.

    The p-value is the rank of its held-out average precision among all of these, on a scale on which guessing is 0 and
    1 is perfect, so that frequent meanings have no advantage. The area under the ROC curve would not do: of a latent
    that is active on few units it is near 0.5, however sure these are. Were the dictionary an untrained one too, each
    of its proposals would be drawn as theirs are.

    Parameters
    ----------
    table
        Of `judged`.
    untrained
        The same of untrained dictionaries, the one that is compared not among them.

    Returns
    -------
    DataFrame
        The table with p_untrained, q_untrained and above_untrained; null where no untrained one has the source.
    """
    if not untrained:
        return table
    above_guessing = (pl.col("average_precision") - pl.col("share")) / (1 - pl.col("share"))
    scored = pl.concat(untrained).filter(pl.col("average_precision").is_not_null())
    scores = {
        source: np.sort(rows.select(above_guessing).to_series().to_numpy())
        for (source,), rows in scored.group_by("source")
    }
    found: list[float | None] = []
    for source, own in table.select("source", above_guessing).iter_rows():
        others = scores.get(source)
        if own is None or others is None:
            found.append(None)
        else:
            as_large = len(others) - int(np.searchsorted(others, own, side="left"))
            found.append((1 + as_large) / (1 + len(others)))
    table = table.with_columns(pl.Series("p_untrained", found, dtype=pl.Float64))
    return _corrected(table, "p_untrained", "q_untrained", "above_untrained")


def _row(
    proposal: Proposal, fit: Fitted, held: Mapping[Test, Held], why_not: Mapping[tuple[str, int], str | None]
) -> dict[str, Any]:
    """Columns of a proposal, but for those that need all of its source."""
    row: dict[str, Any] = {
        "source": proposal.source,
        "latent": proposal.latent,
        "meaning": proposal.meaning,
        "score": proposal.score,
        "replicates": proposal.replicates,
    }
    if (known := proposal.found) is None:
        return {**row, "not_testable": UNKNOWN}
    row |= {"aspect": known.aspect, "auc_fit": float(fit.scores[known.aspect].auc[proposal.latent, known.number])}
    if reason := why_not[known.aspect, known.number]:
        return {**row, "not_testable": reason}
    of_test = held[known.aspect, proposal.latent, known.number]
    if not (of_test.is_active or fit.active[proposal.latent]):
        return {**row, "not_testable": SILENT}
    return row | {
        "auc": of_test.auc,
        "auc_low": of_test.low,
        "auc_high": of_test.high,
        "auc_null": of_test.null,
        "average_precision": of_test.average_precision,
        "p": of_test.p,
        "rank": of_test.rank,
        "n_meanings": of_test.n_meanings,
        "n_units": of_test.n_units,
        "n_pictures": of_test.n_pictures,
        "share": of_test.share,
    }


def yields_of(table: pl.DataFrame, untrained: int | None = None) -> pl.DataFrame:
    """Count what survives of each source: `YIELDS`.

    `specific` are those that survive and whose meaning the latent tells better than any other of its family.

    Parameters
    ----------
    table
        Of `judged`.
    untrained
        Number of the dictionary, if it is an untrained one.
    """
    is_tested = pl.col("p").is_not_null()
    counts = table.group_by("source", maintain_order=True).agg(
        untrained=pl.lit(untrained, pl.Int32),
        n_proposed=pl.len(),
        n_tested=is_tested.sum(),
        n_survived=pl.col("survives").sum(),
        n_specific=(pl.col("survives") & (pl.col("rank") == 0)).sum(),
        n_compared=pl.col("p_untrained").is_not_null().sum(),
        n_above=pl.col("above_untrained").sum(),
        auc_lower=pl.col("auc").quantile(0.25, "linear"),
        auc_median=pl.col("auc").median(),
        auc_upper=pl.col("auc").quantile(0.75, "linear"),
        auc_fit_median=pl.col("auc_fit").filter(is_tested).median(),
        n_edited=pl.col("replicates").is_not_null().sum(),
        n_replicated=pl.col("replicates").sum(),
    )
    for share in SHARES:
        hits, tested = (counts[name].to_numpy() for name in (f"n_{share}", OF_WHICH[share]))
        low, high = wilson_interval(hits, tested)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = {"": hits / tested, "_low": low, "_high": high}
        counts = counts.with_columns(pl.Series(f"{share}{end}", values) for end, values in parts.items())
    found = counts.select(pl.col(name).cast(kind) for name, kind in YIELDS.items())
    return found.with_columns(pl.col(pl.Float64).fill_nan(None))


def summary_of(table: pl.DataFrame, yields: pl.DataFrame, n_permutations: int) -> dict[str, Any]:
    """Yields beside those of untrained dictionaries, and what could not be tested.

    Parameters
    ----------
    table, yields
        proposals.parquet and yields.parquet.
    n_permutations
        Behind each p-value.
    """
    smallest = 1 / (1 + n_permutations)
    own = yields.filter(pl.col("untrained").is_null()).drop("untrained")
    others = yields.filter(pl.col("untrained").is_not_null())
    reasons = table.filter(pl.col("not_testable").is_not_null())
    return {
        "sources": [{**row, "untrained": _beside(row, others)} for row in own.to_dicts()],
        "not_testable": [
            {
                "reason": reason,
                "n": len(rows),
                "examples": [
                    f"{source}: latent {latent}: {meaning}"
                    for source, latent, meaning in rows.select("source", "latent", "meaning").head(_EXAMPLES).rows()
                ],
            }
            for (reason,), rows in reasons.group_by("not_testable", maintain_order=True)
        ],
        "smallest_p": smallest,
        # Fewer than this share of a source's proposals cannot survive, however strong they are.
        "smallest_yield": min(1.0, smallest / ALPHA),
    }


def _beside(row: dict[str, Any], others: pl.DataFrame) -> dict[str, Any] | None:
    """Yields of untrained dictionaries of one source, and the rank of the audited one among them."""
    same = others.filter(pl.col("source") == row["source"])
    if not len(same):
        return None
    found: dict[str, Any] = {"n": len(same), "auc_median": same["auc_median"].mean()}
    for share in SHARES:
        values = same[share].drop_nulls().to_numpy()
        own = np.nan if row[share] is None else row[share]
        found[share] = {
            "mean": float(values.mean()) if len(values) else None,
            "low": float(values.min()) if len(values) else None,
            "high": float(values.max()) if len(values) else None,
            "p": float(p_value(own, values)) if len(values) and not np.isnan(own) else None,
        }
    return found
