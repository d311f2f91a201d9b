"""How well pooled tokens tell classes apart, and whether that is what a model's name promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch

from visae.config.settings import ProbeSettings
from visae.heads.bootstrap import estimates
from visae.heads.neighbours import by_neighbours
from visae.heads.pooled_layers import Place
from visae.heads.pretraining import Published
from visae.heads.solvers import SOLVERS, choose_c, chosen_solver
from visae.notices import Notice

NETWORKS = ("model", "random")
# Of what an untrained network gets wrong, a general pre-training is expected to get at least this share right.
EXPECTED_SHARE = 0.5
# A probe that learns from a few hundred pictures may be this much below one that learns from 50,000.
FEWER_PICTURES_COST = 0.15
# Few pictures want strong penalties, many a weak one; which is chosen on a held-out fifth.
_PROBE = ProbeSettings(c_values=[0.001, 0.01, 0.1])
# 97.5 % quantile of the normal distribution, for intervals of 95 %.
_QUANTILE = 1.959964


@dataclass(frozen=True)
class Judgeable:
    """Features of the same pictures from each network of `NETWORKS`.

    Attributes
    ----------
    fit, measure
        One mapping a network: place to float32 (n, d).
    fit_classes, truth
        Classes of the pictures to learn from and to measure on, from 0.
    """

    fit: Sequence[dict[Place, np.ndarray]]
    measure: Sequence[dict[Place, np.ndarray]]
    fit_classes: np.ndarray
    truth: np.ndarray


def wilson(hits: np.ndarray) -> tuple[float, float, float]:
    """Share of hits (n,) and its 95 % interval by Wilson's score, which has a width where all are hits, too."""
    n, share = len(hits), float(np.mean(hits))
    spread = _QUANTILE**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = _QUANTILE * sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return share, middle - half, middle + half


def scores(found: Judgeable, neighbours: int, device: torch.device, seed: int) -> Iterator[dict[str, Any]]:
    """Yield one row a place and measure.

    A row has `layer` (None: final tokens), `tokens`, `measure` (`probe` or `neighbours`), the accuracies `model` and
    `random` by Wilson, and from the same resampled pictures `gain` (model less random) and `share` (of what random
    gets wrong, the gain), each with `_low` and `_high`.
    """
    for place in found.fit[0]:
        by_network = []
        for fit, measure in zip(found.fit, found.measure, strict=True):
            known, unknown = np.array(fit[place]), np.array(measure[place])
            predicted = {
                "probe": _by_probe(known, found.fit_classes, unknown, device, seed),
                "neighbours": by_neighbours(known, found.fit_classes, unknown, neighbours, device),
            }
            by_network.append({name: said == found.truth for name, said in predicted.items()})
        for measure_name in by_network[0]:
            model, random = (right[measure_name] for right in by_network)
            yield {"layer": place[0], "tokens": place[1], "measure": measure_name, **_compared(model, random, seed)}


def published_notices(rows: Sequence[dict[str, Any]], known: Published | None) -> list[Notice]:
    """Warn where final tokens are far below what is published of the model whose name this one has."""
    if known is None:
        return []
    best = max(
        (row for row in rows if row["layer"] is None and row["measure"] == "probe"), key=lambda row: row["model"]
    )
    if best["model_high"] >= known.accuracy - FEWER_PICTURES_COST:
        return []
    return [
        Notice(
            "warning",
            f"{known}, and these final tokens reach {best['model']:.2f} [{best['model_low']:.2f}, "
            f"{best['model_high']:.2f}]: more than fewer pictures to learn from can cost. These are not the weights "
            "that the name stands for, or pictures are not fed as they were trained on; look where the weights are "
            "from",
        )
    ]


def promise_notices(rows: Sequence[dict[str, Any]], word: str | None, architecture: str) -> list[Notice]:
    """Warn where a name promises a general pre-training and final tokens know little more than random weights.

    Every reading of the final tokens has to fall short, each by the upper end of its interval, so that neither a
    weak neighbour search (of masked autoencoders, say) nor few pictures alone raise the alarm.
    """
    final = [row for row in rows if row["layer"] is None]
    if word is None or any(row["share_high"] >= EXPECTED_SHARE for row in final):
        return []
    best = max(final, key=lambda row: row["share"])
    more = "no more than" if best["gain_low"] <= 0 else "little more than"
    return [
        Notice(
            "warning",
            f"the name {architecture} promises a general pre-training ({word}), but the final tokens know {more} those "
            f"of random weights: at best {best['model']:.2f} right against {best['random']:.2f} ({best['measure']}, "
            f"{best['tokens']}), {best['share']:.0%} of what random weights get wrong, and at least "
            f"{EXPECTED_SHARE:.0%} is expected. Either these weights are others than the name says, or these classes "
            "are nothing that such a training teaches; look where the weights are from",
        )
    ]


def _by_probe(
    known: np.ndarray, classes: np.ndarray, unknown: np.ndarray, device: torch.device, seed: int
) -> np.ndarray:
    solver = SOLVERS[chosen_solver(_PROBE.solver, known.size)]
    c, _ = choose_c(known, classes, _PROBE, seed, solver, device)
    weight, bias = solver(known, np.arange(len(classes)), classes, c, _PROBE.max_iterations, device)
    return (unknown @ weight.T + bias).argmax(axis=1)


def _compared(model: np.ndarray, random: np.ndarray, seed: int) -> dict[str, float]:
    """Accuracies of both networks from hits (n,) on the same pictures, and what one has over the other."""

    def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
        right = weights @ np.stack([model, random], axis=1).astype(np.float64) / weights.sum(axis=1, keepdims=True)
        gain = right[:, 0] - right[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"gain": gain, "share": np.where(right[:, 1] < 1, gain / (1 - right[:, 1]), 0.0)}

    row: dict[str, float] = {}
    for name, hits in zip(NETWORKS, (model, random), strict=True):
        row[name], row[f"{name}_low"], row[f"{name}_high"] = wilson(hits)
    for name, found in estimates(measure, len(model), seed).items():
        row |= {f"{name}{end}": float(value) for end, value in zip(("", "_low", "_high"), found, strict=True)}
    return row
