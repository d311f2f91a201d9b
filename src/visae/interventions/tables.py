"""From what classification edits do to single pictures to the tables that they publish."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.features.resampling import benjamini_hochberg
from visae.heads.bootstrap import resampling_weights
from visae.interventions.arms import ARMS, AUTOMATIC, NATURAL
from visae.interventions.counts import Key, Shares, mean_shares, paired_p, sign_flips, with_intervals
from visae.interventions.targets import Target

MEAN = "mean"
SUPPRESS, INSERT = "suppress", "insert"

PICTURE_MEASURES = (
    "probability_before",
    "probability_after",
    "top1_before",
    "top1_after",
    "accuracy_before",
    "accuracy_after",
    "truth_before",
    "truth_after",
    "mass_moved",
)
"""Of one picture: the probability of the edited class, whether it is the likeliest, whether the likeliest is the true
one, the probability of the true one, and half the sum of all changes of probability."""

MEASURES = (
    "probability_before",
    "probability_after",
    "probability_change",
    "top1_before",
    "top1_after",
    "mass_moved",
    "other_probability_change",
    "other_accuracy_before",
    "other_accuracy_after",
    "other_mass_moved",
    "selectivity",
)
MOVED_TO = 5
"""Classes that gained most, of which it is published how much."""

_ABOUT: dict[str, Any] = {
    "edit": pl.String,
    "arm": pl.String,
    "size": pl.String,
    "scale": pl.Float64,
    "class_name": pl.String,
    "class_id": pl.Int32,
}
_EDITS_SCHEMA: dict[str, Any] = {
    **_ABOUT,
    "latents": pl.List(pl.Int32),
    **{f"{measure}{end}": pl.Float64 for measure in MEASURES for end in ("", "_low", "_high")},
    "p": pl.Float64,
    "q": pl.Float64,
    "n_images": pl.Int64,
    "n_other": pl.Int64,
}


@dataclass
class ClassEdits:
    """One edit of one class on n pictures.

    Attributes
    ----------
    images
        (n,) the pictures' places in the measured split.
    own
        (n,) whether the class's probability counts there: in its own pictures when it is suppressed, in all when it
        is inserted. The others are those that should stay as they are.
    values
        Of each arm, size and scale (n, len(PICTURE_MEASURES)), means over draws.
    moved
        Of each the sum of the changes of all classes' probabilities over `own` pictures, (n_classes,).
    """

    target: Target
    edit: str
    images: NDArray[np.int64]
    own: NDArray[np.bool_]
    values: dict[Key, NDArray[np.float64]] = field(default_factory=dict)
    moved: dict[Key, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def others(self) -> NDArray[np.bool_]:
        """(n,) pictures of other classes: all of them where the class is inserted."""
        return ~self.own if self.edit == SUPPRESS else self.own


def measures(edits: ClassEdits, key: Key, weights: NDArray[np.float64] | None = None) -> Shares:
    """MEASURES of an edit; with weights (resamples, pictures of the split) of every resample."""
    values, counts = edits.values[key], np.ones(len(edits.images)) if weights is None else weights[:, edits.images]
    own, others = (_means(values, counts, chosen) for chosen in (edits.own, edits.others))
    column = {name: place for place, name in enumerate(PICTURE_MEASURES)}
    change = own[..., column["probability_after"]] - own[..., column["probability_before"]]
    other_moved = others[..., column["mass_moved"]]
    suppressed = edits.edit == SUPPRESS
    return {
        **{name: own[..., column[name]] for name in ("probability_before", "probability_after")},
        "probability_change": change,
        **{name: own[..., column[name]] for name in ("top1_before", "top1_after", "mass_moved")},
        "other_probability_change": others[..., column["truth_after"]] - others[..., column["truth_before"]],
        "other_accuracy_before": others[..., column["accuracy_before"]],
        "other_accuracy_after": others[..., column["accuracy_after"]],
        "other_mass_moved": other_moved if suppressed else np.full_like(other_moved, np.nan),
        "selectivity": -change - other_moved if suppressed else np.full_like(other_moved, np.nan),
    }


def _means(values: NDArray[np.float64], counts: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weighted means (..., k) of the chosen pictures' values (n, k); NaN without any."""
    total = counts[..., chosen].sum(axis=-1)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, counts[..., chosen] @ values[chosen] / total, np.nan)


def gained(edits: ClassEdits, key: Key, better: Key, n_images: int) -> NDArray[np.float64]:
    """How much each picture adds to the difference of two edits' effects, `better` minus `key`, (n_images,).

    The effect is the selectivity where a class is suppressed, and its gain in probability where it is inserted.
    """
    column = {name: place for place, name in enumerate(PICTURE_MEASURES)}
    difference = edits.values[better] - edits.values[key]
    effect = difference[:, column["probability_after"]] / max(edits.own.sum(), 1)
    added = np.zeros(n_images)
    if edits.edit == INSERT:
        added[edits.images] = effect
    else:
        moved = difference[:, column["mass_moved"]] / max(edits.others.sum(), 1)
        added[edits.images] = np.where(edits.own, -effect, -moved)
    return added


def edits_table(
    classes: list[ClassEdits],
    latents: Mapping[tuple[str, int], tuple[int, ...]],
    n_images: int,
    resamples: int,
    seed: int,
) -> pl.DataFrame:
    """One row an edit, arm, size, scale and class, and one for the mean over classes.

    Parameters
    ----------
    latents
        What the arms of one draw edit, by arm and class id.
    n_images
        Pictures of the measured split.

    Returns
    -------
    DataFrame
        MEASURES with intervals from resampled pictures. `p` is that of the paired test that the automatic arm, at its
        own size, has a larger effect than the row's arm; `q` the false discovery rate over classes.
    """
    weights, signs = resampling_weights(n_images, resamples, seed), sign_flips(n_images, resamples, seed)
    rows: list[dict[str, Any]] = []
    for edit, key in _keys(classes):
        arm, size, scale = key
        of_edit = [edits for edits in classes if edits.edit == edit and key in edits.values]
        found = [measures(edits, key) for edits in of_edit]
        resampled = [measures(edits, key, weights) for edits in of_edit]
        added = [gained(edits, key, (AUTOMATIC, NATURAL, scale), n_images) for edits in of_edit]
        p = np.array([np.nan if arm == AUTOMATIC else paired_p(difference, signs) for difference in added])
        about = {"edit": edit, "arm": arm, "size": size, "scale": scale}
        for edits, one, spread, one_p, q in zip(of_edit, found, resampled, p, benjamini_hochberg(p), strict=True):
            who = {"class_name": edits.target.class_name, "class_id": edits.target.class_id}
            edited = {"latents": latents.get((arm, edits.target.class_id)), "p": one_p, "q": q}
            rows.append(about | who | edited | with_intervals(one, spread) | _sizes([edits]))
        mean, spread = mean_shares(found), mean_shares(resampled)
        mean_p = None if arm == AUTOMATIC else paired_p(np.mean(added, axis=0), signs)
        rows.append(about | {"class_name": MEAN, "p": mean_p} | with_intervals(mean, spread) | _sizes(of_edit))
    return pl.DataFrame(rows, schema=_EDITS_SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))


def moved_table(classes: list[ClassEdits], names: list[str]) -> pl.DataFrame:
    """Mean change of the probability of the edited class and of those that gain most, one row an edit and class."""
    rows = []
    for edit, key in _keys(classes):
        for edits in classes:
            if edits.edit == edit and key in edits.moved and edits.own.any():
                change = edits.moved[key] / edits.own.sum()
                target = names.index(edits.target.class_name)
                gaining = [column for column in np.argsort(-change, kind="stable") if change[column] > 0]
                about = (edit, *key, edits.target.class_name, edits.target.class_id)
                chosen = dict.fromkeys([target, *gaining[:MOVED_TO]])
                rows += [(*about, names[column], float(change[column])) for column in chosen]
    return pl.DataFrame(
        rows, schema=_ABOUT | {"class_name_after": pl.String, "probability_change": pl.Float64}, orient="row"
    )


def _keys(classes: list[ClassEdits]) -> list[tuple[str, Key]]:
    """All edits, suppressions first, in the order of ARMS."""
    keys = dict.fromkeys((edits.edit, key) for edits in classes for key in edits.values)
    return sorted(keys, key=lambda found: (found[0] == INSERT, ARMS.index(found[1][0])))


def _sizes(classes: list[ClassEdits]) -> dict[str, int]:
    own, others = ([edits.images[getattr(edits, who)] for edits in classes] for who in ("own", "others"))
    return {"n_images": len(np.unique(np.concatenate(own))), "n_other": len(np.unique(np.concatenate(others)))}
