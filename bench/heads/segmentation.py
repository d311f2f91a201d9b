"""Kinds of segmentation heads side by side: python -m bench.heads.segmentation RESULTS DATASET MODEL [KIND ...]

On finished results of a study with a segmentation set (`snakemake heads`). Each kind learns from the store on split
train and is measured on val; intervals resample pictures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from visae.config.settings import SegmentationHeadSettings
from visae.heads.files import SegmentationFiles
from visae.heads.segmentation import train_segmentation_head
from visae.vision.model import ModelCard

# A convolution is slow on a CPU, so it has one rate: that which the hidden layer of `mlp` does best with on held-out
# pictures of CamVid.
KINDS = {
    "linear": SegmentationHeadSettings(),
    "mlp": SegmentationHeadSettings(kind="mlp", learning_rates=[0.001, 0.003, 0.01], weight_decays=[0.01]),
    "conv": SegmentationHeadSettings(kind="conv", hidden=64, learning_rates=[0.003], weight_decays=[0.01]),
}


def main(results: Path, dataset: str, model: str, kinds: list[str]) -> None:
    """Print a Markdown table, one row a kind."""
    card, data = results / "models" / model / "model.json", results / "datasets" / dataset
    layer = ModelCard.read(card).depth - 1
    print("| head | hidden | learning rate | mIoU by patches | mIoU by pixels | accuracy by pixels |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind in kinds:
        settings = KINDS[kind]
        with tempfile.TemporaryDirectory() as folder:
            files = SegmentationFiles(
                manifest=results / "activations" / dataset / model / f"layer{layer}" / "manifest.json",
                index_path=data / "index.parquet",
                patch_labels=data / f"patch-labels-{model}-layer{layer}.parquet",
                card_path=card,
            )
            found = train_segmentation_head(settings, files, folder)
        measures = " | ".join(shown(found, name) for name in ("patch_miou", "pixel_miou", "pixel_accuracy"))
        hidden = "none" if kind == "linear" else settings.hidden
        print(f"| {kind} | {hidden} | {found['learning_rate']:g} | {measures} |", flush=True)


def shown(found: dict[str, Any], name: str) -> str:
    """A measure with its interval."""
    return f"{found[name]:.3f} [{found[f'{name}_low']:.3f}, {found[f'{name}_high']:.3f}]"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:] or [*KINDS])
