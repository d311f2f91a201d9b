"""Stores of pictures whose patches carry planted directions, an SAE that knows them, and its codes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from visae.activations.given import write_store
from visae.data.index import SCHEMA as INDEX_SCHEMA
from visae.features.benchmark.table import BenchmarkFiles, DatasetFiles
from visae.features.encoding import encode_store
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.variants.relu import Relu

D_MODEL, WIDTH, GRID = 24, 40, (5, 5)
N_PATCHES = GRID[0] * GRID[1]


def directions() -> np.ndarray:
    """(WIDTH, D_MODEL) of length 1: latents are not orthogonal, so that codes are not perfect."""
    rows = np.random.default_rng(7).normal(size=(WIDTH, D_MODEL))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_patches(seed: int, labels: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """(n_pictures, patches, D_MODEL): each class has two directions that lie in one corner, and all have some."""
    random = np.random.default_rng(seed)
    rows, n = directions(), len(labels)
    strength = np.where(random.random((n, N_PATCHES, WIDTH)) < 0.08, random.uniform(0.5, 2, (n, N_PATCHES, WIDTH)), 0)
    row, column = np.divmod(np.arange(N_PATCHES), GRID[1])
    for number, label in enumerate(labels):
        near = (row - random.integers(5)) ** 2 + (column - random.integers(5)) ** 2 <= 4
        for latent in (2 * label, 2 * label + 1):
            strength[number, near, latent] += random.uniform(0.2, 2.5)
    patches = strength @ rows + 0.05 * random.normal(size=(n, N_PATCHES, D_MODEL))
    return (patches + shift).astype(np.float32)


def planted_sae(more: int = 0) -> SparseAutoencoder:
    """The latents that were planted, and some more at random."""
    sae = SparseAutoencoder(D_MODEL, WIDTH + more, Relu())
    others = np.random.default_rng(11).normal(size=(more, D_MODEL))
    rows = np.concatenate([directions(), others / np.linalg.norm(others, axis=1, keepdims=True)])
    weights = torch.from_numpy(rows).float()
    state = {**sae.state_dict(), "encoder_weight": weights, "decoder_weight": weights}
    state["encoder_bias"] = torch.full((WIDTH + more,), -0.35)
    sae.load_state_dict({name: tensor.clone() for name, tensor in state.items()})
    return sae


def write_index(path: Path, labels: Sequence[int | None], splits: dict[str, int]) -> None:
    """An index with these labels, and summary.json with the classes' names."""
    n = len(labels)
    rows = {name: [None] * n for name in INDEX_SCHEMA} | {"image_id": list(range(n)), "label": list(labels)}
    rows["split"] = [name for name, size in splits.items() for _ in range(size)]
    rows["path"] = [f"{number}.png" for number in range(n)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=INDEX_SCHEMA).write_parquet(path)
    known = sorted({label for label in labels if label is not None})
    classes = [{"id": label, "name": f"class {label}"} for label in known]
    (path.parent / "summary.json").write_text(json.dumps({"classes": classes}))


def make_dataset(
    folder: Path, name: str, labels: np.ndarray, patches: np.ndarray, sae_config: Path, splits: dict[str, int]
) -> DatasetFiles:
    """Store, index and codes of a data set."""
    store = write_store(folder / f"{name}store", patches, list(range(N_PATCHES)), splits, grid=GRID)
    index = folder / (f"{name.rstrip('_')}.parquet" if name else "index.parquet")
    write_index(index, labels.tolist(), splits)
    encode_store(store, sae_config, folder / f"{name}codes", "cpu")
    return DatasetFiles(codes=str(folder / f"{name}codes/manifest.json"), store=str(store), index=str(index))


def make_planted(folder: Path, n: int = 480, n_classes: int = 8) -> tuple[BenchmarkFiles, dict[str, DatasetFiles]]:
    """A data set of one split, another one beside it, and activations of a judge."""
    sae = save_sae(planted_sae(), folder / "sae")
    labels = np.random.default_rng(0).permutation(np.arange(n) % n_classes)
    own = make_dataset(folder, "", labels, make_patches(1, labels), sae, {"val": n})
    there = np.random.default_rng(5).permutation(np.arange(90) % 3)
    # Class ids from 2: visaebench does not split these pictures by class.
    other = make_dataset(folder, "other_", there + 2, make_patches(2, there + 1, shift=0.2), sae, {"val": 90})
    summary = json.loads((folder / "summary.json").read_text())
    summary["classes"] = [{"id": label, "name": f"class {label}"} for label in range(n_classes)]
    (folder / "summary.json").write_text(json.dumps(summary))
    seen = np.eye(n_classes)[labels][:, None] + 0.8 * np.random.default_rng(3).normal(size=(n, 2, n_classes))
    judge = write_store(folder / "judge", seen.astype(np.float32), [0, 1], {"val": n}, grid=(1, 2))
    (folder / "groups.json").write_text(json.dumps({"first": [0, 1, 2, 3], "second": [4, 5, 6, 7]}))
    files = BenchmarkFiles(**vars(own), sae=str(sae), judge=str(judge))
    return files, {"other": other}
