"""Which pre-activations become codes, found block for block: those of a whole batch never exist at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from visae.products import linear
from visae.sae.variants.sparse import SparseCodes, offsets_of

# Tokens whose pre-activations exist at once: enough for a matrix product to be fast.
BLOCK = 1024
_BLOCK_ON_GPU = 2048
# Latents of which the largest alone is looked at first when the k largest are wanted.
_TEAM = 8
# With fewer teams than this times k, most of them would be looked into anyway.
_TEAMS_PER_WINNER = 2


def blocks(inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pre-activations (m, width) of one block of tokens after the other; each lives until the next is asked for.

    Under autocast the product is made in its type, and what comes out is float32 again.

    Parameters
    ----------
    inputs, encoder, encoder_bias
        (n, d_model), (width, d_model), (width,).
    """
    device = inputs.device.type
    size = BLOCK if device == "cpu" else _BLOCK_ON_GPU
    buffer = inputs.new_empty(min(size, len(inputs)), len(encoder))
    narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if narrow is not None:
        encoder = encoder.to(narrow)
    for first in range(0, len(inputs), size):
        part = slice(first, first + size)
        rows = inputs[part]
        if narrow is None:
            block = linear(rows, encoder, encoder_bias, buffer[: len(rows)])
        else:
            block = torch.add(rows.to(narrow) @ encoder.T, encoder_bias, out=buffer[: len(rows)])
        yield part, block


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
    least = torch.as_tensor(least, device=inputs.device)
    counts, latents, values = [], [inputs.new_empty(0, dtype=torch.int64)], [inputs.new_empty(0)]
    for _, block in blocks(inputs, encoder, encoder_bias):
        places = places_of(block > least)
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
    if width % _TEAM or teams < _TEAMS_PER_WINNER * k:
        values, columns = torch.topk(block, k, dim=1, sorted=False)
        return values, columns
    members = block.view(n, _TEAM, teams)
    best = largest_of_rows(members.amax(1), k)[1]
    candidates = members.gather(2, best.unsqueeze(1).expand(n, _TEAM, k)).view(n, -1)
    values, found = torch.topk(candidates, k, dim=1, sorted=False)
    return values, best.gather(1, found % k).add_(found.div_(k, rounding_mode="floor"), alpha=teams)


def largest_per_token(inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, k: int) -> SparseCodes:
    """The k largest latents of each token: exactly k entries a token, in no order, cut at zero."""
    n = len(inputs)
    values = inputs.new_empty(n, k)
    latents = torch.empty(n, k, dtype=torch.int64, device=inputs.device)
    for part, block in blocks(inputs, encoder, encoder_bias):
        values[part], latents[part] = largest_of_rows(block, k)
    offsets = torch.arange(0, n * k + 1, k, device=inputs.device)
    return SparseCodes(latents.view(-1), values.relu_().view(-1), offsets, len(encoder))


def largest_of_batch(
    inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, wanted: int, guess: float = 0.0
) -> SparseCodes:
    """The `wanted` largest positive pre-activations of all tokens together, latents ascending within a token.

    Parameters
    ----------
    inputs, encoder, encoder_bias
        (n, d_model), (width, d_model), (width,).
    wanted
        How many. There are fewer only where fewer are positive, and more where several are as large as the smallest of
        them, as those of a token are that a batch has twice: to keep only one would be an accident.
    guess
        Value that the smallest of them is expected to be above. It decides how much is looked at, never the result.
    """
    width = len(encoder)
    places, values = _candidates(inputs, encoder, encoder_bias, wanted, guess)
    if guess > 0 and len(values) < wanted:
        places, values = _candidates(inputs, encoder, encoder_bias, wanted, 0.0)
    places, values = _largest(places, values, wanted)
    return SparseCodes(places % width, values, offsets_of(places // width, len(inputs)), width)


def _candidates(
    inputs: Tensor, encoder: Tensor, encoder_bias: Tensor, wanted: int, least: float
) -> tuple[Tensor, Tensor]:
    """Places (token x width + latent), ascending, and values above `least`; cut to the largest when they are many."""
    places, values = [inputs.new_empty(0, dtype=torch.int64)], [inputs.new_empty(0)]
    for part, block in blocks(inputs, encoder, encoder_bias):
        found = places_of(block > least)
        values.append(block.view(-1).index_select(0, found))
        places.append(found.add_(part.start * len(encoder)))
        if sum(map(len, values)) > 4 * wanted:
            kept = _largest(torch.cat(places), torch.cat(values), wanted)
            places, values = [kept[0]], [kept[1]]
            # The next smaller number: what equals the smallest is looked at too.
            least = float(torch.nextafter(kept[1].min(), kept[1].new_zeros(())))
    return torch.cat(places), torch.cat(values)


def _largest(places: Tensor, values: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
    """Those that are at least as large as the `wanted`-th largest value, in their order."""
    if len(values) <= wanted:
        return places, values
    kept = places_of(values >= values.topk(wanted, sorted=False).values.min())
    return places[kept], values[kept]
