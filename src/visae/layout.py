"""Where everything lies below the folder of results: one pattern a path, for the rules and for Python alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visae.config.settings import StudySettings
from visae.config.tasks import TASKS

INDEX = "datasets/{dataset}/index.parquet"
PATCH_LABELS = "datasets/{dataset}/patch-labels-{model}-layer{layer}.parquet"
CARD = "models/{model}/model.json"
STORE = "activations/{dataset}/{model}/layer{layer}/manifest.json"
RECEIPT = "activations/{dataset}/{model}/layer{layer}/receipt-{shard}.json"
SAE = "saes/{trained_on}/{model}/layer{layer}/{sae}"
CONCEPT = "concepts/{study}/{sae}/{concept}"
FEATURES = "features/{trained_on}/{model}/layer{layer}/{sae}/{dataset}"
HEADS = "heads/{dataset}/{model}"
INTERVENTIONS = "interventions/{study}/{sae}"
COUNTERFACTUALS = "counterfactuals/{study}"
AUDIT = "audits/{study}/{sae}/{dataset}"
FIGURES = "figures/{study}"
STUDY = "studies/{study}.json"
USERS_READOUT = "datasets/{dataset}/readout.safetensors"


@dataclass(frozen=True)
class StudyPaths:
    """Paths of one study.

    Attributes
    ----------
    results
        The folder of results.
    name, settings
        The study, and its section of the configuration.
    """

    results: Path
    name: str
    settings: StudySettings

    def path(self, pattern: str, **more: str) -> Path:
        """Fill a pattern with what the study says, and more."""
        study = self.settings
        known = {"study": self.name, "trained_on": study.train_on, "model": study.stored_model, "layer": study.point}
        return self.results / pattern.format(**{**known, **more})

    def readout(self, task: str) -> Path:
        """Readout of a task: a trained head, or the file that the configuration names."""
        dataset, head = self.settings.tasks[task], TASKS[task].head
        if head:
            return self.path(f"{HEADS}/{head}/metrics.json", dataset=dataset)
        file = self.settings.task_sections[task].file
        return self.path(USERS_READOUT, dataset=dataset) if file is None else Path(file)

    def task(self, task: str) -> dict[str, str]:
        """Files that a task is opened from, by their names in `visae.tasks.files`."""
        dataset = self.settings.tasks[task]
        found = {"manifest": self.path(STORE, dataset=dataset), "readout": self.readout(task)}
        found["index"] = self.path(INDEX, dataset=dataset)
        if self.settings.model is not None:
            found["card"] = self.path(CARD)
        if TASKS[task].unit == "patch":
            found["labels"] = self.path(PATCH_LABELS, dataset=dataset)
        return {name: str(path) for name, path in found.items()}

    def experiment(self, task: str, sae: str) -> dict[str, str]:
        """Files of a task, and of the SAE whose latents are edited, by their names in `visae.experiments.files`."""
        features = self.path(FEATURES, sae=sae, dataset=self.settings.tasks[task])
        found = {"sae": self.path(SAE, sae=sae) / "config.json", "codes": features / "codes/manifest.json"}
        if TASKS[task].unit == "patch":
            found["scores"] = features / "scores.parquet"
        return {**self.task(task), **{name: str(path) for name, path in found.items()}}

    @property
    def saes(self) -> list[str]:
        """config.json of each SAE of the study, in its order."""
        return [str(self.path(SAE, sae=sae) / "config.json") for sae in self.settings.saes]

    @property
    def counterfactuals(self) -> dict[str, str]:
        """Files of the study's pairs, by their names in `visae.counterfactual.experiment`; empty where it has none."""
        dataset = self.settings.counterfactuals
        if dataset is None:
            return {}
        found = {"manifest": self.path(STORE, dataset=dataset), "index": self.path(INDEX, dataset=dataset)}
        return {name: str(path) for name, path in {**found, "card": self.path(CARD)}.items()}

    @property
    def first(self) -> int:
        """Length of the lists of a readout."""
        return self.settings.readout.first if self.settings.readout else 10
