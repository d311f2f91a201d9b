"""Experiments on a model whose truth is planted: every class is one direction, and one latent of the SAE."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from visae.activations.given import write_store
from visae.config.settings import InterventionSettings, ModelSettings
from visae.experiments.experiment import run_experiment
from visae.experiments.files import ExperimentFiles
from visae.features.encoding import encode_store
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.variants.relu import Relu
from visae.vision.model import ModelCard, prepare_model

N_CLASSES, N_FIT, N_MEASURE, PATCHES, WIDTH = 3, 12, 9, 16, 24
LAST, MIDDLE = 5, 4
SETTINGS = InterventionSettings(
    scales=[-2.0, 0.0],
    insert_scale=4.0,
    bootstrap=50,
    batch_size=8,
    random_draws=2,
    doses=[-2.0, -0.5, 0.0, 1.0],
    dose_quantiles=[0.5],
    untrained=39,
    sample=4,
)


def make_planted(folder: Path) -> SimpleNamespace:
    """Patches that carry one orthogonal direction per class; latent 10 + c is that direction, class id c + 1.

    Every patch also has a weak common direction that the head reads as class 1, so a patch whose own
    direction is suppressed becomes class 1, and latents 0 to 9 are directions that no head reads.
    """
    settings = ModelSettings(architecture="test_vit", weights="random", image_size=64)
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
    card = ModelCard.read(folder / "model.json")
    d, n = card.layers[0].d_model, N_FIT + N_MEASURE
    rng = np.random.default_rng(1)
    # Orthonormal, and without a mean, so that the final norm only rescales.
    basis = np.linalg.qr(np.column_stack([np.ones(d), rng.normal(size=(d, WIDTH + 1))]))[0][:, 1:].T
    directions, common = basis[:WIDTH], basis[WIDTH]
    image_class = np.arange(n) % N_CLASSES
    # The picture's own class on 12 patches, the next one on 3; the last patch carries nothing.
    classes = np.full((n, PATCHES), -1)
    for i in range(n):
        place = rng.permutation(PATCHES - 1)
        classes[i, place[:12]], classes[i, place[12:]] = image_class[i], (image_class[i] + 1) % N_CLASSES
    tokens = np.zeros((n, 1 + PATCHES, d))
    for c in range(N_CLASSES):
        strength = np.where(image_class == c, 5, 3)[:, None] + rng.random((n, PATCHES))
        tokens[:, 1:] += np.where(classes == c, strength, 0)[..., None] * directions[10 + c]
    for latent in range(10):  # two of them are active on a patch, in the mean
        strength = np.where(rng.random((n, PATCHES, 1)) < 0.2, rng.uniform(1, 2, (n, PATCHES, 1)), 0)
        tokens[:, 1:] += strength * directions[latent]
    tokens += common
    splits = {"train": N_FIT, "val": N_MEASURE}
    manifests = {
        layer: write_store(folder / f"store{layer}", tokens.astype(np.float32), card.tokens(0), splits, layer=layer)
        for layer in (MIDDLE, LAST)
    }

    sae = SparseAutoencoder(d, WIDTH, Relu())
    state = {name: torch.zeros_like(tensor) for name, tensor in sae.state_dict().items()}
    weights = torch.from_numpy(directions).float()
    bias = torch.full((WIDTH,), -1e-3)
    state |= {"encoder_weight": weights, "decoder_weight": weights, "encoder_bias": bias, "scale": torch.tensor(1.0)}
    sae.load_state_dict({name: state[name].clone() for name in sae.state_dict()})
    sae_config = save_sae(sae, folder / "sae")
    encode_store(manifests[LAST], sae_config, folder / "codes", "cpu")

    names = [{"id": c + 1, "name": f"class {c + 1}"} for c in range(N_CLASSES)] + [{"id": 9, "name": "never"}]
    head = folder / "head"
    head.mkdir()
    read = np.stack([*directions[10 : 10 + N_CLASSES], -10 * common])
    read[0] += 0.5 * common
    save_file({"weight": torch.from_numpy(read).float(), "bias": torch.zeros(4)}, head / "weights.safetensors")
    (head / "metrics.json").write_text(json.dumps({"classes": names, "n_prefix": 1, "grid": [4, 4]}))
    probe = folder / "probe"
    probe.mkdir()
    both = torch.from_numpy(np.concatenate([np.zeros_like(read[:3]), 3 * read[:3]], axis=1)).float().contiguous()
    save_file({"weight": both, "bias": torch.zeros(3)}, probe / "weights.safetensors")
    (probe / "metrics.json").write_text(json.dumps({"classes": names[:3], "n_prefix": 1, "pooling": "both"}))

    pl.DataFrame(
        {
            "image_id": pl.Series(np.repeat(np.arange(n), PATCHES), dtype=pl.Int32),
            "token": pl.Series(np.tile(np.arange(PATCHES), n), dtype=pl.Int16),
            "label": pl.Series((classes + 1).ravel(), dtype=pl.Int16),
            "purity": pl.Series(np.ones(n * PATCHES), dtype=pl.Float32),
        }
    ).write_parquet(folder / "patch_labels.parquet")
    pl.DataFrame(
        {
            "class_id": pl.Series([1, 2, 3, 9], dtype=pl.Int32),
            "class_name": [c["name"] for c in names],
            "rank": pl.Series([0] * 4, dtype=pl.Int16),
            "latent": pl.Series([10, 11, 12, None], dtype=pl.Int32),
            "f1_fit": [1.0, 1.0, 1.0, None],
        }
    ).write_parquet(folder / "scores.parquet")
    pl.DataFrame(
        {
            "image_id": pl.Series(range(n), dtype=pl.Int32),
            "path": [f"{i}.png" for i in range(n)],
            "split": ["train"] * N_FIT + ["val"] * N_MEASURE,
            "label": pl.Series(image_class + 1, dtype=pl.Int32),
            "label_name": [f"class {c + 1}" for c in image_class],
            "mask_path": pl.Series([None] * n, dtype=pl.String),
            "width": pl.Series([64] * n, dtype=pl.Int32),
            "height": pl.Series([64] * n, dtype=pl.Int32),
            "sha256": ["0"] * n,
        }
    ).write_parquet(folder / "index.parquet")
    (folder / "summary.json").write_text(json.dumps({"kind": "scenes", "classes": names}))
    paths = {"folder": folder, "manifests": manifests, "sae_config": sae_config}
    return SimpleNamespace(**paths, classes=classes, labels=image_class + 1)


READOUTS = {"segmentation": "head", "classification": "probe"}


def files_of(planted: SimpleNamespace, task: str, layer: int = LAST, **others: Any) -> ExperimentFiles:
    """Files of a task; `others` stand in their place."""
    f = planted.folder
    found = {"manifest": planted.manifests[layer], "index": f / "index.parquet", "card": f / "model.json"}
    found |= {"sae": planted.sae_config, "codes": f / "codes/manifest.json"}
    found |= {"readout": f / READOUTS[task] / "metrics.json"}
    if task == "segmentation":
        found |= {"scores": f / "scores.parquet", "labels": f / "patch_labels.parquet"}
    return ExperimentFiles(**{name: str(path) for name, path in {**found, **others}.items()})


def run(
    planted: SimpleNamespace,
    task: str,
    output: Path,
    layer: int = LAST,
    *,
    settings: InterventionSettings = SETTINGS,
    manual: dict[str, list[int]] | None = None,
    seed: int = 0,
    **others: Any,
) -> dict[str, Any]:
    """Run a task's experiment; `others` are files."""
    files = files_of(planted, task, layer, **others)
    return run_experiment(task, files, settings, layer, output, manual=manual, device="cpu", seed=seed)


def run_segmentation(planted: SimpleNamespace, output: Path, **options: Any) -> dict[str, Any]:
    return run(planted, "segmentation", output, **options)


def run_classification(planted: SimpleNamespace, output: Path, **options: Any) -> dict[str, Any]:
    return run(planted, "classification", output, **options)
