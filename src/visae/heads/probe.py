"""Linear probe: what a picture shows, read from its final class token, its mean patch token, or both."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import nn

from visae.activations.store import ActivationStore
from visae.config.settings import ProbeSettings
from visae.data.index import read_classes, read_index
from visae.device import chosen_device, described
from visae.errors import DataError, ModelError
from visae.files import atomic_path, read_json, write_json
from visae.heads.bootstrap import estimates
from visae.heads.calibration import BINS, Judged, Verdicts, verdicts
from visae.heads.files import HeadFiles
from visae.heads.metrics import confusion_table
from visae.heads.solvers import SOLVERS, choose_c, chosen_solver
from visae.heads.tokens import check_origin, final_tokens, open_store
from visae.intervals import COVERAGE, RESAMPLES
from visae.provenance import Provenance
from visae.vision.model import ModelCard, VisionModel, load_model
from visae.weights import check_names, check_shapes, check_values, read_weights

logger = logging.getLogger(__name__)

# Features above this size lie in a file without a name beside the output, which the system deletes with the job.
MOST_BYTES = 1 << 30


class Probe(nn.Module):
    """Linear classifier on pooled final tokens; standardization is folded into its weights.

    Parameters
    ----------
    weight, bias
        (n_classes, n_features) and (n_classes,).
    n_prefix
        Tokens before the patches.
    pooling
        What is read: `class_token`, `mean` or `both`.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, n_prefix: int, pooling: str) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.n_prefix, self.pooling = n_prefix, pooling
        self.classes: list[dict[str, Any]] = []
        self.not_learned: list[dict[str, Any]] = []

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (b, n_classes) of final-normed tokens (b, n_tokens, d_model); differentiable."""
        return pooled(tokens, self.n_prefix, self.pooling) @ self.weight.T + self.bias


def pooled(tokens: torch.Tensor, n_prefix: int, pooling: str) -> torch.Tensor:
    """[CLS], the mean patch token, or `both` side by side: (b, d_model or 2 d_model)."""
    if pooling == "class_token":
        return tokens[:, 0]
    mean_patch = tokens[:, n_prefix:].mean(dim=1)
    return torch.cat([tokens[:, 0], mean_patch], dim=1) if pooling == "both" else mean_patch


def load_probe(metrics_path: str | Path, card: ModelCard, device: str | torch.device = "cpu") -> Probe:
    """Load the probe of a model, whose metrics.json and weights.safetensors lie in one folder.

    `.classes` lists {"id", "name"} in the order of the logits, `.not_learned` those that it has not learned.

    Raises
    ------
    ModelError
        If it was trained on another model's tokens, or its weights are damaged or not those of a probe.
    """
    metrics, path = read_json(metrics_path), Path(metrics_path).with_name("weights.safetensors")
    tensors = read_weights(path)
    check_names(path, tensors, ("weight", "bias"), of="probe")
    check_values(path, tensors)
    n_classes = len(metrics["classes"])
    check_shapes(path, tensors, {"weight": (n_classes, *tensors["weight"].shape[1:]), "bias": (n_classes,)})
    probe = Probe(tensors["weight"], tensors["bias"], metrics["n_prefix"], metrics.get("pooling", "both"))
    probe.classes, probe.not_learned = metrics["classes"], metrics.get("not_learned", [])
    check_origin(metrics_path, metrics, card)
    if probe.weight.shape[1] not in (card.d_final, 2 * card.d_final) or probe.n_prefix != card.n_prefix:
        raise ModelError(
            f"{metrics_path}: the probe reads {probe.weight.shape[1]} values after {probe.n_prefix} prefix tokens, but "
            f"{card.architecture} gives patches of {card.d_final} after {card.n_prefix}: it is the probe of another "
            "model; train it again from the last layer of this one"
        )
    return probe.to(device)


def train_probe(
    settings: ProbeSettings,
    files: HeadFiles,
    output: str | Path,
    *,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Train and measure a probe; write its weights, metrics.json and tables into `output`.

    Tables are classes.parquet (recall of each class with its interval, and precision), confusion.parquet and
    reliability.parquet. Pictures of a class that no picture of `fit_split` has are left out of all measures, and
    `not_learned` names them.

    Parameters
    ----------
    files
        What it is trained from.
    output
        Folder.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What metrics.json holds.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    model = load_model(files.card_path, chosen)
    pooling = _pooling(settings.pooling, model.card)
    store = open_store(files.manifest, model.card, model.card.depth - 1)
    labels = image_labels(files.index_path)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output) as file:
        features, fit_labels = _features(store, model, fit_split, labels, pooling, file)
        class_ids, classes = np.unique(fit_labels, return_inverse=True)
        if len(class_ids) < 2:
            raise DataError(f"{files.index_path}: split {fit_split!r} needs labelled pictures of two classes at least")
        solver = chosen_solver(settings.solver, features.size)
        c, held_out = choose_c(features, classes, settings, seed, SOLVERS[solver], chosen)
        everything = np.arange(len(classes))
        weight, bias = SOLVERS[solver](features, everything, classes, c, settings.max_iterations, chosen)
    tensors = {"weight": torch.from_numpy(weight).float().contiguous(), "bias": torch.from_numpy(bias).float()}
    with atomic_path(output / "weights.safetensors") as temporary:
        save_file(tensors, temporary)

    names = read_classes(files.index_path)
    probe = Probe(torch.from_numpy(weight), torch.from_numpy(bias), model.card.n_prefix, pooling)
    probe.classes = [{"id": int(i), "name": names[int(i)]} for i in class_ids]
    known, not_learned = learned_labels(probe, store.image_ids(measure_split), labels, names)
    if not known:
        raise DataError(
            f"{files.index_path}: no picture of split {measure_split!r} has a label that split {fit_split!r} has too; "
            "a probe needs both splits labelled with the same classes"
        )
    judged = Judged(_judged(probe, store, model, measure_split, known), len(class_ids))
    _write_tables(judged, probe.classes, np.bincount(classes), output, seed)
    measured = estimates(judged.measures, judged.n_images, seed)
    metrics = {
        **{key: value for name, found in measured.items() for key, value in found.named(name).items()},
        "calibration_error": judged.calibration_error,
        **judged.rms_calibration_error(seed).named("rms_calibration_error"),
        "calibration_bins": BINS,
        "coverage": COVERAGE,
        "resamples": RESAMPLES,
        "c": c,
        "held_out_log_loss": {f"{value:g}": loss for value, loss in held_out.items()},
        "solver": solver,
        "pooling": pooling,
        "classes": probe.classes,
        "not_learned": not_learned,
        "n_fit": len(classes),
        "n_measure": judged.n_images,
        "n_prefix": model.card.n_prefix,
        "model_sha256": model.card.weights_sha256,
        "provenance": provenance.record(),
    }
    write_json(output / "metrics.json", metrics)
    return metrics


def image_labels(index_path: str | Path) -> dict[int, int]:
    """Label of every picture that has one."""
    labelled = read_index(index_path).filter(pl.col("label").is_not_null())
    return dict(zip(labelled["image_id"].to_list(), labelled["label"].to_list(), strict=True))


def learned_labels(
    probe: Probe, images: range, labels: dict[int, int], names: dict[int, str]
) -> tuple[dict[int, int], list[dict[str, Any]]]:
    """Labels of pictures as positions in `probe.classes`, and the classes of other pictures, which cannot be judged.

    Returns
    -------
    known
        Position by picture, where the probe has learned its class.
    not_learned
        {"id", "name", "n_images"} of each class that it has not.
    """
    places = {c["id"]: place for place, c in enumerate(probe.classes)}
    labelled = {i: labels[i] for i in images if i in labels}
    known = {i: places[label] for i, label in labelled.items() if label in places}
    others = Counter(label for label in labelled.values() if label not in places)
    found = [{"id": i, "name": names[i], "n_images": count} for i, count in sorted(others.items())]
    for entry in found:
        logger.warning("class %s has no picture to learn from: %d pictures are not judged", *list(entry.values())[1:])
    return known, found


def _pooling(wanted: str, card: ModelCard) -> str:
    """What can be read of a model's tokens."""
    if wanted == "class_token" and not card.has_class_token:
        raise ModelError(
            f"heads: probe: pooling: class_token: {card.architecture} has no [CLS] token; set pooling: mean"
        )
    return wanted if card.has_class_token else "mean"


def _features(
    store: ActivationStore, model: VisionModel, split: str, labels: dict[int, int], pooling: str, file: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled tokens float32 (n, n_features) and labels (n,) of a split's labelled pictures; many lie in `file`."""
    image_ids = [i for i in store.image_ids(split) if i in labels]
    if not image_ids:
        raise DataError(f"{store.folder}: no picture of split {split!r} has a label; classification needs labels")
    shape = len(image_ids), model.card.d_final * (2 if pooling == "both" else 1)
    large = shape[0] * shape[1] * 4 > MOST_BYTES
    features: np.ndarray = np.memmap(file, np.float32, "w+", shape=shape) if large else np.empty(shape, np.float32)
    place = 0
    device = next(model.parameters()).device
    for ids, tokens in final_tokens(store, model, split, device):
        labelled = [i for i, image_id in enumerate(ids) if int(image_id) in labels]
        rows = pooled(tokens[labelled], model.card.n_prefix, pooling)
        features[place : place + len(rows)] = rows.cpu().numpy()
        place += len(rows)
    return features, np.array([labels[i] for i in image_ids])


def _judged(
    probe: Probe, store: ActivationStore, model: VisionModel, split: str, known: dict[int, int]
) -> Iterator[Verdicts]:
    """Verdicts on the pictures whose position is known."""
    device = next(model.parameters()).device
    for ids, tokens in final_tokens(store, model, split, device):
        kept = [i for i, image_id in enumerate(ids) if int(image_id) in known]
        if kept:
            rows = pooled(tokens[kept], probe.n_prefix, probe.pooling).cpu().double()
            truth = torch.tensor([known[int(ids[i])] for i in kept])
            yield verdicts(rows @ probe.weight.T + probe.bias, truth)


def _write_tables(judged: Judged, classes: list[dict[str, Any]], n_fit: np.ndarray, output: Path, seed: int) -> None:
    """Write classes.parquet, confusion.parquet and reliability.parquet."""
    recall = estimates(judged.recalls, judged.n_images, seed)["recall"]
    n = len(classes)
    confusion = np.bincount(judged.found.truth * n + judged.found.predicted, minlength=n * n).reshape(n, n)
    said = confusion.sum(axis=0)
    by_class = pl.DataFrame(
        {
            "class_id": [c["id"] for c in classes],
            "class_name": [c["name"] for c in classes],
            "n_fit": n_fit,
            "n_measure": confusion.sum(axis=1),
            "recall": recall.value,
            "recall_low": recall.low,
            "recall_high": recall.high,
            "precision": np.where(said > 0, confusion.diagonal() / np.maximum(said, 1), np.nan),
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    tables = {
        "classes": by_class,
        "confusion": confusion_table(confusion, classes),
        "reliability": judged.reliability(seed),
    }
    for name, table in tables.items():
        with atomic_path(output / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
