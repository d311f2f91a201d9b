"""Probes that read every cause from a network's final tokens: what edits of latents are judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.counterfactual.changes import PairTokens
from visae.heads.probe import pooled
from visae.heads.solvers import by_scikit_learn
from visae.progress import progress_bar
from visae.tasks.task import Resumed
from visae.vision.model import VisionModel

_HELD_OUT = 0.2
_ITERATIONS = 1000


@dataclass(frozen=True)
class Readout:
    """A linear probe of one cause.

    Attributes
    ----------
    values
        What the cause can be, in the order of the logits.
    weight, bias
        (n_values, n_features), (n_values,).
    c
        The chosen inverse regularization strength.
    """

    values: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    c: float

    def log_odds(self, features: Tensor, numbers: Tensor) -> Tensor:
        """Log odds of one value a picture against all others, (b,), of features (b, n_features) and numbers (b,)."""
        logits = features @ self.weight.T + self.bias
        own = logits.gather(1, numbers[:, None])[:, 0]
        return own - logits.scatter(1, numbers[:, None], -torch.inf).logsumexp(dim=1)


@dataclass(frozen=True)
class Reader:
    """The network after a layer, and what is read of its final tokens.

    Attributes
    ----------
    readouts
        By the number of the cause; causes of which train has one value only have none.
    truth
        Value of each cause by image id: (n_causes,) texts.
    """

    resume: Resumed
    n_prefix: int
    pooling: str
    readouts: dict[int, Readout]
    truth: Mapping[int, Sequence[str]]

    def features(self, tokens: Tensor) -> Tensor:
        """Pooled final tokens (b, n_features) of tokens (b, n_tokens, d_model) of the layer."""
        return pooled(self.resume(tokens), self.n_prefix, self.pooling)

    def numbers(self, cause: int, ids: Sequence[int]) -> Tensor:
        """Number of each picture's value of a cause, (b,); -1 where train has no such value."""
        values = self.readouts[cause].values
        found = [self.truth[number][cause] for number in ids]
        return torch.tensor([values.index(value) if value in values else -1 for value in found])


@torch.inference_mode()
def learned(
    tokens: PairTokens,
    model: VisionModel,
    layer: int,
    truth: Mapping[int, Sequence[str]],
    c_values: Sequence[float],
    *,
    seed: int,
) -> Reader:
    """Learn a probe of each cause from all pictures of a split, bases and changed ones.

    Softmax regression on standardized features, whose strength is chosen by the log loss on held-out scenes: pictures
    of one scene are too alike to judge each other.

    Parameters
    ----------
    tokens
        Of split train.
    layer
        Whose tokens these are.
    truth
        Value of each cause by image id.
    """
    resume, n_prefix, device = model.resumed(layer), model.card.n_prefix, model.device
    pooling = "both" if model.card.has_class_token else "mean"
    features, ids, scene = [], [], []
    with progress_bar(len(tokens.scenes), "final tokens", "scenes") as bar:
        for number, one in enumerate(tokens.scenes):
            final = resume(tokens.tokens(one, "all").to(device))
            features.append(pooled(final, n_prefix, pooling).float().cpu().numpy())
            ids += one.ids
            scene += [number] * len(one.ids)
            bar.update()
    rows = np.concatenate(features)
    order = np.random.default_rng([seed, 32]).permutation(len(tokens.scenes))
    held_out = np.isin(scene, order[: max(1, int(_HELD_OUT * len(order)))])
    found = {}
    for cause in range(len(next(iter(truth.values())))):
        known = [truth[number][cause] for number in ids]
        values = tuple(sorted(set(known)))
        if len(values) > 1:
            classes = np.array([values.index(value) for value in known], dtype=np.int64)
            found[cause] = _readout(rows, classes, held_out, values, c_values, device)
    return Reader(resume, n_prefix, pooling, found, truth)


def _readout(
    features: NDArray[np.float32],
    classes: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    values: tuple[str, ...],
    c_values: Sequence[float],
    device: torch.device,
) -> Readout:
    """Fit the probe of one cause."""
    losses = {c: _loss(features, classes, held_out, c, device) for c in c_values} if len(c_values) > 1 else {}
    c = min(losses, key=lambda one: losses[one]) if losses else c_values[0]
    weight, bias = by_scikit_learn(features, np.arange(len(features)), classes, c, _ITERATIONS, device)
    return Readout(values, _on(weight, device), _on(bias, device), c)


def _on(values: NDArray[np.float64], device: torch.device) -> Tensor:
    return torch.from_numpy(values).float().to(device)


def _loss(
    features: NDArray[np.float32],
    classes: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    c: float,
    device: torch.device,
) -> float:
    """Log loss on held-out pictures whose value others have."""
    fit = np.flatnonzero(~held_out)
    present, numbers = np.unique(classes[fit], return_inverse=True)
    judged = np.flatnonzero(held_out & np.isin(classes, present))
    if len(present) < 2 or not len(judged):
        return 0.0
    renumbered = np.zeros(len(classes), dtype=np.int64)
    renumbered[fit] = numbers
    weight, bias = by_scikit_learn(features, fit, renumbered, c, _ITERATIONS, device)
    logits = torch.from_numpy(features[judged] @ weight.T + bias)
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(np.searchsorted(present, classes[judged]))))


def readouts_facts(reader: Reader, causes: Sequence[str], edits: pl.DataFrame) -> list[dict[str, Any]]:
    """What summary.json says of the probes: values, strength, and the share of the unedited pictures read right."""
    found = []
    for number, cause in enumerate(causes):
        readout = reader.readouts.get(number)
        own = edits.filter(pl.col("read") == cause, pl.col("edited") == cause)["accuracy_before"]
        values = [] if readout is None else list(readout.values)
        accuracy = own.mean() if len(own) else None
        found.append({"cause": cause, "values": values, "c": readout and readout.c, "accuracy": accuracy})
    return found
