"""What switching off one latent does in weak groups and in the others, beside random latents that do as much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visae.config.interventions import MATCHED
from visae.experiments.tables import ALPHA, paired_p, sign_flips
from visae.features.resampling import benjamini_hochberg
from visae.groups.edits import BEFORE, SUPPRESSED, Answers
from visae.intervals import interval, resampling_weights

CONTROLS = ("random_latent", "frequency_matched")


def measured_singly(
    found: Mapping[tuple[str, str], Answers], weak: NDArray[np.bool_], resamples: int, seed: int
) -> dict[str, Any]:
    """Columns of one latent: its effect on the log odds of the true class, in weak groups and in others.

    Parameters
    ----------
    found
        As `visae.groups.edits.answers` gives it, controls as long.
    weak
        (n,) which pictures belong to weak groups.

    Returns
    -------
    dict
        `effect_weak` and `effect_strong` with intervals, the controls' in weak groups, and `p` that in weak groups the
        latent, switched off, raises the log odds of the true class no more than random ones do.
    """
    before = found[BEFORE].odds
    change = found[SUPPRESSED].odds - before
    row: dict[str, Any] = {"n_active": int((change != 0).sum())}
    for name, own in (("weak", change[weak]), ("strong", change[~weak])):
        low, high = interval(resampling_weights(len(own), resamples, seed) @ own / len(own))
        row |= {f"effect_{name}": float(own.mean()), f"effect_{name}_low": low, f"effect_{name}_high": high}
    for arm in CONTROLS:
        row[arm] = float((found[arm, MATCHED].odds - before)[weak].mean())
    more = (found[SUPPRESSED].odds - found[CONTROLS[0], MATCHED].odds)[weak]
    row["p"] = paired_p(more / len(more), sign_flips(len(more), resamples, seed))
    return row


def judged(rows: Mapping[int, dict[str, Any]]) -> None:
    """Add `q` and `verified` to the rows of all latents that were measured, in place."""
    q = benjamini_hochberg(np.array([row["p"] for row in rows.values()], dtype=np.float64))
    for row, rate in zip(rows.values(), q, strict=True):
        row |= {"q": float(rate), "verified": bool(rate <= ALPHA and row["effect_weak_low"] > 0)}
