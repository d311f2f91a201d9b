"""A study, opened: its model, stores, SAEs, codes, features, tasks and tables, each read when it is asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from visae.activations.store import ActivationStore
from visae.config.sections import from_plain
from visae.config.settings import StudySettings
from visae.data.index import read_index
from visae.device import chosen_device
from visae.errors import ConfigError, DataError
from visae.experiments.files import ExperimentFiles
from visae.experiments.tables import read_table
from visae.explore.features import Features
from visae.features.codes import scan_codes
from visae.files import read_json
from visae.layout import CARD, FEATURES, INDEX, INTERVENTIONS, SAE, STORE, STUDY, StudyPaths
from visae.sae import SparseAutoencoder, load_place, load_sae
from visae.tasks.files import TaskFiles
from visae.tasks.members import open_task
from visae.tasks.task import Task
from visae.vision.model import ModelCard, VisionModel, load_model


class Study:
    """What a finished study holds.

    Parameters
    ----------
    paths
        Where everything lies.
    device
        `auto`, `cpu` or `cuda`: where networks run.

    Examples
    --------
    >>> study = visae.Study.open("results", "demo")  # doctest: +SKIP
    >>> study.table("topk", "segmentation", "arms")  # doctest: +SKIP
    >>> study.task("segmentation").read(study.store("scenes").read(range(1), "all"))  # doctest: +SKIP
    """

    def __init__(self, paths: StudyPaths, device: str = "auto") -> None:
        self.paths, self.device = paths, chosen_device(device)

    @classmethod
    def open(cls, results: str | Path, name: str, device: str = "auto") -> Study:
        """Open a study by the folder of results and its name.

        Raises
        ------
        DataError
            If there is no such study.
        """
        path = Path(results) / STUDY.format(study=name)
        if not path.is_file():
            known = sorted(file.stem for file in path.parent.glob("*.json"))
            raise DataError(f"{path}: no such study; there are {', '.join(known) or 'none: run the workflow first'}")
        return cls(StudyPaths(Path(results), name, from_plain(StudySettings, read_json(path)["settings"])), device)

    @property
    def settings(self) -> StudySettings:
        """Its section of the configuration."""
        return self.paths.settings

    @property
    def saes(self) -> list[str]:
        """Names of its SAEs and sweeps."""
        return self.settings.saes

    @property
    def tasks(self) -> dict[str, str]:
        """Data set of each of its tasks."""
        return self.settings.tasks

    @cached_property
    def card(self) -> ModelCard:
        """Card of the model; ConfigError where the study has given activations instead."""
        if self.settings.model is None:
            raise ConfigError(f"study {self.paths.name}: it has no model, but given activations")
        return ModelCard.read(self.paths.path(CARD))

    @cached_property
    def model(self) -> VisionModel:
        """The model with its weights."""
        assert self.card  # says so where there is none
        return load_model(self.paths.path(CARD), self.device)

    def index(self, dataset: str) -> pl.DataFrame:
        """Index of a data set, one row a picture."""
        return read_index(self.paths.path(INDEX, dataset=dataset))

    def store(self, dataset: str, layer: str | int | None = None) -> ActivationStore:
        """Activations of a data set at the study's layer, or another."""
        return ActivationStore.open(self.paths.path(STORE, dataset=dataset, layer=str(layer or self.settings.point)))

    def sae(self, name: str) -> SparseAutoencoder:
        """A sparse autoencoder."""
        return load_sae(self.paths.path(SAE, sae=name) / "config.json", self.device)

    def codes(self, sae: str, dataset: str) -> pl.LazyFrame:
        """Codes of a described data set: image_id, token, latent, value."""
        return scan_codes(self.paths.path(FEATURES, sae=sae, dataset=dataset) / "codes/manifest.json")

    def features(self, sae: str, dataset: str) -> Features:
        """Latents of an SAE on a described data set."""
        return Features.load(self.paths.path(FEATURES, sae=sae, dataset=dataset))

    def task(self, name: str, batch_size: int = 32) -> Task:
        """A task, ready to read tokens of the study's layer."""
        self._known_task(name)
        files = TaskFiles(**self.paths.task(name), first=self.paths.first)
        model = None if self.settings.model is None else self.model
        return open_task(name, files, model, self.settings.layer, self.device, batch_size)

    def experiment_files(self, task: str, sae: str, min_purity: float = 0.9) -> ExperimentFiles:
        """Files of an experiment, for `visae.experiments.experiment.run_experiment`."""
        self._known_task(task)
        found = self.paths.experiment(task, sae)
        if load_place(found["sae"]).tokens == "class":
            found.pop("scores", None)  # there are none: they are of patches
        return ExperimentFiles(**found, first=self.paths.first, min_purity=min_purity)

    def table(self, sae: str, task: str, name: str) -> pl.DataFrame:
        """A table of an experiment: `arms`, `becomes`, `doses`, `untrained`, `examples`, or `effects`."""
        self._known_task(task)
        return read_table(self.paths.path(INTERVENTIONS, sae=sae) / task / f"{name}.parquet")

    def summary(self, sae: str, task: str) -> dict[str, Any]:
        """What summary.json of an experiment holds."""
        self._known_task(task)
        return read_json(self.paths.path(INTERVENTIONS, sae=sae) / task / "summary.json")

    def _known_task(self, name: str) -> None:
        if name not in self.tasks:
            had = ", ".join(self.tasks) or "none"
            raise DataError(f"task: {name!r} is no task of study {self.paths.name}, which has {had}")
