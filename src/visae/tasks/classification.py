"""Classification: what a linear probe on final tokens says of a picture."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from visae.heads.probe import Probe, image_labels, load_probe
from visae.heads.tokens import open_store
from visae.tasks.files import TaskFiles
from visae.tasks.pictures import PictureTask
from visae.vision.model import VisionModel


class Classification(PictureTask):
    """The probabilities of a probe; `probe` is its readout."""

    name: ClassVar[str] = "classification"
    probe: Probe

    @classmethod
    def open(cls, files: TaskFiles, model: VisionModel, layer: int, batch_size: int = 32) -> Classification:
        """Open the task of a probe from its files; raises ModelError where they do not fit together."""
        probe = load_probe(files.readout, model.card, model.device)
        store, labels = open_store(files.manifest, model.card, layer), image_labels(files.index)
        around = model.card.n_prefix, model.card.grid, probe.classes, probe.not_learned
        task = cls(model.resumed(layer), store, *around, labels, batch_size)
        task.probe, task.device = probe, probe.weight.device
        return task

    def answers(self, final: Tensor) -> Tensor:
        """Logits (b, n_classes)."""
        return self.probe(final)
