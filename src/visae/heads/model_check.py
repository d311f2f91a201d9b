"""What a frozen network knows: linear probe and nearest neighbours by layer, beside the same network untrained."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from visae.config.settings import ModelIdentity
from visae.device import chosen_device
from visae.errors import ConfigError, DataError, ModelError
from visae.files import write_json
from visae.heads.class_folders import ClassFolders, read_class_folders
from visae.heads.model_scores import NETWORKS, Judgeable, promise_notices, published_notices, scores
from visae.heads.pooled_layers import PooledLayers, read_layers
from visae.heads.pretraining import promised, published
from visae.intervals import COVERAGE, RESAMPLES
from visae.notices import Notice, as_plain, log_notices
from visae.vision.model import HookPoint, VisionModel, load_model, prepare_model
from visae.vision.weights import created


@dataclass(frozen=True)
class Network:
    """Which network is checked.

    Attributes
    ----------
    card_path
        model.json of a model that a workflow has fetched; or give `architecture`.
    architecture, weights, image_size
        As in a configuration's `models`: timm's name, where the weights are from, the side in pixels (the
        checkpoint's own without it).
    """

    card_path: Path | None = None
    architecture: str | None = None
    weights: str = "hub"
    image_size: int | None = None


@dataclass(frozen=True)
class Reading:
    """What is read of it, and how.

    Attributes
    ----------
    layers
        Layers besides the final tokens, counted from 0; without it all of them.
    batch_size
        Pictures in one forward pass.
    workers
        Processes that decode pictures.
    """

    layers: list[int] | None = None
    batch_size: int = 32
    workers: int = 1


def check_model(
    network: Network = Network(),
    root: str = "${VISAE_DATA}/cifar10",
    limit: int = 2000,
    reading: Reading = Reading(),
    neighbours: int = 20,
    output: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
) -> None:
    """Print how well a model's tokens tell classes apart, by layer, beside the same architecture with random weights.

    Parameters
    ----------
    network
        Which.
    root
        Folder with `train` and `val` (or `test`), one folder a class in each; or with class folders alone, whose
        pictures are then parted by the seed.
    limit
        Pictures of each part, as many of each class as can be; 0 takes all.
    reading
        What is read of it, and how.
    neighbours
        How many vote.
    output
        JSON to write: the numbers and the notices.
    device
        auto, cpu or cuda.
    seed
        Decides which pictures are taken, the random weights, and what is held out to choose the probe's penalty.

    Raises
    ------
    ConfigError
        If a number makes no sense.
    DataError
        If the folders do not hold two classes in two parts, or too little of them can be read.
    ModelError
        If the model cannot be had, or has no such layer.
    """
    if neighbours < 1 or reading.batch_size < 1 or limit < 0:
        raise ConfigError("model-check: --neighbours and --batch-size are 1 or more, --limit 0 or more")
    data, used = read_class_folders(root, limit, seed), chosen_device(device)
    with tempfile.TemporaryDirectory(prefix="visae-model-check-") as folder:
        scratch = Path(folder)
        model = _wanted(network, scratch, used, seed)
        models, card = [model, _untrained(model, used, seed)], model.card
        kept = sorted(set(reading.layers or [number for number, shape in enumerate(card.layers) if shape.can_read]))
        for layer in kept:
            card.check(HookPoint(layer), "--layers")
        parts = [
            read_layers(
                models, kept, part.paths, scratch, batch_size=reading.batch_size, workers=reading.workers, what=what
            )
            for part, what in ((data.fit, "to learn from"), (data.measure, "to measure on"))
        ]
        judgeable, notices = _judgeable(data, *parts)
        rows = list(scores(judgeable, neighbours, used, seed))
    word = promised(card.architecture, card.weights)
    known = published(card.architecture, card.weights, data.names)
    notices += [*promise_notices(rows, word, card.architecture), *published_notices(rows, known)]
    found = {
        "architecture": card.architecture,
        "weights": card.weights,
        "weights_origin": card.weights_origin,
        "image_size": list(card.image_size),
        "root": data.root,
        "parts": data.parts,
        "classes": data.names,
        "n_fit": len(judgeable.fit_classes),
        "n_measure": len(judgeable.truth),
        "neighbours": min(neighbours, len(judgeable.fit_classes)),
        "coverage": COVERAGE,
        "resamples": RESAMPLES,
        "seed": seed,
        "published": str(known) if known else None,
        "rows": rows,
        "notices": as_plain(notices),
    }
    if output:
        write_json(output, found)
    print("\n".join(described_check(found)))
    log_notices(card.architecture, notices)


def described_check(found: dict[str, Any]) -> list[str]:
    """Lines of the report on a check, from what its JSON holds."""
    lines = [
        f"{found['architecture']}, weights: {found['weights_origin']}",
        f"{found['n_fit']} pictures to learn from, {found['n_measure']} to measure on, of {len(found['classes'])} "
        f"classes ({found['root']}: {found['parts']}); chance {1 / len(found['classes']):.2f}",
        f"linear probe, and the vote of {found['neighbours']} nearest neighbours by cosine; random: the same "
        f"architecture with random weights; gain: on the same pictures; [{found['coverage']:.0%} intervals]",
        "",
        f"{'layer':>5}  {'tokens':11}  {'measure':10}  {'model':17}  {'random':17}  gain",
    ]
    for row in found["rows"]:
        layer = "final" if row["layer"] is None else row["layer"]
        model, random = (f"{row[name]:.3f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" for name in NETWORKS)
        gain = f"{row['gain']:+.3f} [{row['gain_low']:+.2f}, {row['gain_high']:+.2f}]"
        lines.append(f"{layer:>5}  {row['tokens']:11}  {row['measure']:10}  {model:17}  {random:17}  {gain}")
    return [*lines, *(["", found["published"]] if found["published"] else [])]


def _wanted(network: Network, scratch: Path, device: torch.device, seed: int) -> VisionModel:
    if network.card_path is not None and network.architecture is None:
        return load_model(network.card_path, device)
    if network.card_path is not None or network.architecture is None:
        raise ModelError("model-check: give either --card-path (a model.json) or --architecture (timm's name)")
    settings = ModelIdentity(architecture=network.architecture, weights=network.weights, image_size=network.image_size)
    prepare_model(settings, scratch / "weights.safetensors", scratch / "model.json", seed)
    return load_model(scratch / "model.json", device)


def _untrained(model: VisionModel, device: torch.device, seed: int) -> VisionModel:
    """Return the same architecture with random weights, fed as the model is."""
    # Another seed than the model's own, whose weights may be random too.
    torch.manual_seed(seed + 1)
    module = created(model.card.architecture, model.card.image_size, pretrained=False)
    return VisionModel(module, model.card).to(device)


def _judgeable(data: ClassFolders, fit: PooledLayers, measure: PooledLayers) -> tuple[Judgeable, list[Notice]]:
    """Leave out what cannot be read, and pictures to measure on that were learned from; say so.

    Raises
    ------
    DataError
        If too little is left.
    """
    notices = list(data.notices)
    unreadable = [*fit.unreadable, *measure.unreadable]
    if unreadable:
        notices.append(Notice("warning", f"{len(unreadable)} pictures were left out, such as {unreadable[0]}"))
    fit_classes, measure_classes = data.fit.classes[fit.read], data.measure.classes[measure.read]
    learned = set(fit.digests)
    shared = np.array([digest in learned for digest in measure.digests], dtype=bool)
    if shared.any():
        text = f"{shared.sum()} pictures to measure on are among those to learn from too, and were left out"
        notices.append(Notice("warning", text))
    known = np.unique(fit_classes)
    judged = np.flatnonzero(~shared & np.isin(measure_classes, known))
    if len(known) < 2 or not len(judged):
        raise DataError(
            f"root: {data.root}: pictures of {len(known)} classes to learn from and {len(judged)} others to measure on "
            f"are left, too few to check a model by ({'; '.join(notice.text for notice in notices)})"
        )
    return (
        Judgeable(
            fit.features,
            [{place: array[judged] for place, array in features.items()} for features in measure.features],
            np.searchsorted(known, fit_classes),
            np.searchsorted(known, measure_classes[judged]),
        ),
        notices,
    )
