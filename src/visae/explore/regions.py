"""Regions that can be asked about: patches of a picture, a mask, or a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.data.images import fitted_mask, image_size
from visae.data.index import read_classes, read_index
from visae.errors import DataError
from visae.explore.files import FeatureFiles
from visae.vision.card import ModelCard

_COVERED = 0.5  # of a patch that a mask has to cover


def of_patches(patches: Sequence[int], grid: tuple[int, int], *, whole: bool = False) -> NDArray[np.bool_]:
    """Return the patches inside, bool (rows, columns); `whole` says that they may be all.

    Raises
    ------
    DataError
        If a number is outside the grid.
    """
    n_patches = grid[0] * grid[1]
    outside = [patch for patch in patches if not 0 <= patch < n_patches]
    if outside:
        raise DataError(
            f"patches: {outside[0]} is outside the grid of {grid[0]} x {grid[1]} patches; they are counted row by row "
            f"from 0 to {n_patches - 1}"
        )
    inside = np.zeros(n_patches, dtype=bool)
    inside[list(patches)] = True
    return _checked(inside.reshape(grid), "patches", whole)


def of_box(box: Sequence[int], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the patches from one row and column to another, both included, bool (rows, columns).

    Parameters
    ----------
    box
        First row, first column, last row and last column, counted from 0.

    Raises
    ------
    DataError
        If it is no box within the grid.
    """
    if len(box) != 4 or not (0 <= box[0] <= box[2] < grid[0] and 0 <= box[1] <= box[3] < grid[1]):
        raise DataError(
            f"box: {list(box)}: write the first row and column and the last row and column of patches, within rows 0 "
            f"to {grid[0] - 1} and columns 0 to {grid[1] - 1}"
        )
    inside = np.zeros(grid, dtype=bool)
    inside[box[0] : box[2] + 1, box[1] : box[3] + 1] = True
    return inside


def of_mask(
    mask_path: str | Path, picture_path: str | Path, card: ModelCard, grid: tuple[int, int], *, whole: bool = False
) -> NDArray[np.bool_]:
    """Return the patches that a mask covers to at least one half, bool (rows, columns).

    Parameters
    ----------
    mask_path
        Picture of the size of the other one; what is not 0 is inside.
    picture_path
        Picture that it belongs to.
    card
        Of the model: the mask is cut or squashed as it cuts or squashes pictures.
    grid
        Patches down and across.
    whole
        Whether it may cover all patches.

    Raises
    ------
    DataError
        If the mask has another size, or covers no patch, or all where it may not.
    """
    size = image_size(picture_path)
    mask = fitted_mask(mask_path, size, card.image_size, card.fit, crop_share=card.crop_share) != 0
    down, across = (side // cells for side, cells in zip(card.image_size, grid, strict=True))
    share = mask.reshape(grid[0], down, grid[1], across).mean(axis=(1, 3))
    return _checked(share >= _COVERED, f"mask: {mask_path}", whole)


def of_class(files: FeatureFiles, class_name: str, min_purity: float, image_id: int | None) -> pl.DataFrame:
    """Return image_id, token and inside of the patches of a class and of all others.

    With masks, a patch counts where one class fills at least `min_purity` of it; without, all patches of a picture
    carry its label.

    Parameters
    ----------
    files
        Of the features.
    class_name
        As the data set calls it.
    min_purity
        Share of a patch that a class has to fill.
    image_id
        Look at this picture alone.

    Raises
    ------
    DataError
        If there is no such class, or no patch of it or of others.
    """
    classes = {name: number for number, name in read_classes(files.index).items()}
    if class_name not in classes:
        raise DataError(f"class: {files.index} has no class {class_name!r}, only {', '.join(classes) or 'no classes'}")
    of_image = pl.lit(True) if image_id is None else pl.col("image_id") == image_id
    inside = (pl.col("label") == classes[class_name]).alias("inside")
    if files.patch_labels.is_file():
        pure = (pl.col("purity") >= min_purity) & (pl.col("label") != 0)
        labels = pl.scan_parquet(files.patch_labels).filter(of_image & pure)
        region = labels.select("image_id", "token", inside).collect()
    else:
        if image_id is not None:
            raise DataError(
                f"class: {files.patch_labels} is missing, so no class is known of a part of picture {image_id}; give "
                "patches or a mask, or leave the picture out"
            )
        tokens = pl.DataFrame({"token": pl.Series(range(n_patches_of(files)), dtype=pl.Int16)})
        labelled = read_index(files.index).filter(pl.col("label").is_not_null())
        region = labelled.select("image_id", inside).join(tokens, how="cross")
    if region["inside"].all() or not region["inside"].any():
        where = files.index if image_id is None else f"picture {image_id}"
        what = "other classes" if region["inside"].any() else repr(class_name)
        raise DataError(
            f"class: {where} has no patch of {what} that one class fills to {min_purity:.0%}; give patches or a mask"
        )
    return region


def n_patches_of(files: FeatureFiles) -> int:
    """Patches of a picture."""
    return ModelCard.read(files.card).layers[int(files.point.partition("-")[0])].n_patches


def _checked(inside: NDArray[np.bool_], where: str, whole: bool) -> NDArray[np.bool_]:
    if not inside.any():
        raise DataError(f"{where}: no patch is inside; choose a part of the picture")
    if inside.all() and not whole:
        raise DataError(
            f"{where}: all patches are inside, so there is nothing to compare; choose a part of the picture"
        )
    return inside
