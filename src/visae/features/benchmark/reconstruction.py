"""How much of the activations an SAE keeps: unexplained variance, and what a probe loses (visaebench's M2 and M3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.features.benchmark.measured import Estimate, Metric, NotMeasured, by_pictures
from visae.features.benchmark.pictures import Pictures, probe_split, right_answers
from visae.progress import progress_bar
from visae.sae.autoencoder import SparseAutoencoder

_BATCH_TOKENS = 8192
_PROBE_ITERATIONS = 1000


@dataclass(frozen=True)
class Reconstruction:
    """Sums over the tokens of each picture, of raw activations and of what the SAE leaves of them.

    Attributes
    ----------
    n_tokens
        Tokens of a picture, of the kind that the SAE is of.
    sums, error_sums
        (n_pictures,) of all values.
    squares, error_squares
        (n_pictures,) of their squares.
    active
        (n_pictures,) codes.
    pooled, rebuilt
        (n_pictures, d_model) mean activation, and mean reconstruction.
    """

    n_tokens: int
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    error_sums: NDArray[np.float64]
    error_squares: NDArray[np.float64]
    active: NDArray[np.int64]
    pooled: NDArray[np.float32]
    rebuilt: NDArray[np.float32]

    def unexplained(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared error over squared deviation from the mean activation, by weights (r, n_pictures) of pictures, (r,).

        1 is what the mean alone reaches, and it is never below 0.
        """
        totals = weights @ (self.pooled.astype(np.float64) * self.n_tokens)
        deviation = weights @ self.squares - (totals**2).sum(axis=1) / (weights.sum(axis=1) * self.n_tokens)
        return _quotient(weights @ self.error_squares, deviation)

    def unexplained_by_package(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same as visaebench computes it: sums over all dimensions, whose square is taken for that of a mean."""
        n = weights.sum(axis=1) * self.n_tokens
        variance = weights @ self.squares / n - (weights @ self.sums / n) ** 2
        of_error = weights @ self.error_squares / n - (weights @ self.error_sums / n) ** 2
        return np.where(variance > 0, _quotient(of_error, variance), np.inf)


@torch.no_grad()
def reconstruct(store: ActivationStore, sae: SparseAutoencoder, pictures: range) -> Reconstruction:
    """Read the tokens of consecutive pictures, encode and decode them; memory holds two rows a picture.

    Raises
    ------
    NotMeasured
        If the SAE is a transcoder.
    StoreError
        If store and SAE are of other dimensions.
    """
    if sae.is_transcoder:
        raise NotMeasured("a transcoder gives another layer, and reconstructs nothing")
    if store.d_model != sae.d_model:
        raise StoreError(
            f"{store.folder} has activations of {store.d_model} dimensions, the SAE takes {sae.d_model}: name the "
            "store that the codes were made of"
        )
    kinds = sae.place.tokens
    n, n_tokens = len(pictures), store.n_tokens(kinds)
    sums: NDArray[np.float64] = np.zeros((4, n))
    active = np.zeros(n, dtype=np.int64)
    pooled, rebuilt = np.zeros((2, n, store.d_model), dtype=np.float32)
    batch = max(1, _BATCH_TOKENS // n_tokens)
    where = sae.decoder_bias.device
    with progress_bar(n, "reconstructing", "images") as bar:
        for start in range(0, n, batch):
            place = slice(start, min(start + batch, n))
            ids = pictures[place]
            rows = store.read(ids, kinds).to(where)
            flat = rows.flatten(0, 1)
            codes = sae.sparse_codes(flat)
            output = sae.decode(codes, like=flat).view_as(rows)
            for number, values in ((0, rows.double()), (2, (rows - output).double())):
                sums[number, place] = values.sum(dim=(1, 2)).cpu().numpy()
                sums[number + 1, place] = values.square().sum(dim=(1, 2)).cpu().numpy()
            active[place] = codes.without_zeros().offsets.diff().view(len(ids), n_tokens).sum(dim=1).cpu().numpy()
            pooled[place], rebuilt[place] = (part.mean(dim=1).cpu().numpy() for part in (rows, output))
            bar.update(len(ids))
    return Reconstruction(n_tokens, sums[0], sums[1], sums[2], sums[3], active, pooled, rebuilt)


def unexplained_variance(found: Reconstruction, seed: int) -> Metric:
    """M2, fvu."""
    n = len(found.active)
    return Metric(
        *("fvu", "visaebench", False),
        by_pictures(found.unexplained_by_package, n, seed),
        by_pictures(found.unexplained, n, seed),
        *(n * found.n_tokens, "tokens"),
        correction="about the mean of each dimension",
    )


def size_and_error(found: Reconstruction, seed: int) -> list[Metric]:
    """Normalized MSE and L0, which saev puts beside its scores."""
    n = len(found.active)

    def l0(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return (weights @ found.active) / (weights.sum(axis=1) * found.n_tokens)

    return [
        _same("normalized_mse", by_pictures(found.unexplained, n, seed), n * found.n_tokens),
        _same("l0", by_pictures(l0, n, seed), n * found.n_tokens),
    ]


def preservation(found: Reconstruction, pictures: Pictures, seed: int, split_seed: int) -> Metric:
    """M3, downstream_preservation: accuracy of a probe on mean reconstructions over that on mean activations."""
    kept = pictures.labelled
    labels = pictures.labels[kept]
    learned, tested = probe_split(labels, split_seed)
    right = right_answers(
        found.pooled[kept],
        labels,
        learned,
        tested,
        split_seed,
        others=found.rebuilt[kept],
        iterations=_PROBE_ITERATIONS,
    )

    def ratio(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        knows = weights @ right[0]
        # visaebench cuts a ratio over few right answers off at 2.
        return np.where(knows > 0, np.minimum(_quotient(weights @ right[1], knows), 2), np.nan)

    value = by_pictures(lambda weights: np.nan_to_num(ratio(weights), nan=0), len(tested), seed)
    corrected = by_pictures(ratio, len(tested), seed)
    undefined = "" if right[0].any() else "undefined: the probe gets nothing right on the activations themselves"
    name = "downstream_preservation"
    return Metric(name, "visaebench", True, value, corrected, len(tested), "pictures", correction=undefined)


def _same(name: str, value: Estimate, n: int) -> Metric:
    return Metric(name, "saev", False, value, value, n, "tokens")


def _quotient(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below
