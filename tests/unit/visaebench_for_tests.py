"""Runs where visaebench can be imported: python visaebench_for_tests.py FOLDER.

Evaluates the SAE of FOLDER/sae on the activations of FOLDER/store with visaebench's own `evaluate`, once with all of
them in one tensor and once with files of activations, as it writes them itself, and writes what it gives to
FOLDER/found.json; then, by some of its metrics, the SAE of FOLDER/wide, which has more latents than it looks at.
"""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import torch

from visae.activations.store import ActivationStore
from visae.sae import load_sae
from visae.vision.timm_import import import_timm

import_timm()

import visaebench  # noqa: E402
from visaebench.backbones.registry import register_backbone  # noqa: E402


def activations(folder: Path) -> torch.Tensor:
    store = ActivationStore.open(folder / "manifest.json")
    return store.read(range(store.n_images), "patches")


def labels(index: Path) -> np.ndarray:
    return pl.read_parquet(index)["label"].to_numpy()


@register_backbone("dinov2_vitb14")
class Judge:
    """Stands for the network that visaebench would get from a hub: a picture is the number of its embedding."""

    def __init__(self, *, device="cpu"):
        self.rows = activations(root / "judge")

    def extract_activations(self, images, *, layer=-1):
        return self.rows[torch.as_tensor(images)]


if __name__ == "__main__":
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    own, other = activations(root / "store"), activations(root / "other_store")
    torch.save(own, root / "shard.pt")
    grid = ActivationStore.open(root / "store" / "manifest.json").grid
    groups = {
        name: {"class_indices": classes} for name, classes in json.loads((root / "groups.json").read_text()).items()
    }
    every = ("sae", "all")
    with torch.no_grad():
        found = {
            name: visaebench.evaluate(
                load_sae(root / sae / "config.json"),
                metrics=metrics,
                activations=given,
                labels=labels(root / "index.parquet"),
                images=list(range(len(own))),
                backbone_name=None,
                ood_datasets={"other": {"activations": other, "labels": labels(root / "other.parquet")}},
                sibling_groups=groups,
                grid_size=grid,
                device="cpu",
            )
            for name, given, (sae, metrics) in (
                ("tensor", own, every),
                ("files", [root / "shard.pt"], every),
                ("wide", own, ("wide", ["localization", "monosemanticity"])),
            )
        }
    values = {name: {result.name: result.value for result in results} for name, results in found.items()}
    (root / "found.json").write_text(json.dumps(values))
