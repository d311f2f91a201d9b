"""Masks as class channels: pixel by pixel through the model's geometry, or patch by patch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from visae.data.images import fitted_mask
from visae.data.index import read_index, read_mask_reading
from visae.errors import DataError
from visae.vision.card import ModelCard

if TYPE_CHECKING:
    import torch

UNLABELLED = -1


class Masks:
    """Masks through the model's geometry, as class channels with UNLABELLED where there is no class.

    Parameters
    ----------
    class_ids
        Class id of each channel.
    """

    def __init__(self, index_path: str | Path, card: ModelCard, class_ids: list[int]) -> None:
        self.index_path, self.card = index_path, card
        columns = ["image_id", "mask_path", "width", "height", "path"]
        rows = read_index(index_path).filter(pl.col("mask_path").is_not_null()).select(columns).iter_rows()
        self._rows = {image_id: row for image_id, *row in rows}
        self.class_ids, self.reading = class_ids, read_mask_reading(index_path)

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._rows

    def read(self, image_id: int) -> torch.Tensor:
        """Channels int16 (height, width) of a picture, as a tensor."""
        import torch  # figures read masks too, and do not wait for it

        return torch.from_numpy(self.array(image_id))

    def array(self, image_id: int) -> np.ndarray:
        """Channels int16 (height, width) of a picture."""
        mask_path, width, height, path = self._rows[image_id]
        size, fit, share = self.card.image_size, self.card.fit, self.card.crop_share
        mask = fitted_mask(mask_path, (width, height), size, fit, self.reading, path, share)
        return channels(mask, self.class_ids)


def channels(ids: np.ndarray, class_ids: list[int]) -> np.ndarray:
    """Turn class ids of any shape into positions in `class_ids`, int16; UNLABELLED for 0 and unknown ids."""
    table = np.full(max([*class_ids, int(ids.max(initial=0))]) + 1, UNLABELLED, dtype=np.int16)
    table[class_ids] = np.arange(len(class_ids))
    return table[ids]


def patch_channels(patch_labels: str | Path, class_ids: list[int], grid: tuple[int, int]) -> dict[int, torch.Tensor]:
    """Majority class of each patch of a grid as a channel, int16 (n_patches,), by picture.

    Raises
    ------
    DataError
        If the labels are of another grid.
    """
    import torch

    frame = pl.read_parquet(patch_labels).sort("image_id", "token")
    ids = frame["image_id"].to_numpy()
    labels = channels(frame["label"].to_numpy().astype(np.int64), class_ids)
    pictures, starts, counts = np.unique(ids, return_index=True, return_counts=True)
    if (wrong := counts != grid[0] * grid[1]).any():
        raise DataError(
            f"{patch_labels}: {counts[wrong][0]} patches of picture {pictures[wrong][0]}, but the head reads "
            f"{grid[0]} x {grid[1]}; write the labels for the same model and layer"
        )
    return {
        int(picture): torch.from_numpy(part)
        for picture, part in zip(pictures, np.split(labels, starts[1:]), strict=True)
    }
