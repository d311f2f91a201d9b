"""Whether classes that are alike share their latents (visaebench's M7)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visae.errors import DataError
from visae.features.benchmark.measured import UNDEFINED, Estimate, Metric, NotMeasured
from visae.features.benchmark.pictures import Pictures, probe_split, ranked, right_answers, variance_ratios
from visae.features.resampling import wilson_interval

FEWEST_SIBLINGS = 3
"""Classes below which a group is left out."""

# What visaebench needs: pictures of a group, and of a class and of its siblings.
_OF_GROUP, _OF_CLASS = 10, 3
# Latents whose overlap is taken, and the overlap and the gain in F1 above which a class counts as absorbed.
_TOP, _OVERLAP, _GAP = 10, 0.5, 0.1
_NARROW, _WIDE = 1, 4


@dataclass
class _Pair:
    """A class among its siblings.

    Attributes
    ----------
    rows
        Pictures of the group.
    is_class
        (n_rows,) which of them are of the class.
    split
        Rows that the corrected probe learns from, and those that it is scored on; None where there are too few.
    overlap
        Of the strongest latents of the class and of the group, those in both over those in either.
    ratios
        Variance ratios of every latent, (2, width): over all rows, and over those to learn from.
    """

    rows: NDArray[np.int64]
    is_class: NDArray[np.int64]
    split: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    overlap: float
    ratios: NDArray[np.float64]


def absorption(pictures: Pictures, groups: Mapping[str, list[int]], split_seed: int) -> Metric:
    """M7, absorption_rate: the share of classes that have no latent of their own among their siblings.

    A class counts as absorbed where its ten strongest latents are mostly those of its whole group, or where a probe on
    four latents has an F1 larger by 0.1 than one on a single latent. visaebench scores the probes on the pictures that
    they learned from; `corrected` on a fifth of the group's pictures that had no part.

    Parameters
    ----------
    pictures
        What is looked at.
    groups
        Class ids of each group of siblings.
    split_seed
        visaebench's, of the solver; here of the split too.

    Raises
    ------
    NotMeasured
        If no class has enough pictures, or there are no groups.
    """
    pairs = list(_pairs(pictures, groups, split_seed))
    if not pairs:
        raise NotMeasured(
            f"no group has {FEWEST_SIBLINGS} classes with {_OF_CLASS} pictures or more (config: benchmark: groups)"
        )
    _fill(pictures, pairs)
    wanted = np.unique(np.concatenate([ranked(ratios, _WIDE) for pair in pairs for ratios in pair.ratios]))
    columns = pictures.columns(wanted)
    absorbed, held_out = [], []
    for pair in pairs:

        def gap(number: int, learned: NDArray[np.int64], tested: NDArray[np.int64], pair: _Pair = pair) -> float:
            best = np.searchsorted(wanted, ranked(pair.ratios[number], _WIDE))
            values = columns[best].toarray().T[pair.rows]
            scores = [_f1(values[:, :k], pair.is_class, learned, tested, split_seed) for k in (_NARROW, _WIDE)]
            return scores[1] - scores[0]

        every = np.arange(len(pair.rows))
        absorbed.append(gap(0, every, every) > _GAP or pair.overlap > _OVERLAP)
        if pair.split is not None:
            held_out.append(gap(1, *pair.split) > _GAP or pair.overlap > _OVERLAP)
    return Metric(
        *("absorption_rate", "visaebench", False, _rate(absorbed), _rate(held_out), len(pairs), "classes"),
        correction="probes scored on pictures that they have not learned from",
    )


def read_groups(path: Path, classes: Mapping[int, str]) -> dict[str, list[int]]:
    """Read groups of sibling classes.

    Parameters
    ----------
    path
        JSON: lists of classes, by id or name, by group; or a file as visaebench has one, `wordnet_pairs.json`.
    classes
        Name of each class id of the data set. Classes of other data sets are left out.

    Raises
    ------
    DataError
        If it is no such file.
    NotMeasured
        If it names no class of the data set.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: _listed(group) for name, group in found.get("sibling_groups", found).items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise DataError(
            f'{path}: not a JSON file of lists of classes by group, such as {{"dogs": ["pug", "beagle"]}}: {error}'
        ) from error
    ids = {name: number for number, name in classes.items()} | {number: number for number in classes}
    groups = {name: sorted({ids[entry] for entry in group if entry in ids}) for name, group in lists.items()}
    if not any(groups.values()):
        known = ", ".join(list(classes.values())[:5]) or "none"
        raise NotMeasured(f"{path}: no group has a class of this data set, whose classes are {known} ...")
    return groups


def _listed(group: Any) -> list[int | str]:
    entries = group["class_indices"] if isinstance(group, dict) else group
    if not isinstance(entries, list) or not all(isinstance(entry, int | str) for entry in entries):
        raise TypeError(f"{group!r} is no list of class ids or names")
    return entries


def _pairs(pictures: Pictures, groups: Mapping[str, list[int]], seed: int) -> Iterator[_Pair]:
    """Classes with enough pictures, each among its siblings."""
    for classes in groups.values():
        rows = np.flatnonzero(np.isin(pictures.labels, classes))
        if len(classes) < FEWEST_SIBLINGS or len(rows) < _OF_GROUP:
            continue
        for number in classes:
            is_class = (pictures.labels[rows] == number).astype(np.int64)
            if min(is_class.sum(), len(rows) - is_class.sum()) < _OF_CLASS:
                continue
            try:
                split = probe_split(is_class, seed)
            except NotMeasured:
                split = None
            yield _Pair(rows, is_class, split, 0.0, np.full((2, pictures.width), -np.inf))


def _fill(pictures: Pictures, pairs: list[_Pair]) -> None:
    """Set the variance ratios and overlaps of all pairs, in one pass over the codes."""
    strongest = np.zeros((2, len(pairs), pictures.width), dtype=np.float32)
    for latents, values in pictures.dense_blocks():
        here = slice(latents.start, latents.stop)
        for number, pair in enumerate(pairs):
            of_group = values[pair.rows]
            strongest[0, number, here] = of_group.mean(axis=0)
            strongest[1, number, here] = of_group[pair.is_class == 1].mean(axis=0)
            pair.ratios[0, here] = variance_ratios(of_group, pair.is_class)
            if pair.split is not None:
                learned = pair.split[0]
                pair.ratios[1, here] = variance_ratios(of_group[learned], pair.is_class[learned])
    for pair, group, own in zip(pairs, *strongest, strict=True):
        top, own_top = (set(np.argsort(means)[-_TOP:].tolist()) for means in (group, own))
        pair.overlap = len(top & own_top) / len(top | own_top)


def _f1(
    values: NDArray[np.float32],
    is_class: NDArray[np.int64],
    learned: NDArray[np.int64],
    tested: NDArray[np.int64],
    seed: int,
) -> float:
    """F1 of a probe on some latents (n_rows, k); 0 where it finds none."""
    right = right_answers(values, is_class, learned, tested, seed)
    of_class = is_class[tested] == 1
    hits = (right & of_class).sum()
    return float(2 * hits / max(1, 2 * hits + (~right).sum()))


def _rate(absorbed: list[bool]) -> Estimate:
    if not absorbed:
        return UNDEFINED
    low, high = wilson_interval(np.array(sum(absorbed)), np.array(len(absorbed)))
    return Estimate(sum(absorbed) / len(absorbed), float(low), float(high))
