"""Linear probe: what a picture shows, read from its final class token and mean patch token."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from torch import nn

from visae.activations.store import ActivationStore
from visae.config.settings import ProbeSettings
from visae.data.index import read_classes, read_index
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.files import atomic_path, read_json, write_json
from visae.heads.bootstrap import class_mean, interval, ratios, resampling_weights
from visae.heads.tokens import final_tokens, open_store
from visae.provenance import Provenance
from visae.vision.model import VisionModel, load_model

HELD_OUT_SHARE = 0.2
_RESAMPLES = 1000


class Probe(nn.Module):
    """Linear classifier on pooled final tokens; standardization is folded into its weights.

    Parameters
    ----------
    weight, bias
        (n_classes, n_features) and (n_classes,).
    n_prefix
        Tokens before the patches.
    has_class_token
        Whether the first of them is [CLS], which is then read too.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, n_prefix: int, has_class_token: bool) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.n_prefix, self.has_class_token = n_prefix, has_class_token
        self.classes: list[dict[str, Any]] = []

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (b, n_classes) of final-normed tokens (b, n_tokens, d_model); differentiable."""
        return pooled(tokens, self.n_prefix, self.has_class_token) @ self.weight.T + self.bias


def pooled(tokens: torch.Tensor, n_prefix: int, has_class_token: bool) -> torch.Tensor:
    """[CLS] (where there is one) beside the mean patch token: (b, d_model or 2 d_model)."""
    mean_patch = tokens[:, n_prefix:].mean(dim=1)
    return torch.cat([tokens[:, 0], mean_patch], dim=1) if has_class_token else mean_patch


def load_probe(metrics_path: str | Path, device: str | torch.device = "cpu") -> Probe:
    """Load the probe whose metrics.json and weights.safetensors lie in one folder.

    `.classes` lists {"id", "name"} in the order of the logits.
    """
    metrics = read_json(metrics_path)
    tensors = load_file(Path(metrics_path).with_name("weights.safetensors"))
    probe = Probe(tensors["weight"], tensors["bias"], metrics["n_prefix"], metrics["has_class_token"])
    probe.classes = metrics["classes"]
    return probe.to(device)


def train_probe(
    settings: ProbeSettings,
    *,
    manifest: str | Path,
    index_path: str | Path,
    card_path: str | Path,
    output: str | Path,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Train and measure a probe; write weights.safetensors and metrics.json into `output`.

    Parameters
    ----------
    manifest
        Store of the model's last block.
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
    provenance = Provenance(settings, [manifest, index_path, card_path], seed, described(chosen))
    model = load_model(card_path, chosen)
    store = open_store(manifest, model.card)
    labels = image_labels(index_path)
    fit_features, fit_labels = _features(store, model, fit_split, labels, chosen)
    measure_features, measure_labels = _features(store, model, measure_split, labels, chosen)
    if len(np.unique(fit_labels)) < 2:
        raise DataError(f"{index_path}: split {fit_split!r} needs labelled pictures of two classes at least")

    c, held_out = choose_c(fit_features, fit_labels, settings, seed)
    weight, bias, class_ids = fitted_weights(fit_features, fit_labels, c, settings.max_iterations)
    predictions = class_ids[(measure_features @ weight.T + bias).argmax(axis=1)]
    names = read_classes(index_path)
    metrics = {
        **measured_accuracy(measure_labels, predictions, seed),
        "c": c,
        "held_out_log_loss": {f"{value:g}": loss for value, loss in held_out.items()},
        "classes": [{"id": int(i), "name": names[int(i)]} for i in class_ids],
        "n_fit": len(fit_labels),
        "n_measure": len(measure_labels),
        "n_prefix": model.card.n_prefix,
        "has_class_token": model.card.has_class_token,
    }
    tensors = {"weight": torch.from_numpy(weight).float().contiguous(), "bias": torch.from_numpy(bias).float()}
    with atomic_path(Path(output) / "weights.safetensors") as temporary:
        save_file(tensors, temporary)
    metrics["provenance"] = provenance.record()
    write_json(Path(output) / "metrics.json", metrics)
    return metrics


def image_labels(index_path: str | Path) -> dict[int, int]:
    """Label of every picture that has one."""
    labelled = read_index(index_path).filter(pl.col("label").is_not_null())
    return dict(zip(labelled["image_id"].to_list(), labelled["label"].to_list(), strict=True))


def choose_c(
    features: np.ndarray, labels: np.ndarray, settings: ProbeSettings, seed: int
) -> tuple[float, dict[float, float]]:
    """Pick the inverse regularization strength with the lowest log loss on a held-out part of the fit split.

    Log loss and not accuracy, because interventions are judged by probabilities: an overconfident probe
    would hide what an edit does to them.
    """
    _, counts = np.unique(labels, return_counts=True)
    n_held_out = round(len(labels) * HELD_OUT_SHARE)
    stratified = counts.min() >= 2 and n_held_out >= len(counts)
    fit, held_out = train_test_split(
        np.arange(len(labels)), test_size=HELD_OUT_SHARE, random_state=seed, stratify=labels if stratified else None
    )
    if len(np.unique(labels[fit])) < 2:  # too few pictures to hold any out
        return settings.c_values[0], {}
    losses = {}
    for c in settings.c_values:
        weight, bias, class_ids = fitted_weights(features[fit], labels[fit], c, settings.max_iterations)
        losses[c] = _log_loss(features[held_out] @ weight.T + bias, labels[held_out], class_ids)
    return min(losses, key=lambda c: losses[c]), losses


def fitted_weights(
    features: np.ndarray, labels: np.ndarray, c: float, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit a softmax regression on standardized features.

    Returns
    -------
    weight, bias
        (n_classes, n_features) and (n_classes,), for features that are not standardized.
    class_ids
        (n_classes,) sorted.
    """
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    regression = LogisticRegression(C=c, max_iter=max_iterations)
    with warnings.catch_warnings():
        # A weak penalty on separable classes never quite converges; the held-out loss judges the result.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit((features - mean) / scale, labels)
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps the second's logit, and the first's is 0
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
    weight = weight / scale
    return weight, bias - weight @ mean, regression.classes_


def measured_accuracy(labels: np.ndarray, predictions: np.ndarray, seed: int) -> dict[str, float]:
    """Accuracy and balanced accuracy (mean recall), with intervals over resampled pictures."""
    of_class = (labels[:, None] == np.unique(labels)).astype(float)
    right = (labels == predictions).astype(float)
    weights = resampling_weights(len(labels), _RESAMPLES, seed)
    found: dict[str, float] = {}
    for name, counts in (("accuracy", np.ones((len(labels), 1))), ("balanced_accuracy", of_class)):
        hits = counts * right[:, None]
        low, high = interval(class_mean(ratios(hits, counts, weights)))
        found |= {name: float(class_mean(ratios(hits, counts))), f"{name}_low": low, f"{name}_high": high}
    return found


def _features(
    store: ActivationStore, model: VisionModel, split: str, labels: dict[int, int], device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    card = model.card
    features, found = [], []
    for image_ids, tokens in final_tokens(store, model, split, device):
        labelled = [i for i, image_id in enumerate(image_ids) if int(image_id) in labels]
        features.append(pooled(tokens, card.n_prefix, card.has_class_token)[labelled].cpu().numpy())
        found += [labels[int(image_ids[i])] for i in labelled]
    if not found:
        raise DataError(f"{store.folder}: no picture of split {split!r} has a label; classification needs labels")
    return np.concatenate(features).astype(np.float64), np.array(found)


def _log_loss(logits: np.ndarray, labels: np.ndarray, class_ids: np.ndarray) -> float:
    """Mean negative log probability of the true class, of pictures whose class was fitted."""
    known = np.isin(labels, class_ids)
    scores = torch.from_numpy(logits[known]).log_softmax(dim=1).numpy()
    columns = np.searchsorted(class_ids, labels[known])
    return float(-scores[np.arange(len(columns)), columns].mean())
