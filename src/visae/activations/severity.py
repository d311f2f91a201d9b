"""How much the mean of activations outweighs their spread, which decides how many latents of an SAE die."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from visae.activations.schema import ShardHeader, ShardRecord, as_tensor
from visae.errors import StoreError

# Above it more of an activation's mean square is the mean's than the spread's.
HIGH_SEVERITY = 1.0
# Row groups that are read: of a larger store these are spread evenly, so that publishing it takes no longer.
_GROUPS = 16


class Moments:
    """Mean and spread of rows that come in parts, in memory for one part.

    Parts are gathered about the first one's mean: a mean far from zero costs no digits.
    """

    def __init__(self) -> None:
        self.count = 0.0
        self._shift, self._sum, self._squares = (torch.zeros(()) for _ in range(3))

    def add(self, rows: Tensor, weight: float = 1.0) -> None:
        """Take in rows (n, d) that count `weight` each."""
        if not len(rows):
            return
        if not self.count:
            self._shift = rows.double().mean(0)
            self._sum, self._squares = (torch.zeros_like(self._shift) for _ in range(2))
        centred = rows.double() - self._shift
        self._sum += weight * centred.sum(0)
        self._squares += weight * centred.square().sum(0)
        self.count += weight * len(rows)

    @property
    def mean(self) -> Tensor:
        """Of each dimension, float64 (d,)."""
        return self._shift + self._sum / self.count

    @property
    def deviation(self) -> Tensor:
        """Standard deviation of each dimension, float64 (d,)."""
        return (self._squares / self.count - (self._sum / self.count).square()).clamp(min=0).sqrt()

    @property
    def severity(self) -> float | None:
        """Norm of the mean over that of the standard deviations (arXiv 2605.31518); None where nothing varies."""
        if not self.count:
            return None
        spread = float(torch.linalg.vector_norm(self.deviation))
        return float(torch.linalg.vector_norm(self.mean)) / spread if spread > 0 else None


def outlier_severity(folder: Path, header: ShardHeader, records: Sequence[ShardRecord]) -> dict[str, Any]:
    """Outlier severity of a store's activations by kind of token, read off its shards one row group at a time.

    Parameters
    ----------
    folder, header, records
        Where the shards lie, the header of any, and what the manifest says of each.

    Returns
    -------
    dict
        `patches`, `class` and `all`: norm of the mean over norm of the standard deviations, None where the store has
        no such tokens or they are all the same; and `images`, how many pictures these are of.
    """
    choice = header.choice
    slices = {"patches": slice(choice.n_prefix, None), "all": slice(None)}
    if choice.tokens[:1] == (-1,):
        slices["class"] = slice(0, 1)
    moments = {kind: Moments() for kind in ("patches", "class", "all")}
    n_images = 0
    for rows in _spread_groups(folder, header, records):
        pictures = rows.view(-1, choice.n_rows, header.d_model)
        n_images += len(pictures)
        for kind, part in slices.items():
            moments[kind].add(pictures[:, part].reshape(-1, header.d_model))
    return {**{kind: found.severity for kind, found in moments.items()}, "images": n_images}


def _spread_groups(folder: Path, header: ShardHeader, records: Sequence[ShardRecord]) -> Iterator[Tensor]:
    """Rows (n, d_model) of row groups, at most `_GROUPS`, from the whole of a store."""
    groups = [
        (record.file, group) for record in records for group in range(-(-record.n_images // header.images_per_group))
    ]
    read = min(len(groups), _GROUPS)
    for number in range(read):
        file, group = groups[(2 * number + 1) * len(groups) // (2 * read)]
        try:
            with pq.ParquetFile(folder / file, page_checksum_verification=True) as parquet:
                column = parquet.read_row_group(group, columns=["activation"], use_threads=False).column(0)
        except Exception as error:  # pyarrow raises many kinds for a damaged file
            raise StoreError(
                f"{folder / file}: row group {group} cannot be read ({error}); delete it and make it again"
            ) from error
        yield as_tensor(column.combine_chunks(), header.d_model, header.dtype)
