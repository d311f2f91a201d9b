"""A planted shortcut: a probe that reads two directions a class, one of which goes with the class on train alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from planted_for_tests import LAST, PATCHES, make_planted
from safetensors.torch import save_file

from visae.activations.given import write_store
from visae.experiments.files import ExperimentFiles
from visae.features.encoding import encode_store
from visae.sae import load_sae
from visae.vision.model import ModelCard

N_TRAIN, N_VAL = 80, 96
SHORTCUT, CORE = (0, 1), (10, 11)
"""Latents of the two shortcuts and of what the two classes are; latents 2 to 9 are active and read by nobody."""

DENSE = 23
"""A latent that is active everywhere: most of a token's length, so that the last norm hardly bends what is read."""

STRENGTH, WEAK, STRONG = 3.0, 2.0, 4.0
"""Of a shortcut, and of what a class is: where a shortcut breaks, a picture is right where its class is stronger."""


@dataclass(frozen=True)
class Shortcut:
    """Its files, and of every picture the class number, the shortcut and how strong the class is."""

    files: ExperimentFiles
    truth: NDArray[np.int64]
    shortcut: NDArray[np.int64]
    strength: NDArray[np.float64]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which pictures the probe answers rightly."""
        return (self.truth == self.shortcut) | (self.strength > STRENGTH)


def make_shortcut(folder: Path) -> Shortcut:
    folder.joinpath("vit").mkdir(parents=True)
    vit = make_planted(folder / "vit")
    directions = load_sae(vit.sae_config, "cpu").decoder_weight.detach().double().numpy()
    rng = np.random.default_rng(2)
    n = N_TRAIN + N_VAL
    truth = np.arange(n) % 2
    # On train one in ten pictures has the other's shortcut; on val half of them, whatever their class.
    breaks = np.concatenate([np.arange(N_TRAIN) // 2 % 10 == 0, np.arange(N_VAL) // 2 % 2 == 0])
    shortcut = np.where(breaks, 1 - truth, truth)
    strength = np.where(rng.random(n) < 0.75, WEAK, STRONG)
    patch = strength[:, None] * directions[list(CORE)][truth] + STRENGTH * directions[list(SHORTCUT)][shortcut]
    patch = patch + 12 * directions[DENSE] + np.where(rng.random((n, 8)) < 0.3, 1.0, 0.0) @ directions[2:10]
    tokens = np.repeat(patch[:, None], 1 + PATCHES, axis=1).astype(np.float32)
    tokens[:, 0] = 0
    card = ModelCard.read(vit.folder / "model.json")
    store = write_store(folder / "store", tokens, card.tokens(0), {"train": N_TRAIN, "val": N_VAL}, layer=LAST)
    encode_store(store, vit.sae_config, folder / "codes", "cpu")
    read = directions[list(CORE)] + directions[list(SHORTCUT)]
    probe = folder / "probe"
    probe.mkdir()
    weight = torch.from_numpy(3 * read).float().contiguous()
    save_file({"weight": weight, "bias": torch.zeros(2)}, probe / "weights.safetensors")
    names = [{"id": number + 1, "name": f"class {number + 1}"} for number in range(2)]
    (probe / "metrics.json").write_text(json.dumps({"classes": names, "n_prefix": 1, "pooling": "mean"}))
    index = folder / "index.parquet"
    pl.DataFrame(
        {
            "image_id": pl.Series(range(n), dtype=pl.Int32),
            "path": [f"{i}.png" for i in range(n)],
            "split": ["train"] * N_TRAIN + ["val"] * N_VAL,
            "label": pl.Series(truth + 1, dtype=pl.Int32),
            "mask_path": pl.Series([None] * n, dtype=pl.String),
            "group": [f"class {c + 1} on {s + 1}" for c, s in zip(truth, shortcut, strict=True)],
        }
    ).write_parquet(index)
    (folder / "summary.json").write_text(json.dumps({"kind": "table", "classes": names}))
    paths = {"manifest": store, "index": index, "card": vit.folder / "model.json", "sae": vit.sae_config}
    paths |= {"codes": folder / "codes/manifest.json", "readout": probe / "metrics.json"}
    files = ExperimentFiles(**{name: str(path) for name, path in paths.items()})
    return Shortcut(files, truth, shortcut, strength)
