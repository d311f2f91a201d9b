"""The files that a head is trained from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class HeadFiles:
    """Activations, their pictures and their model.

    Attributes
    ----------
    manifest
        Store of the model's last block.
    index_path
        Index of the data set.
    card_path
        model.json of the model.
    """

    manifest: str | Path
    index_path: str | Path
    card_path: str | Path

    def named(self) -> list[str | Path]:
        """All of them, which metrics keep the hash of."""
        return [self.manifest, self.index_path, self.card_path]


@dataclass(frozen=True, kw_only=True)
class SegmentationFiles(HeadFiles):
    """Those of a segmentation head.

    Attributes
    ----------
    manifest
        Store of the model's last block.
    index_path
        Index of the data set.
    card_path
        model.json of the model.
    patch_labels
        Parquet of patch labels: what measures by patches are taken against.
    """

    patch_labels: str | Path
