"""Which pre-activations become codes, found block for block: those of a whole batch never exist at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from visae.sae.sparse import SparseCodes, offsets_of

# Tokens whose pre-activations exist at once.
BLOCK = 512


def selected(inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, chosen: Callable[[Tensor], Tensor]) -> SparseCodes:
    """Pre-activations that are chosen, as sparse codes, latents ascending within a token.

    Parameters
    ----------
    inputs, encoder, encoder_bias
        (n, d_model), (width, d_model), (width,).
    chosen
        Gives bool (m, width) for a block of pre-activations (m, width).
    """
    counts, latents, values = [], [inputs.new_empty(0, dtype=torch.int64)], [inputs.new_empty(0)]
    for part in inputs.split(BLOCK):
        block = torch.addmm(encoder_bias, part, encoder.T)
        tokens, columns = chosen(block).nonzero(as_tuple=True)
        counts.append(torch.bincount(tokens, minlength=len(part)))
        latents.append(columns)
        values.append(block[tokens, columns])
    offsets = torch.zeros(len(inputs) + 1, dtype=torch.int64, device=inputs.device)
    if counts:
        torch.cumsum(torch.cat(counts), 0, out=offsets[1:])
    return SparseCodes(torch.cat(latents), torch.cat(values), offsets, len(encoder))


class LargestPerToken:
    """The k largest latents of each token, in a buffer that is used again."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def __call__(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, k: int) -> SparseCodes:
        """Exactly k entries a token, in no order, cut at zero."""
        n, width = len(inputs), len(encoder)
        values = inputs.new_empty(n, k)
        latents = torch.empty(n, k, dtype=torch.int64, device=inputs.device)
        if self._buffer.numel() < BLOCK * width or self._buffer.device != inputs.device:
            self._buffer = inputs.new_empty(BLOCK * width)
        for first in range(0, n, BLOCK):
            part = slice(first, first + BLOCK)
            block = self._buffer[: len(inputs[part]) * width].view(-1, width)
            torch.addmm(encoder_bias, inputs[part], encoder.T, out=block)
            torch.topk(block, k, dim=1, sorted=False, out=(values[part], latents[part]))
        offsets = torch.arange(0, n * k + 1, k, device=inputs.device)
        return SparseCodes(latents.view(-1), values.relu_().view(-1), offsets, width)


def largest_of_batch(
    inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, wanted: int, guess: float = 0.0
) -> SparseCodes:
    """The `wanted` largest positive pre-activations of all tokens together, latents ascending within a token.

    Parameters
    ----------
    inputs, encoder, encoder_bias
        (n, d_model), (width, d_model), (width,).
    wanted
        How many; there are fewer only where fewer are positive.
    guess
        Value that the smallest of them is expected to be above. It decides how much is looked at, never the result.
    """
    width = len(encoder)
    places, values = _candidates(inputs, encoder, encoder_bias, wanted, guess)
    if guess > 0 and len(values) < wanted:
        places, values = _candidates(inputs, encoder, encoder_bias, wanted, 0.0)
    places, values = _largest(places, values, wanted)
    order = places.argsort()
    places, values = places[order], values[order]
    return SparseCodes(places % width, values, offsets_of(places // width, len(inputs)), width)


def _candidates(
    inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, wanted: int, least: float
) -> tuple[Tensor, Tensor]:
    """Places (token x width + latent) and values above `least`, cut to the largest whenever they become many."""
    width = len(encoder)
    places, values = [inputs.new_empty(0, dtype=torch.int64)], [inputs.new_empty(0)]
    for number, part in enumerate(inputs.split(BLOCK)):
        block = torch.addmm(encoder_bias, part, encoder.T).view(-1)
        found = (block > least).nonzero()[:, 0]
        places.append(found + number * BLOCK * width)
        values.append(block[found])
        if sum(map(len, values)) > 4 * wanted:
            kept = _largest(torch.cat(places), torch.cat(values), wanted)
            places, values = [kept[0]], [kept[1]]
            least = float(kept[1].min())
    return torch.cat(places), torch.cat(values)


def _largest(places: Tensor, values: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """Those of the `wanted` largest values, or all where there are no more."""
    if len(values) <= wanted:
        return places, values
    values, kept = values.topk(wanted, sorted=False)
    return places[kept], values
