"""Two pictures that differ in one named cause: whether they belong together, and where they really differ."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray

from visae.data.images import Preprocessing, fitted_mask, open_image, read_mask
from visae.errors import DataError
from visae.notices import Notice


@dataclass(frozen=True)
class Pair:
    """A base picture, and one that differs from it in one cause.

    Attributes
    ----------
    name
        What all pictures of one base share.
    cause
        What is changed.
    base, changed
        Image ids.
    size
        Width and height in pixels, of both.
    region_path
        PNG that is not 0 where the change may be; None where that is not known.
    """

    name: str
    cause: str
    split: str
    base: int
    changed: int
    base_path: str
    changed_path: str
    size: tuple[int, int]
    region_path: str | None

    def region(self) -> NDArray[np.bool_] | None:
        """Where the change may be, bool (height, width); None where that is not known.

        Raises
        ------
        DataError
            If the file is missing or empty of pixels, or has another size than the pictures.
        """
        if self.region_path is None:
            return None
        region = read_mask(self.region_path, self.size) != 0
        if not region.any():
            raise DataError(
                f"{self.region_path}: the region of {self.changed_path} is 0 everywhere; draw it, or leave it out"
            )
        return region

    def share_of_patches(self, seen: Preprocessing, grid: tuple[int, int]) -> NDArray[np.float32]:
        """Share of each patch that the region covers, as a model sees it: float32 (n_patches,), row-major.

        Ones throughout where the region is not known. Raises DataError as `region` does.

        Parameters
        ----------
        seen
            The model's card: its crop is that of the region.
        grid
            Patches down and across.
        """
        down, across = grid
        if self.region_path is None:
            return np.ones(down * across, dtype=np.float32)
        mask = fitted_mask(self.region_path, self.size, seen.image_size, seen.fit, crop_share=seen.crop_share)
        blocks = (mask != 0).reshape(down, mask.shape[0] // down, across, mask.shape[1] // across)
        return blocks.mean(axis=(1, 3), dtype=np.float32).ravel()


def pairs_of(rows: polars.DataFrame) -> list[Pair]:
    """Pairs in rows of an index, in the order of their changed pictures; DataError where one is not whole."""
    found: list[Pair] = []
    for _, group in rows.filter(polars.col("pair").is_not_null()).group_by("pair", maintain_order=True):
        found += _of_group(group["pair"][0], group)
    return sorted(found, key=lambda pair: pair.changed)


def causes_of(pairs: list[Pair]) -> list[str]:
    """Causes in the order in which they first come."""
    return list(dict.fromkeys(pair.cause for pair in pairs))


def _of_group(name: str, group: polars.DataFrame) -> Iterator[Pair]:
    """Pairs of all pictures that share a base, and DataError where they do not belong together."""
    bases = group.filter(polars.col("cause").is_null())
    if len(bases) != 1:
        held = f"{len(bases)} such: " + ", ".join(bases["path"].head(3)) if len(bases) else "none"
        raise DataError(
            f"pair: {name}: one of its pictures has to be the base, whose cause is empty, and the index has {held}; "
            "was it unreadable (skipped.csv)?"
        )
    base = bases.row(0, named=True)
    if len(group) == 1:
        raise DataError(f"pair: {name}: {base['path']} is alone; give it a picture with a cause, or no pair")
    causes: dict[str, str] = {}
    for row in group.filter(polars.col("cause").is_not_null()).iter_rows(named=True):
        both = f"pair: {name}: {base['path']} and {row['path']}"
        sizes = [(one["width"], one["height"]) for one in (base, row)]
        if sizes[0] != sizes[1]:
            told = " and ".join(f"{width} x {height}" for width, height in sizes)
            raise DataError(f"{both} have {told} pixels; pictures of a pair have one size")
        if base["split"] != row["split"]:
            raise DataError(f"{both} are in the splits {base['split']} and {row['split']}; a pair has to be in one")
        if row["cause"] in causes:
            raise DataError(
                f"pair: {name}: {causes[row['cause']]} and {row['path']} both have the cause "
                f"{row['cause']}; give one of them a pair of its own"
            )
        causes[row["cause"]] = row["path"]
        yield Pair(
            name=name,
            cause=row["cause"],
            split=row["split"],
            base=base["image_id"],
            changed=row["image_id"],
            base_path=base["path"],
            changed_path=row["path"],
            size=sizes[0],
            region_path=row["region_path"],
        )


@dataclass(frozen=True)
class Difference:
    """How two pictures of a pair differ.

    Attributes
    ----------
    inside, outside
        Share of the pixels in and out of the region that are not the same; NaN where there are no such pixels.
    level
        Largest difference outside in any channel, 0 to 255.
    """

    inside: float
    outside: float
    level: int


def difference(pair: Pair) -> Difference:
    """Compare the pixels of a pair; raises DataError where a file cannot be read or the region does not fit."""
    base, changed = (np.asarray(open_image(path)).astype(np.int16) for path in (pair.base_path, pair.changed_path))
    levels = np.abs(changed - base).max(axis=2)
    region = pair.region()
    region = np.ones(levels.shape, dtype=bool) if region is None else region
    differs = levels > 0
    outside = float(differs[~region].mean()) if not region.all() else float("nan")
    return Difference(float(differs[region].mean()), outside, int(levels[~region].max(initial=0)))


def differences(pairs: list[Pair]) -> Iterator[tuple[Pair, Difference]]:
    """Compare all pairs, in order; Pillow decodes outside Python's lock, so threads do."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(pairs, pool.map(difference, pairs), strict=True)


def pairs_facts(pairs: list[Pair]) -> list[dict[str, Any]]:
    """What summary.json says of pairs, by cause: numbers, and how the pictures really differ.

    Raises
    ------
    DataError
        If a region is missing, has no pixel or another size than its pictures.
    """
    kept: dict[str, list[tuple[Pair, Difference]]] = {cause: [] for cause in causes_of(pairs)}
    for pair, found in differences(pairs):
        kept[pair.cause].append((pair, found))
    return [_of_cause(cause, found) for cause, found in kept.items()]


def _of_cause(cause: str, found: list[tuple[Pair, Difference]]) -> dict[str, Any]:
    with_region = [one for pair, one in found if pair.region_path is not None]
    outside = [0.0 if np.isnan(one.outside) else one.outside for one in with_region]
    worst = max(found, key=lambda one: (one[1].level, one[1].outside))
    numbers = dict(polars.Series([pair.split for pair, _ in found]).value_counts().sort("").iter_rows())
    return {
        "cause": cause,
        "n_pairs": numbers,
        "n_without_region": len(found) - len(with_region),
        "n_the_same": sum(one.inside == 0 and one.level == 0 for _, one in found),
        "differs_inside": float(np.mean([one.inside for _, one in found])),
        "differs_outside": float(np.mean(outside)) if outside else None,
        "n_differ_outside": sum(one.level > 0 for one in with_region),
        "largest_outside": worst[1].level,
        "example": [worst[0].base_path, worst[0].changed_path] if worst[1].level else None,
    }


def notices_of_pairs(facts: Sequence[dict[str, Any]]) -> Iterator[Notice]:
    """What has to be said of pairs, from `pairs_facts`."""
    for found in facts:
        n, cause, such = sum(found["n_pairs"].values()), found["cause"], " and ".join(found["example"] or ())
        if found["n_differ_outside"]:
            yield Notice(
                "warning",
                f"pairs of the cause {cause}: {found['n_differ_outside']} of {n} differ outside their region, in "
                f"{found['differs_outside']:.2%} of its pixels in the mean and by up to {found['largest_outside']} of "
                f"255 levels, most in {such}: more than this cause changes between them (lossy compression does so; "
                "save as PNG)",
            )
        if found["n_the_same"]:
            yield Notice("warning", f"pairs of the cause {cause}: in {found['n_the_same']} of {n} nothing differs")
        if found["n_without_region"]:
            yield Notice(
                "note",
                f"pairs of the cause {cause}: {found['n_without_region']} of {n} have no region: what else differs "
                "between them cannot be told, and all of the picture counts as inside",
            )
