"""The class of each patch, and how pure it is."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars
from numpy.typing import NDArray

from visae.data.images import fitted_mask
from visae.data.index import read_classes, read_index, read_mask_reading
from visae.errors import DataError
from visae.files import read_json, write_table
from visae.progress import progress_bar


def patch_labels(
    mask: NDArray[np.integer], grid: tuple[int, int], n_classes: int
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Find the majority class of each patch.

    Parameters
    ----------
    mask
        Class ids (height, width), 0 = unlabelled, which counts like a class.
    grid
        Patches down and across, which divide the mask.
    n_classes
        Largest class id.

    Returns
    -------
    labels
        int16 (n_patches,), row-major; of equally frequent classes the smallest id.
    purity
        float32 (n_patches,): share of the patch that has this class.
    """
    down, across = grid
    height, width = mask.shape[0] // down, mask.shape[1] // across
    patches = mask.reshape(down, height, across, width).swapaxes(1, 2).reshape(down * across, -1)
    if patches.size and not 0 <= int(patches.min()) <= int(patches.max()) <= n_classes:
        raise DataError(
            f"class ids of a mask go from 0 to {n_classes}, but this one has {patches.min()} to {patches.max()}"
        )
    offsets = np.arange(len(patches))[:, None] * (n_classes + 1)
    counts = np.bincount((patches.astype(np.int64) + offsets).ravel(), minlength=len(patches) * (n_classes + 1))
    counts = counts.reshape(len(patches), n_classes + 1)
    labels = counts.argmax(axis=1)
    purity = counts[np.arange(len(patches)), labels] / (height * width)
    return labels.astype(np.int16), purity.astype(np.float32)


def write_patch_labels(index_path: str | Path, card_path: str | Path, layer: int, output: str | Path) -> None:
    """Write image_id int32, token int16, label int16, purity float32 for every picture with a mask.

    Rows are sorted by image_id and token. Masks go through the same crop or squash as the pictures.

    Parameters
    ----------
    index_path
        Data set's index.parquet.
    card_path
        The model's model.json: image size, fit and crop decide.
    layer
        Whose grid; a transformer's layers have the same.
    output
        Parquet file to write.
    """
    card = read_json(card_path)
    masked = read_index(index_path).filter(polars.col("mask_path").is_not_null()).sort("image_id")
    if masked.is_empty():
        raise DataError(f"{index_path}: no picture has a mask; patch labels need a data set with masks")
    n_classes, reading = max(read_classes(index_path)), read_mask_reading(index_path)

    def labelled(row: dict[str, Any]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        size = row["width"], row["height"]
        seen, share = tuple(card["image_size"]), card["crop_share"]
        mask = fitted_mask(row["mask_path"], size, seen, card["fit"], reading, row["path"], share)
        return patch_labels(mask, tuple(card["layers"][layer]["grid"]), n_classes)

    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar(len(masked), "patch labels", "masks") as bar:
        for result in pool.map(labelled, masked.iter_rows(named=True)):
            found.append(result)
            bar.update()
    n_patches = len(found[0][0])
    frame = polars.DataFrame(
        {
            "image_id": np.repeat(masked["image_id"].to_numpy(), n_patches),
            "token": np.tile(np.arange(n_patches, dtype=np.int16), len(found)),
            "label": np.concatenate([labels for labels, _ in found]),
            "purity": np.concatenate([purity for _, purity in found]),
        }
    )
    write_table(output, frame)
