"""Zero-shot classification: class vectors from elsewhere, such as text embeddings, and the model's own projection."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.functional import normalize

from visae.data.index import read_classes
from visae.errors import DataError, ModelError
from visae.heads.probe import image_labels
from visae.heads.tokens import open_store
from visae.tasks.files import TaskFiles
from visae.tasks.pictures import PictureTask
from visae.vision.model import VisionModel

LOGIT_SCALE = 100.0
"""What cosines are multiplied with where the file does not say: the bound of CLIP's training (arXiv 2103.00020)."""


class ZeroShot(PictureTask):
    """Softmax over scaled cosines between the projected picture and a vector a class."""

    name: ClassVar[str] = "zero_shot"
    model: VisionModel
    vectors: Tensor
    scale: float

    @classmethod
    def open(cls, files: TaskFiles, model: VisionModel, layer: int, batch_size: int = 32) -> ZeroShot:
        """Open the task of class vectors from its files.

        Raises
        ------
        DataError
            If the file is not of that form, or its names are not those of the data set's classes.
        ModelError
            If its vectors are not those of the model's projection.
        """
        vectors, names, metadata = read_named_rows(files.readout, "vectors")
        store = open_store(files.manifest, model.card, layer)
        width = _projected_width(model)
        if vectors.shape[1] != width:
            raise ModelError(
                f"{files.readout}: class vectors of {vectors.shape[1]} values, but {model.card.architecture} projects "
                f"pictures to {width}; they are another model's: take the text embeddings of this one"
            )
        if (made_for := metadata.get("architecture", model.card.architecture)) != model.card.architecture:
            raise ModelError(f"{files.readout}: class vectors of {made_for}, not of {model.card.architecture}")
        if not (vectors.norm(dim=1) > 0).all():
            row = int((vectors.norm(dim=1) == 0).nonzero()[0])
            raise DataError(f"{files.readout}: vectors: row {row} is zero, and has no direction")
        classes = _classes(files, names)
        task = cls(
            model.resumed(layer), store, model.card.n_prefix, model.card.grid, classes, (), image_labels(files.index)
        )
        task.batch_size, task.device, task.model = batch_size, model.device, model
        task.vectors = normalize(vectors.to(model.device), dim=1)
        task.scale = _scale(files.readout, metadata)
        return task

    def answers(self, final: Tensor) -> Tensor:
        """Logits (b, n_classes)."""
        return self.scale * normalize(self.model.logits(final), dim=1) @ self.vectors.T


def read_named_rows(path: str | Path, tensor: str) -> tuple[Tensor, list[str], dict[str, str]]:
    """Read a matrix with a name a row from safetensors, whose metadata have `names`, a JSON list.

    Returns
    -------
    rows
        float32 (n, d).
    names
        One a row.
    metadata
        All metadata of the file.

    Raises
    ------
    DataError
        If the file is not of that form, or a value is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata, known = file.metadata() or {}, sorted(file.keys())
            rows = file.get_tensor(tensor).float() if tensor in known else None
        names = json.loads(metadata.get("names", "null"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: it cannot be read as safetensors with names: {error}") from error
    if rows is None or rows.ndim != 2 or not len(rows):
        raise DataError(f"{path}: it needs a tensor {tensor!r} (n, d), and has {', '.join(known) or 'none'}")
    if not isinstance(names, list) or len(names) != len(rows) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: its metadata need names: a JSON list of {len(rows)} texts, one a row of {tensor}")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: names: {next(n for n in names if names.count(n) > 1)!r} comes twice")
    if not torch.isfinite(rows).all():
        raise DataError(f"{path}: {tensor} has values that are not finite")
    return rows, names, metadata


def _classes(files: TaskFiles, names: list[str]) -> list[dict[str, Any]]:
    ids = {name: number for number, name in read_classes(files.index).items()}
    if unknown := [name for name in names if name not in ids]:
        raise DataError(
            f"{files.readout}: no class {unknown[0]!r} in {files.index}, which has {', '.join(sorted(ids)[:8])}; "
            "name the rows as the data set's classes are named"
        )
    if len(names) < 2:
        raise DataError(f"{files.readout}: names: one class alone; a class is judged beside others")
    return [{"id": ids[name], "name": name} for name in names]


def _scale(path: str, metadata: dict[str, str]) -> float:
    said = metadata.get("logit_scale", str(LOGIT_SCALE))
    try:
        scale = float(said)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise DataError(f"{path}: logit_scale: {said!r}: write a number above 0, as cosines are multiplied with it")
    return scale


@torch.inference_mode()
def _projected_width(model: VisionModel) -> int:
    """Dimension of what the model's own head, or its pooling, makes of final tokens."""
    blank = torch.zeros(1, 3, *model.card.image_size, dtype=torch.uint8, device=model.device)
    return model.logits(model(blank)).shape[1]
