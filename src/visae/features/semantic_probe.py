"""Whether single latents tell the pictures of a concept from others, with p-values that know how many were tried."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from visae.config.concepts import ConceptSettings
from visae.device import chosen_device, described
from visae.errors import ConfigError, ModelError
from visae.features.concept_pictures import read_concept, summed_codes
from visae.features.resampling import p_value
from visae.files import read_json, write_json, write_table
from visae.intervals import RESAMPLES, interval
from visae.provenance import Provenance
from visae.sae.autoencoder import SparseAutoencoder, load_sae
from visae.vision.hook_points import HookPoint
from visae.vision.model import load_model

_CHUNK = 50


@dataclass(frozen=True)
class Probed:
    """What one dictionary reaches on a concept.

    Attributes
    ----------
    latents
        Chosen on the first half, and on the second.
    auc, low, high
        Mean of both halves' AUC, each of the latent that the other half chose, and its 95 % interval.
    null, p
        Mean of that under permuted labels, latents chosen again, and the p-value.
    best_latent, best_auc
        Latent with the largest AUC on all pictures.
    null_best, p_best
        95 % quantile of the largest AUC of all latents under permuted labels, and the p-value of best_auc.
    """

    latents: tuple[int, int]
    auc: float
    low: float
    high: float
    null: float
    p: float
    best_latent: int
    best_auc: float
    null_best: float
    p_best: float


def probe_concept(
    concept: ConceptSettings,
    sae: Path,
    model: Path,
    layer: str | None = None,
    output: Path | None = None,
    permutations: int = 1000,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Print which latents tell a concept's pictures from others, and whether chance would do as well.

    A latent's value in a picture is its sum over the patches. The pictures of each folder are shuffled and cut into
    halves; on either half the latent with the largest ROC AUC is chosen, and its AUC on the other half counts. Beside
    the SAE stand its always-on latent (the most frequent one, whatever it means) and an untrained SAE of its kind.

    Parameters
    ----------
    concept
        Folder of pictures that show the concept, and of pictures that do not; 20 each are a good number.
    sae
        config.json of the SAE.
    model
        model.json of the model whose activations it takes.
    layer
        Layer, such as 10 or 10-attention; left out, the one that the SAE's config.json names.
    output
        Folder for probe.parquet (one row a dictionary), latents.parquet (AUC of every latent of the SAE on all
        pictures) and summary.json, which lists the pictures that were used and skipped, and says what made it.
    permutations
        Permutations of the labels behind each p-value, whose smallest value is 1 / (1 + permutations).
    seed
        Of the halves, the permutations, the intervals and the untrained SAE.
    device
        `auto`, `cpu` or `cuda`.

    Raises
    ------
    DataError
        If a folder is missing or has too few pictures, or a picture is in both.
    ModelError
        If model and SAE do not fit.
    """
    where = chosen_device(device)
    trained, vision = load_sae(sae, where), load_model(model, where)
    provenance = Provenance(concept, [sae, model], seed, described(where))
    point = _hook_point(layer, sae)
    vision.card.check(point, "--layer")
    d_model = vision.card.layers[point.layer].d_model
    if d_model != trained.d_model:
        raise ModelError(
            f"{sae} takes activations of {trained.d_model} dimensions, layer {point} of {model} has {d_model}"
        )
    pictures = read_concept(Path(concept.positives), Path(concept.negatives), vision)
    rows: list[dict[str, Any]] = []
    for name, (sums, frequency) in zip(
        ("trained", "untrained"),
        summed_codes(pictures, vision, point, [trained, untrained(trained, seed)]),
        strict=True,
    ):
        rows.append({"dictionary": name} | vars(probed(sums, pictures.is_positive, permutations, seed)))
        if name == "trained":
            always_on = int(frequency.argmax())
            found = probed(sums[:, [always_on]], pictures.is_positive, permutations, seed)
            rows.append(
                {"dictionary": "always-on"}
                | vars(found)
                | {"latents": (always_on, always_on), "best_latent": always_on}
            )
            every = pl.DataFrame(
                {
                    "latent": np.arange(trained.width, dtype=np.int32),
                    "auc": all_aucs(rankdata(sums, axis=0), pictures.is_positive[None])[0],
                    "frequency": frequency,
                }
            ).sort("auc", "latent", descending=[True, False])
    table = pl.DataFrame(
        [{**row, "latents": list(row["latents"])} for row in rows], schema_overrides={"latents": pl.List(pl.Int32)}
    )
    _print(table, pictures.skipped, int(pictures.is_positive.sum()), int((~pictures.is_positive).sum()))
    if output is not None:
        for file, frame in (("probe.parquet", table), ("latents.parquet", every)):
            write_table(output / file, frame)
        used = [str(path) for path in pictures.paths]
        skipped = [{"path": str(path), "reason": reason} for path, reason in pictures.skipped]
        n_positive = int(pictures.is_positive.sum())
        summary = {
            "sae": str(sae),
            "model": str(model),
            "layer": str(point),
            "permutations": permutations,
            "positives": used[:n_positive],
            "negatives": used[n_positive:],
            "skipped": skipped,
            "provenance": provenance.record(),
        }
        write_json(output / "summary.json", summary)


def probed(
    values: NDArray[np.floating],
    is_positive: NDArray[np.bool_],
    permutations: int,
    seed: int,
    ties: np.random.Generator | None = None,
) -> Probed:
    """Choose latents on halves of the pictures, score them on the other halves, and permute labels.

    Parameters
    ----------
    values
        (n_pictures, width).
    is_positive
        (n_pictures,).
    permutations
        Permutations of the labels behind each p-value.
    seed
        Of the halves, the permutations and the interval.
    ties
        For checks of calibration alone: see `visae.features.resampling.tail_share`.
    """
    random = np.random.default_rng(seed)
    order = _in_halves(is_positive, random)
    values, is_positive = values[order], is_positive[order]
    halves = _halves(is_positive)
    # Labels are permuted within each half, so that every permutation has halves like the real ones.
    labels = np.stack([is_positive] * (1 + permutations))
    for half in halves:
        labels[1:, half] = random.permuted(labels[1:, half], axis=1)
    ranks, half_ranks = rankdata(values, axis=0), [rankdata(values[half], axis=0) for half in halves]
    held_out, best = np.zeros(1 + permutations), np.zeros(1 + permutations)
    for start in range(0, len(labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        of_halves = [all_aucs(own, labels[part][:, half]) for own, half in zip(half_ranks, halves, strict=True)]
        chosen = [of_half.argmax(axis=1) for of_half in of_halves]
        rows = np.arange(len(chosen[0]))
        held_out[part] = (of_halves[0][rows, chosen[1]] + of_halves[1][rows, chosen[0]]) / 2
        whole = all_aucs(ranks, labels[part])
        best[part] = whole.max(axis=1)
        if start == 0:
            latents = int(chosen[0][0]), int(chosen[1][0])
            best_latent = int(whole[0].argmax())
    low, high = _interval(values, is_positive, halves, latents, random)
    return Probed(
        latents,
        auc=float(held_out[0]),
        low=low,
        high=high,
        null=float(held_out[1:].mean()),
        p=float(p_value(held_out[0], held_out[1:], ties)),
        best_latent=best_latent,
        best_auc=float(best[0]),
        null_best=float(np.quantile(best[1:], 0.95)),
        p_best=float(p_value(best[0], best[1:], ties)),
    )


def all_aucs(ranks: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """ROC AUC of every column of ranks (n_pictures, width) for every row of labels (k, n_pictures), (k, width)."""
    n_positive = labels.sum(axis=1)[:, None]
    sums = labels.astype(np.float64) @ ranks
    return (sums - n_positive * (n_positive + 1) / 2) / (n_positive * (labels.shape[1] - n_positive))


@torch.no_grad()
def untrained(sae: SparseAutoencoder, seed: int) -> SparseAutoencoder:
    """Return an SAE of the same kind and width with random directions in place of what it has learned.

    It keeps normalization and code rule, thresholds included.
    """
    other = deepcopy(sae)
    # Where normalization does not centre, the encoder's bias takes the mean off, which is about the decoder's bias.
    middle = None if sae.centres or sae.is_transcoder else sae.weights.decoder_bias
    if middle is not None:
        other.variant.shift(other.weights, -middle)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(sae.width, sae.d_model, generator=generator))
    # Encoder rows as long as the trained ones, so that values are of the same size.
    other.encoder_weight.copy_(rows.to(sae.encoder_weight.device) * sae.encoder_weight.norm(dim=1, keepdim=True))
    if middle is not None:
        other.variant.shift(other.weights, middle)
    return other


def _hook_point(layer: str | None, sae: Path) -> HookPoint:
    if layer is not None:
        return HookPoint.parse(layer)
    config = read_json(sae)
    if config.get("layer") is None:
        raise ConfigError(f"{sae} does not say which layer the SAE is of; give it with --layer")
    return HookPoint(config["layer"], config.get("hook") or "residual")


def _in_halves(is_positive: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Order of the pictures in which every other positive, and every other negative, is of the same half."""
    return np.concatenate([random.permutation(np.flatnonzero(is_positive == kind)) for kind in (True, False)])


def _halves(is_positive: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Pictures of either half, with every other one of the positives and of the negatives."""
    places = [np.flatnonzero(is_positive == kind) for kind in (True, False)]
    return [np.concatenate([place[first::2] for place in places]) for first in (0, 1)]


def _interval(
    values: NDArray[np.floating],
    is_positive: NDArray[np.bool_],
    halves: Sequence[NDArray[np.int64]],
    latents: tuple[int, int],
    random: np.random.Generator,
) -> tuple[float, float]:
    """95 % interval of the mean held-out AUC of two chosen latents, over pictures redrawn within half and folder."""
    means = np.zeros(RESAMPLES)
    for half, latent in zip(halves, reversed(latents), strict=True):
        positive, negative = (values[half[is_positive[half] == kind], latent] for kind in (True, False))
        above = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
        for resample in range(RESAMPLES):
            rows, columns = (random.integers(size, size=size) for size in above.shape)
            means[resample] += above[np.ix_(rows, columns)].mean() / 2
    return interval(means)


def _print(table: pl.DataFrame, skipped: list[tuple[Path, str]], n_positive: int, n_negative: int) -> None:
    print(f"{n_positive} positive and {n_negative} negative pictures, {len(skipped)} skipped")
    for _, reason in skipped:
        print(f"  skipped: {reason}")
    for row in table.iter_rows(named=True):
        latents = ", ".join(map(str, dict.fromkeys(row["latents"])))
        print(
            f"  {row['dictionary']:10} held-out AUC {row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}], "
            f"by chance {row['null']:.3f}, p = {row['p']:.4f} (latent {latents}); best of all {row['best_auc']:.3f}, "
            f"by chance {row['null_best']:.3f}, p = {row['p_best']:.4f} (latent {row['best_latent']})"
        )
