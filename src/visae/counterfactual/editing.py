"""Suppress the latents that are selective for a cause, and see which causes can be read less from the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.config.kinds import token_slice
from visae.config.settings import CounterfactualSettings
from visae.counterfactual.changes import PairTokens
from visae.counterfactual.readouts import Reader
from visae.counterfactual.selective import Verdicts
from visae.edits.edit import moved, of_length
from visae.edits.passes import in_shared_batches
from visae.experiments.tables import measured_columns, paired_p, sign_flips
from visae.features.resampling import benjamini_hochberg
from visae.intervals import interval, resampling_weights
from visae.progress import progress_bar
from visae.sae import SparseAutoencoder

EDITS_SCHEMA: dict[str, Any] = {
    "dictionary": pl.String,
    "edited": pl.String,
    "read": pl.String,
    "n_latents": pl.Int32,
    **measured_columns(("effect", "control")),
    "p": pl.Float64,
    "q": pl.Float64,
    "odds_before": pl.Float64,
    "accuracy_before": pl.Float64,
    "accuracy_after": pl.Float64,
    "accuracy_control": pl.Float64,
    "n_scenes": pl.Int32,
}
"""Columns of editing.parquet: one row a dictionary, edited cause and cause that is read."""


@dataclass(frozen=True)
class Plan:
    """How latents are edited.

    Attributes
    ----------
    causes
        Names.
    most_latents, random_draws, scenes, bootstrap, batch_size
        As in the section `counterfactuals`.
    """

    causes: Sequence[str]
    most_latents: int
    random_draws: int
    scenes: int
    bootstrap: int
    batch_size: int
    seed: int

    @classmethod
    def of(cls, settings: CounterfactualSettings, causes: Sequence[str], seed: int) -> Plan:
        """Take the section's part of it."""
        keys = ("most_latents", "random_draws", "scenes", "bootstrap", "batch_size")
        return cls(causes, **{key: getattr(settings, key) for key in keys}, seed=seed)


@dataclass(frozen=True)
class Edited:
    """What the probes say of the edited scenes; NaN where a cause has no probe, or a value that train does not have.

    Attributes
    ----------
    before, after, control
        (n_scenes, n_causes) log odds of the true value, mean over the edited pictures of a scene; of random latents the
        mean over draws.
    right
        (3, n_scenes, n_causes) the share that is read right, in the same order.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    control: NDArray[np.float64]
    right: NDArray[np.float64]


def chosen_latents(found: Verdicts, cause: int, selectivity: NDArray[np.float64], most: int) -> list[int]:
    """Latents that are selective for a cause on the split that they are found on, the most selective first."""
    own = np.flatnonzero(found.found & (found.first == cause))
    return [int(latent) for latent in found.active[own[np.argsort(-selectivity[own], kind="stable")][:most]]]


def edited_rows(
    tokens: PairTokens,
    dictionary: SparseAutoencoder,
    reader: Reader,
    chosen: Mapping[int, Sequence[int]],
    pool: Sequence[int],
    plan: Plan,
) -> list[dict[str, Any]]:
    """Edit the latents of each cause, and return a row for each cause that is edited and each that is read.

    The latents are set to 0 on all tokens of the base pictures of a split, and of those in which the cause is changed.
    Beside them as many latents of `pool` are set to 0, drawn at random, and what that changes is given the same length
    on each token. An effect is the change of the log odds of a picture's true value, in standard deviations of these
    log odds over scenes; below 0, the cause is harder to read. `p` is that of the paired test that the effect is
    below that of the random latents (signs flipped by scene); `q` is corrected over all rows of a dictionary.

    Parameters
    ----------
    tokens
        Of split val.
    chosen
        Latents by number of the cause; causes without any are left out.
    pool
        Active latents that are selective for nothing, or all active ones where there are too few.
    """
    rows: list[dict[str, Any]] = []
    wanted = {cause: latents for cause, latents in chosen.items() if latents}
    with progress_bar(len(wanted), "edited causes", "causes") as bar:
        for cause, latents in wanted.items():
            draws = _draws(pool, cause, len(latents), plan)
            found = _edited(tokens, dictionary, reader, cause, list(latents), draws, plan)
            rows += _rows(found, cause, len(latents), reader, plan)
            bar.update()
    for row, q in zip(rows, benjamini_hochberg(np.array([row["p"] for row in rows], dtype=np.float64)), strict=True):
        row["q"] = float(q)
    return rows


def _draws(pool: Sequence[int], cause: int, n: int, plan: Plan) -> list[list[int]]:
    generators = (np.random.default_rng([plan.seed, cause, draw, 33]) for draw in range(plan.random_draws))
    return [generator.choice(pool, size=min(n, len(pool)), replace=False).tolist() for generator in generators]


@torch.inference_mode()
def _edited(
    tokens: PairTokens,
    dictionary: SparseAutoencoder,
    reader: Reader,
    cause: int,
    latents: list[int],
    draws: list[list[int]],
    plan: Plan,
) -> Edited:
    """Read all causes before and after one edit and its controls."""
    scenes = _drawn(tokens, plan)
    shape = len(scenes), len(plan.causes)
    odds, right = np.full((2 + len(draws), *shape), np.nan), np.full((2 + len(draws), *shape), np.nan)

    def variants() -> Iterator[Tensor]:
        for number in scenes:
            scene = tokens.scenes[number]
            places = [0, *(place for place, pair in enumerate(scene.pairs, 1) if pair.cause == plan.causes[cause])]
            whole = tokens.tokens(scene, "all")[places].to(dictionary.decoder_bias.device)
            yield from _variants(whole, dictionary, reader.n_prefix, latents, draws)

    found = in_shared_batches(variants(), reader.features, plan.batch_size)
    for place, number in enumerate(scenes):
        scene = tokens.scenes[number]
        ids = [pair.changed for pair in scene.pairs if pair.cause == plan.causes[cause]]
        for variant in range(2 + len(draws)):
            features = next(found)
            for read in reader.readouts:
                values = _judged(reader, read, features, [scene.pairs[0].base, *ids])
                odds[variant, place, read], right[variant, place, read] = values
    controls = odds[2:].mean(axis=0), right[2:].mean(axis=0)
    return Edited(odds[0], odds[1], controls[0], np.stack([right[0], right[1], controls[1]]))


def _drawn(tokens: PairTokens, plan: Plan) -> list[int]:
    order = np.random.default_rng([plan.seed, 34]).permutation(len(tokens.scenes))
    return sorted(order[: plan.scenes].tolist())


def _variants(
    whole: Tensor, dictionary: SparseAutoencoder, n_prefix: int, latents: list[int], draws: list[list[int]]
) -> Iterator[Tensor]:
    """Tokens (b, n_tokens, d_model) as they are, without the latents, and without each draw's, as far moved."""
    yield whole
    own = token_slice(dictionary.place.tokens, n_prefix)
    rows = whole[:, own].flatten(0, 1)
    every = [*latents, *(latent for draw in draws for latent in draw)]
    values = dictionary.latent_values(rows, every)
    change = dictionary.change(-values[:, : len(latents)], latents, like=rows)
    yield _with(whole, own, moved(rows, change))
    lengths, start = change.norm(dim=1, keepdim=True), len(latents)
    for draw in draws:
        other = dictionary.change(-values[:, start : start + len(draw)], draw, like=rows)
        # Where none of them is active, they are moved all the same: a control that does nothing would be no control.
        instead = dictionary.change(rows.new_full((len(rows), len(draw)), -1.0), draw, like=rows)
        yield _with(whole, own, moved(rows, of_length(other, lengths, instead)))
        start += len(draw)


def _with(whole: Tensor, own: slice, rows: Tensor) -> Tensor:
    found = whole.clone()
    found[:, own] = rows.view(len(whole), -1, whole.shape[-1])
    return found


def _judged(reader: Reader, cause: int, features: Tensor, ids: Sequence[int]) -> tuple[float, float]:
    """Mean log odds of the true value of a cause, and the share that is read right, over pictures that have both."""
    readout, numbers = reader.readouts[cause], reader.numbers(cause, ids).to(features.device)
    known = numbers >= 0
    if not known.any():
        return float("nan"), float("nan")
    features, numbers = features[known], numbers[known]
    right = (features @ readout.weight.T + readout.bias).argmax(dim=1) == numbers
    return float(readout.log_odds(features, numbers).mean()), float(right.double().mean())


def _rows(found: Edited, cause: int, n_latents: int, reader: Reader, plan: Plan) -> list[dict[str, Any]]:
    """One row a cause that is read."""
    weights = resampling_weights(len(found.before), plan.bootstrap, plan.seed)
    signs = sign_flips(len(found.before), plan.bootstrap, plan.seed)
    rows = []
    for read in sorted(reader.readouts):
        known = ~np.isnan(found.before[:, read])
        unit = float(found.before[known, read].std()) or 1.0
        effect, control = ((part[:, read] - found.before[:, read]) / unit for part in (found.after, found.control))
        difference = np.where(known, control - effect, 0.0)
        row: dict[str, Any] = {
            "edited": plan.causes[cause],
            "read": plan.causes[read],
            "n_latents": n_latents,
            "p": paired_p(difference, signs),
            "odds_before": float(found.before[known, read].mean()),
            "n_scenes": int(known.sum()),
        }
        for name, values in (("effect", effect), ("control", control)):
            row |= with_interval(name, values[known], weights[:, known])
        names = ("accuracy_before", "accuracy_after", "accuracy_control")
        row |= {name: float(part[known, read].mean()) for name, part in zip(names, found.right, strict=True)}
        rows.append(row)
    return rows


def with_interval(name: str, values: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, float]:
    """Mean of values of scenes (n,) with its 95 % interval from resampled scenes."""
    low, high = interval(weights @ values / np.maximum(weights.sum(axis=1), 1))
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}


def own_and_other_effects(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each edited cause: its own effect, and the mean effect on the others, of the latents and of random ones."""
    found = []
    for cause in dict.fromkeys(row["edited"] for row in rows):
        own = [row for row in rows if row["edited"] == cause and row["read"] == cause]
        others = [row for row in rows if row["edited"] == cause and row["read"] != cause]
        if own and others:
            about = {"cause": cause, "n_latents": own[0]["n_latents"], "q": own[0]["q"]}
            of = {name: own[0][name] for name in ("effect", "effect_low", "effect_high", "control")}
            means = {f"others_{name}": float(np.mean([row[name] for row in others])) for name in ("effect", "control")}
            largest = min(others, key=lambda row: row["effect"])
            found.append({**about, **of, **means, "most_affected": largest["read"], "most_effect": largest["effect"]})
    return found
