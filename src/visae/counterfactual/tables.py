"""The tables of what was measured on counterfactual pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.counterfactual.changes import Changes
from visae.counterfactual.selective import Responses, Verdicts, own_and_others
from visae.experiments.tables import measured_columns
from visae.intervals import COVERAGE, interval

# Latents whose resampled values are held at once.
_CHUNK = 128

CHANGES_SCHEMA: dict[str, Any] = {
    "dictionary": pl.String,
    "latent": pl.Int32,
    "cause": pl.String,
    **measured_columns(("response",)),
    "inside": pl.Float64,
    "outside": pl.Float64,
    "where": pl.Float64,
    "network_where": pl.Float64,
    "n_pairs": pl.Int32,
    "first": pl.String,
    **measured_columns(("selectivity",)),
    "p": pl.Float64,
    "found": pl.Boolean,
    "p_again": pl.Float64,
    "q": pl.Float64,
    "again": pl.Boolean,
    "n_pictures": pl.Int64,
}
"""Columns of counterfactuals.parquet: one row a dictionary of the study, latent that takes part, and cause."""

SHARES_SCHEMA: dict[str, Any] = {
    "dictionary": pl.String,
    "kind": pl.String,
    "cause": pl.String,
    "n_active": pl.Int64,
    "n_found": pl.Int64,
    "n_again": pl.Int64,
    **measured_columns(("share", "difference")),
    "l0": pl.Float64,
    "width": pl.Int64,
}
"""Columns of dictionaries.parquet: one row a dictionary and cause, and one for all causes, whose `cause` is null."""


def changes_table(
    name: str,
    causes: Sequence[str],
    measured: Responses,
    changes: Changes,
    found: Verdicts,
    pictures: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> pl.DataFrame:
    """What each latent that takes part does with each cause, on the measured split.

    Parameters
    ----------
    changes
        Of the measured split.
    pictures
        (width,) pictures of the split that latents are found on in which each is active.
    weights
        (resamples, n_scenes).
    """
    active = found.active
    means, (low, high), selectivity = _with_intervals(measured, found, weights)
    places = _places(changes, active, len(causes))
    network = _places_of_network(changes, len(causes))
    n_pairs = np.bincount(changes.cause, minlength=len(causes))
    parts = []
    for cause, called in enumerate(causes):
        inside, outside = places[0][cause], places[1][cause]
        parts.append(
            pl.DataFrame(
                {
                    "dictionary": [name] * len(active),
                    "latent": active,
                    "cause": [called] * len(active),
                    "response": means[cause],
                    "response_low": low[cause],
                    "response_high": high[cause],
                    "inside": inside,
                    "outside": outside,
                    "where": _share(inside, outside),
                    "network_where": np.full(len(active), network[cause]),
                    "n_pairs": np.full(len(active), n_pairs[cause]),
                    "first": [causes[one] for one in found.first],
                    "selectivity": selectivity[0],
                    "selectivity_low": selectivity[1],
                    "selectivity_high": selectivity[2],
                    "p": found.p,
                    "found": found.found,
                    "p_again": found.p_again,
                    "q": found.q,
                    "again": found.again,
                    "n_pictures": pictures[active],
                },
                schema=CHANGES_SCHEMA,
            )
        )
    return pl.concat(parts).with_columns(pl.col(pl.Float64).fill_nan(None)).sort("latent", maintain_order=True)


def selectivity_of(means: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """(first - other) / (first + other), of responses (..., n_causes, n): 1 where a latent moves with one cause alone.

    The other is the largest response to any other cause; at 1/3 the first is twice it, below 0 smaller.
    """
    own, other = own_and_others(means, first)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((own - other) / (own + other))


def _with_intervals(
    measured: Responses, found: Verdicts, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Responses (n_causes, n), their interval (2, n_causes, n), and selectivity with its interval, (3, n)."""
    means = measured.means()[:, found.active]
    bounds = np.full((2, *means.shape), np.nan)
    selectivity = np.full((3, means.shape[1]), np.nan)
    selectivity[0] = selectivity_of(means, found.first)
    tail = (1 - COVERAGE) / 2
    for start in range(0, len(found.active), _CHUNK):
        part = slice(start, start + _CHUNK)
        drawn = measured.only(found.active[part]).means(weights)
        bounds[:, :, part] = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
        selectivity[1:, part] = np.nanquantile(selectivity_of(drawn, found.first[part]), [tail, 1 - tail], axis=0)
    return means, bounds, selectivity


def _places(changes: Changes, active: NDArray[np.int64], n_causes: int) -> tuple[list[NDArray], list[NDArray]]:
    """Mean change of codes a token inside and outside of the region, by cause."""
    rows = [changes.cause == cause for cause in range(n_causes)]
    inside, outside = ([_mean(values[own][:, active]) for own in rows] for values in (changes.inside, changes.outside))
    return inside, outside


def _places_of_network(changes: Changes, n_causes: int) -> list[float]:
    """The network's own `where` for each cause."""
    found = []
    for cause in range(n_causes):
        own = changes.network[changes.cause == cause]
        inside, outside = _mean(own[:, 1:2]), _mean(own[:, 2:3])
        found.append(float(_share(inside, outside)[0]))
    return found


def _mean(values: NDArray) -> NDArray[np.float64]:
    """Mean over pairs (n_pairs, n) that have a value."""
    known = ~np.isnan(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0, dtype=np.float64) / known.sum(axis=0))


def _share(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(inside / (inside + outside))


def network_facts(changes: Changes, spread: float, causes: Sequence[str]) -> list[dict[str, Any]]:
    """How far the network's own activations move with each cause: the yardstick of all responses.

    Returns
    -------
    list of dict
        cause; `change`, of the mean activation of a picture, in units of how far scenes differ; `where`, the share of
        the change of single tokens that lies inside the region, by its means in and out; None where all is inside.
    """
    places = _places_of_network(changes, len(causes))
    return [
        {
            "cause": cause,
            "change": float(changes.network[changes.cause == number, 0].mean() / spread),
            "where": None if np.isnan(places[number]) else places[number],
        }
        for number, cause in enumerate(causes)
    ]


def shares_rows(
    about: dict[str, Any],
    causes: Sequence[str],
    found: Verdicts,
    resampled: NDArray[np.float64],
    reference: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> list[dict[str, Any]]:
    """Rows of dictionaries.parquet of one dictionary.

    Parameters
    ----------
    about
        dictionary, kind, l0 and width.
    resampled
        (resamples, n_causes) share in each resample of scenes.
    reference
        The share of the study's first dictionary, (n_causes,), and in the same resamples: `difference` is that minus
        the row's.
    """
    n = max(len(found.active), 1)
    share = shares_of(found, len(causes))
    rows = []
    for number, cause in [(None, None), *enumerate(causes)]:
        own = slice(None) if number is None else slice(number, number + 1)
        chosen = np.ones(len(found.first), dtype=bool) if number is None else found.first == number
        row = {
            **about,
            "cause": cause,
            "n_active": len(found.active),
            "n_found": int((found.found & chosen).sum()),
            "n_again": int((found.again & chosen).sum()),
        }
        drawn, base = resampled[:, own].sum(axis=1), reference[1][:, own].sum(axis=1)
        value = float(share[own].sum())
        for measure, one, spread in (
            ("share", value, drawn),
            ("difference", float(reference[0][own].sum()) - value, base - drawn),
        ):
            low, high = interval(spread)
            row |= {measure: one, f"{measure}_low": low, f"{measure}_high": high}
        assert row["n_again"] <= n
        rows.append(row)
    return rows


def shares_of(found: Verdicts, n_causes: int) -> NDArray[np.float64]:
    """Share of the latents that take part which are selective for each cause, (n_causes,)."""
    counts = np.bincount(found.first[found.again], minlength=n_causes)
    return np.asarray(counts / max(len(found.active), 1))
