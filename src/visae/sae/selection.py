"""Which pre-activations become codes, found block for block: those of a whole batch never exist at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from visae.sae.sparse import SparseCodes, offsets_of

# Tokens whose pre-activations exist at once.
BLOCK = 1024
# Latents of which the largest alone is looked at first when the k largest are wanted.
_TEAM = 8
# With fewer teams than this times k, most of them would be looked into anyway.
_TEAMS_PER_WINNER = 2


def selected(inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, least: Tensor | float = 0.0) -> SparseCodes:
    """Pre-activations above a bound as sparse codes, latents ascending within a token.

    Parameters
    ----------
    inputs, encoder, encoder_bias
        (n, d_model), (width, d_model), (width,).
    least
        The bound, for all latents or for each (width,).
    """
    width = len(encoder)
    counts, latents, values = [], [inputs.new_empty(0, dtype=torch.int64)], [inputs.new_empty(0)]
    least = torch.as_tensor(least, device=inputs.device)
    buffer = inputs.new_empty(min(BLOCK, len(inputs)), width)
    mask = torch.empty_like(buffer, dtype=torch.bool)
    for part in inputs.split(BLOCK):
        block = torch.addmm(encoder_bias, part, encoder.T, out=buffer[: len(part)])
        places = places_of(torch.gt(block, least, out=mask[: len(part)]))
        starts = torch.arange(0, block.numel() + 1, width, device=inputs.device)
        counts.append(torch.searchsorted(places, starts).diff())
        values.append(block.view(-1).index_select(0, places))
        latents.append(places.sub_(torch.repeat_interleave(starts[:-1], counts[-1], output_size=len(places))))
    offsets = torch.zeros(len(inputs) + 1, dtype=torch.int64, device=inputs.device)
    if counts:
        torch.cumsum(torch.cat(counts), 0, out=offsets[1:])
    return SparseCodes(torch.cat(latents), torch.cat(values), offsets, width)


def places_of(mask: Tensor) -> Tensor:
    """Where a mask is true, int64, ascending, counted along its memory."""
    if mask.device.type == "cpu":
        # Several times faster than torch's on masks with few true values.
        return torch.from_numpy(np.flatnonzero(mask.view(-1).numpy()))
    return mask.view(-1).nonzero()[:, 0]


def largest_of_rows(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns (n, k) of the k largest of each row (n, width), in no order.

    Rows are wide and k is small, so most columns are ruled out by a cheap test: columns form teams, and the k largest
    are members of the k teams with the largest maxima. The teams are found in the same way.
    """
    n, width = block.shape
    teams = width // _TEAM
    if width % _TEAM or teams < _TEAMS_PER_WINNER * k or block.device.type != "cpu":
        values, columns = torch.topk(block, k, dim=1, sorted=False)
        return values, columns
    members = block.view(n, _TEAM, teams)
    best = largest_of_rows(members.amax(1), k)[1]
    candidates = members.gather(2, best.unsqueeze(1).expand(n, _TEAM, k)).view(n, -1)
    values, found = torch.topk(candidates, k, dim=1, sorted=False)
    return values, best.gather(1, found % k).add_(found.div_(k, rounding_mode="floor"), alpha=teams)


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
            values[part], latents[part] = largest_of_rows(block, k)
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
    buffer = inputs.new_empty(min(BLOCK, len(inputs)), width)
    mask = torch.empty_like(buffer, dtype=torch.bool)
    for number, part in enumerate(inputs.split(BLOCK)):
        block = torch.addmm(encoder_bias, part, encoder.T, out=buffer[: len(part)])
        found = places_of(torch.gt(block, least, out=mask[: len(part)]))
        values.append(block.view(-1).index_select(0, found))
        places.append(found.add_(number * BLOCK * width))
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
