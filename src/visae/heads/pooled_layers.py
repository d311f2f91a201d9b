"""Pooled tokens of every layer of several networks, in one reading of the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from visae.heads.probe import pooled
from visae.vision.batches import picture_batches
from visae.vision.model import HookPoint, VisionModel

Place = tuple[int | None, str]
"""A layer (None: the final tokens, after the norm) and what is read of it: `class_token` or `mean`."""


@dataclass(frozen=True)
class PooledLayers:
    """What was read of some pictures.

    Attributes
    ----------
    features
        One mapping a network: place to float32 (n_read, d), on disk.
    read
        Which pictures could be read, int64 (n_read,).
    digests
        Hash of each as the network sees it.
    unreadable
        The errors of the others.
    """

    features: list[dict[Place, np.ndarray]]
    read: np.ndarray
    digests: list[bytes]
    unreadable: list[str]


def places(model: VisionModel, layers: Sequence[int]) -> list[Place]:
    """Places of a network, its final tokens last."""
    kinds = ["class_token", "mean"] if model.card.has_class_token else ["mean"]
    return [(layer, kind) for layer in [*layers, None] for kind in kinds]


def read_layers(
    models: Sequence[VisionModel],
    layers: Sequence[int],
    paths: list[str],
    folder: Path,
    *,
    batch_size: int,
    workers: int,
    what: str,
) -> PooledLayers:
    """Pass pictures through networks of the same card, one forward pass each for all layers.

    Parameters
    ----------
    layers
        Which to keep.
    folder
        Where features lie: memory holds a batch, however many pictures there are.
    what
        What the progress bar says.
    """
    card = models[0].card
    device = next(models[0].parameters()).device
    files = [
        {
            place: np.memmap(
                folder / f"{what}-{number}-{place[0]}-{place[1]}",
                np.float32,
                "w+",
                shape=(len(paths), card.d_final if place[0] is None else card.layers[place[0]].d_model),
            )
            for place in places(model, layers)
        }
        for number, model in enumerate(models)
    ]
    read: list[int] = []
    digests: list[bytes] = []
    unreadable: list[str] = []
    for batch in picture_batches(paths, card, batch_size=batch_size, workers=workers, what=what):
        unreadable += batch.unreadable
        if len(batch.numbers):
            images = batch.images.to(device)
            rows = slice(len(read), len(read) + len(images))
            read += batch.numbers.tolist()
            digests += [hashlib.sha256(image.numpy().tobytes()).digest() for image in batch.images]
            for model, kept in zip(models, files, strict=True):
                for place, values in _pooled(model, images, layers).items():
                    kept[place][rows] = values.float().cpu().numpy()
    features = [{place: array[: len(read)] for place, array in kept.items()} for kept in files]
    return PooledLayers(features, np.array(read, dtype=np.int64), digests, unreadable)


@torch.inference_mode()
def _pooled(model: VisionModel, images: torch.Tensor, layers: Sequence[int]) -> dict[Place, torch.Tensor]:
    last, resumed = HookPoint(model.card.depth - 1), model.card.layers[-1].can_edit
    points = {HookPoint(layer): layer for layer in layers}
    tokens = model.read(images, sorted({*points, *([last] if resumed else [])})) if points or resumed else {}
    by_layer: dict[int | None, torch.Tensor] = {layer: tokens[point] for point, layer in points.items()}
    by_layer[None] = model.final_norm(tokens[last]) if resumed else model(images)
    return {(layer, kind): pooled(by_layer[layer], model.card.n_prefix, kind) for layer, kind in places(model, layers)}
