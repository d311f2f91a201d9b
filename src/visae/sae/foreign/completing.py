"""What a file has lost, said by hand or learned again from data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.files import read_json
from visae.notices import Notice
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.data import TrainingData
from visae.sae.foreign.given import Given, Lost, renormalized
from visae.sae.foreign.rules import batchtopk
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.initial import normalization
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.selection import largest_of_batch

# Tokens that a threshold is learned from: all of their pre-activations are looked at.
_TOKENS = 1 << 13


def completed(given: Given, unsaid: Unsaid, data: TrainingData | None) -> Given:
    """SAE with the normalization and the threshold that its file has lost, and what is to be said of them.

    Parameters
    ----------
    data
        Stores to learn them from; None where there are none.

    Raises
    ------
    ModelError
        If something is to be learned and there is no data.
    """
    sae, notices = _normalized(given, unsaid.normalization, data)
    if given.lost.codes_per_token is None:
        return Given(sae, notices)
    k = given.lost.codes_per_token
    if data is None:
        raise ModelError(
            f"threshold: it has been lost from the file; to learn it again, so that a token has {k} codes on average, "
            "give --manifests of a store, or say it with --threshold"
        )
    sample = data.sample.inputs[:_TOKENS]
    threshold = _threshold(sae, sample, k)
    text = (
        f"threshold {threshold:.6g}: it has been lost from the file, and was learned again from {len(sample)} tokens, "
        f"which it leaves {k} codes each on average"
    )
    rule = batchtopk(k, threshold, is_from_it_on=True)
    sae.variant = Matryoshka(rule) if isinstance(sae.variant, Matryoshka) else rule
    return Given(sae, [*notices, Notice("warning", text)])


def _normalized(given: Given, said: str | None, data: TrainingData | None) -> tuple[SparseAutoencoder, list[Notice]]:
    """SAE with the normalization that was said, or that was lost."""
    sae, notices, lost = given
    if said is None and lost.normalization is None:
        return sae, notices
    if said is None and data is None:
        text = (
            "a mean was subtracted and a scale divided by before this SAE saw activations, and the file has neither: "
            "its codes are those of activations that have been normalized already. --normalization gives them, or "
            "with --manifests they are computed from a store"
        )
        return sae, [*notices, Notice("warning", text)]
    word = "data" if said is None else str(said)
    if word in ("none", "per_token"):
        return renormalized(sae, "none" if word == "none" else "per_token"), notices
    if word != "data":
        mean, scale = _of_file(Path(word), sae.d_model)
        return renormalized(sae, "per_dimension" if scale.ndim else "scale", mean, scale), notices
    if data is None:
        raise ModelError("--normalization data: computed from a store; give --manifests")
    mean, scale = _of_data(data.sample.inputs, lost)
    text = f"mean and scale ({float(scale):.6g}) were computed from {len(data.sample.inputs)} tokens of the store"
    return renormalized(sae, "scale", mean, scale), [*notices, Notice("note", text)]


def _of_data(sample: Tensor, lost: Lost) -> tuple[Tensor, Tensor]:
    """Mean (d_model,) and scale () of tokens (n, d_model), as the project computes them."""
    mean, scale = normalization(sample)
    if lost.normalization == "norm":
        norms = torch.linalg.vector_norm(sample - mean, dim=1)
        scale = norms.mean() / sample.shape[1] ** 0.5
    return mean, scale


def _of_file(path: Path, d_model: int) -> tuple[Tensor, Tensor]:
    """Mean (d_model,) and scale, () or (d_model,), from a JSON file."""
    try:
        numbers = dict(read_json(path))
        unknown = sorted(numbers.keys() - {"mean", "scale"})
        mean, scale = (torch.tensor(numbers[name], dtype=torch.float32) for name in ("mean", "scale"))
    except (OSError, ValueError, KeyError, TypeError):
        mean, scale, unknown = torch.empty(0), torch.zeros(()), []
    is_finite = bool(torch.isfinite(mean).all()) and bool(torch.isfinite(scale).all())
    fits = mean.shape == (d_model,) and scale.shape in ((), (d_model,)) and bool((scale > 0).all())
    if unknown or not fits or not is_finite:
        raise ModelError(
            f"{path}: allowed: `mean`, {d_model} numbers, and `scale`, above 0, or {d_model} of them; or the words "
            "none, data, per_token instead of a file"
        )
    return mean, scale


@torch.no_grad()
def _threshold(sae: SparseAutoencoder, sample: Tensor, k: int) -> float:
    """Smallest of the k codes a token that are the largest of all tokens (n, d_model); 0 if there are not as many."""
    weights, wanted = sae.weights, k * len(sample)
    codes = largest_of_batch(sae.normalized(sample), weights.encoder, weights.encoder_bias, wanted)
    return float(codes.values.min()) if len(codes.values) >= wanted else 0.0
