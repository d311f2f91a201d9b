"""A small world for each task, whose truth is planted; the battery of test_tasks.py runs over all of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image
from planted_for_tests import MIDDLE, SETTINGS, files_of, make_planted
from safetensors.torch import load_file, save_file

from visae.activations.given import adopt_activations, index_given
from visae.config.settings import InterventionSettings, UsersSettings
from visae.config.tasks import TaskKind
from visae.data.users import make_users
from visae.experiments.experiment import run_experiment
from visae.experiments.files import ExperimentFiles
from visae.features.encoding import encode_store
from visae.heads.probe import image_labels
from visae.heads.tokens import open_store
from visae.sae import SparseAutoencoder, load_sae, save_sae
from visae.sae.variants.relu import Relu
from visae.tasks.files import TaskFiles
from visae.tasks.members import open_task
from visae.tasks.pictures import PictureTask
from visae.tasks.task import Task
from visae.tasks.zero_shot import read_named_rows
from visae.vision.model import VisionModel, load_model

CPU = torch.device("cpu")
USERS = UsersSettings(kind="users", train=120, val=40, test=1, tastes=5, items_per_taste=4, d_model=24, noise=0.2)
FIRST = 4


class Threshold(PictureTask):
    """The toy: how far the mean final patch lies beyond a threshold along each class's vector."""

    name = "threshold"

    @classmethod
    def open(cls, files: TaskFiles, model: VisionModel, layer: int, batch_size: int = 32) -> Threshold:
        vectors, names, metadata = read_named_rows(files.readout, "vectors")
        classes = [{"id": number + 1, "name": name} for number, name in enumerate(names)]
        store, labels = open_store(files.manifest, model.card, layer), image_labels(files.index)
        around = model.card.n_prefix, model.card.grid, classes, (), labels
        task = cls(model.resumed(layer), store, *around, batch_size)
        task.vectors, task.threshold = vectors, float(metadata["threshold"])
        return task

    def answers(self, final: torch.Tensor) -> torch.Tensor:
        return 20 * (final[:, self.n_prefix :].mean(dim=1) @ self.vectors.T - self.threshold)


TOY = TaskKind("tasks_for_tests:Threshold", "picture", "own pictures", "other classes' pictures")


@dataclass(frozen=True)
class World:
    """Files of a task, the layer that is edited, and class id to the latent that is planted for it."""

    task: str
    files: ExperimentFiles
    layer: int
    planted: dict[int, int]

    def model(self) -> VisionModel | None:
        return load_model(self.files.card, CPU) if self.files.card else None

    def opened(self) -> Task:
        return open_task(self.task, self.files, self.model(), self.layer, CPU, SETTINGS.batch_size)

    def sae(self) -> SparseAutoencoder:
        return load_sae(self.files.sae, CPU)

    def run(
        self, output: Path, settings: InterventionSettings = SETTINGS, seed: int = 0, **files: Any
    ) -> dict[str, Any]:
        return run_experiment(
            self.task, replace(self.files, **files), settings, self.layer, output, device="cpu", seed=seed
        )


def save_rows(path: Path, tensor: str, rows: torch.Tensor, names: list[str], **metadata: str) -> str:
    """Write a matrix with a name a row, as class vectors and readouts are read."""
    save_file({tensor: rows.float().contiguous()}, path, {"names": json.dumps(names), **metadata})
    return str(path)


def make_worlds(folder: Path) -> dict[str, World]:
    """Worlds of all tasks, by name; those of pictures are one planted ViT, resumed from its second-to-last block."""
    folder.joinpath("vit").mkdir(parents=True)
    planted = make_planted(folder / "vit")
    latents = {1: 10, 2: 11, 3: 12}
    worlds = {
        task: World(task, files_of(planted, task, MIDDLE), MIDDLE, latents)
        for task in ("segmentation", "classification")
    }
    masked = with_masks(folder / "masked", files_of(planted, "segmentation").index, planted.classes)
    worlds["segmentation"] = replace(
        worlds["segmentation"], files=replace(worlds["segmentation"].files, index=str(masked))
    )
    files = worlds["classification"].files
    model = load_model(files.card, CPU)
    tokens = open_store(files.manifest, model.card, MIDDLE).read(range(len(planted.labels)), "all")
    names = [f"class {number}" for number in latents]
    with torch.inference_mode():
        final = model.resume(tokens, MIDDLE)
        readings = {"zero_shot": model.logits(final), "threshold": final[:, model.card.n_prefix :].mean(dim=1)}
    for task, found in readings.items():
        own = torch.stack([found[torch.from_numpy(planted.labels == number)].mean(dim=0) for number in latents])
        vectors = torch.nn.functional.normalize(own - found.mean(dim=0), dim=1)
        threshold = str(float((found @ vectors.T).mean()))
        path = save_rows(folder / f"{task}.safetensors", "vectors", vectors, names, threshold=threshold)
        worlds[task] = World(task, replace(files, readout=path), MIDDLE, latents)
    worlds["readout"] = users_world(folder / "users")
    return worlds


def with_masks(folder: Path, index: str, classes: np.ndarray) -> Path:
    """Copy of the planted index with a mask a picture, 16 pixels a patch."""
    folder.mkdir()
    paths = [str(folder / f"{number}.png") for number in range(len(classes))]
    for path, patches in zip(paths, classes, strict=True):
        mask = np.kron(patches.reshape(4, 4) + 1, np.ones((16, 16)))
        Image.fromarray(mask.astype(np.uint8)).save(path)
    pl.read_parquet(index).with_columns(mask_path=pl.Series(paths)).write_parquet(folder / "index.parquet")
    shutil.copy(Path(index).with_name("summary.json"), folder)
    return folder / "index.parquet"


def users_world(folder: Path, settings: UsersSettings = USERS) -> World:
    """Users whose SAE has the planted direction of taste t as latent t, and directions that nobody likes after them."""
    make_users(settings, folder, 0)
    given = settings.as_given(str(folder / "vectors"))
    index_given(given, folder / "index.parquet", settings)
    adopt_activations(given, folder / "store" / "manifest.json")
    tastes = load_file(folder / "truth.safetensors")["tastes"]
    rest = np.random.default_rng(3).standard_normal((12, settings.d_model))
    rows = torch.cat([tastes, torch.nn.functional.normalize(torch.from_numpy(rest).float(), dim=1)])
    sae = SparseAutoencoder(settings.d_model, len(rows), Relu())
    state = {name: torch.zeros_like(tensor) for name, tensor in sae.state_dict().items()}
    bias = torch.full((len(rows),), -0.3)
    state |= {"encoder_weight": rows, "decoder_weight": rows, "encoder_bias": bias, "scale": torch.tensor(1.0)}
    sae.load_state_dict({name: state[name].clone() for name in sae.state_dict()})
    config = save_sae(sae, folder / "sae")
    manifest = folder / "store" / "manifest.json"
    encode_store(manifest, config, folder / "codes", "cpu")
    paths = {"manifest": manifest, "readout": folder / "readout.safetensors", "index": folder / "index.parquet"}
    paths |= {"sae": config, "codes": folder / "codes" / "manifest.json"}
    files = ExperimentFiles(**{name: str(path) for name, path in paths.items()}, first=FIRST)
    # Classes are in the order of their names.
    order = sorted(f"taste {taste + 1}" for taste in range(settings.tastes))
    return World("readout", files, 0, {number: int(name.split()[1]) - 1 for number, name in enumerate(order)})
