"""Code rules that are read from files of other projects, and that nothing here trains."""

from __future__ import annotations

import torch
from torch import Tensor

from visae.sae.variants.selection import BLOCK, places_of
from visae.sae.variants.sparse import SparseCodes, offsets_of
from visae.sae.variants.variant import Variant


class GivenRule(Variant):
    """A rule whose sparse codes are what its dense ones have, block of tokens after block."""

    def sparse(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> SparseCodes:
        """Codes of normalized inputs (n, d_model), latents ascending within a token, zeros left out."""
        width, latents, tokens, values = len(encoder), [], [], []
        for first in range(0, max(1, len(inputs)), BLOCK):
            codes = self.dense(inputs[first : first + BLOCK], encoder, encoder_bias)
            places = places_of(codes != 0)
            values.append(codes.reshape(-1).index_select(0, places))
            latents.append(places % width)
            tokens.append(first + places // width)
        offsets = offsets_of(torch.cat(tokens), len(inputs))
        return SparseCodes(torch.cat(latents), torch.cat(values), offsets, width)
