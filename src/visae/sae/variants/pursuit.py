"""Matching pursuit, as files of overcomplete have it: latents are chosen one after the other, by what is left over.

Encoder rows are the atoms, and decoder rows the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visae.sae.variants.given_rule import GivenRule

# Steps of the projected gradient that fits the codes of the chosen atoms, and the slope at which it stops.
_STEPS, _FLAT = 10, 1e-5


class MatchingPursuit(GivenRule):
    """k times, the atom with the largest product with what is left takes that product, and it is subtracted.

    An atom may be chosen again, and a code is below zero where no product was above.

    Parameters
    ----------
    k
        Number of choices.
    """

    name = "matching_pursuit"

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def options(self) -> dict[str, Any]:
        """Return k."""
        return {"k": self.k}

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model)."""
        codes, left = inputs.new_zeros(len(inputs), len(encoder)), inputs
        for _ in range(self.k):
            values, chosen = (left @ encoder.T).max(dim=1, keepdim=True)
            codes = codes.scatter_add(1, chosen, values)
            left = left - values * encoder[chosen[:, 0]]
        return codes


class OrthogonalMatchingPursuit(MatchingPursuit):
    """k atoms, each the one with the largest product with what those before leave; codes are fitted anew each time.

    The fit is a few steps of a projected gradient to codes that are not negative, from those of before: it is not
    followed to its end, and the number of steps is part of the rule. Tokens that are encoded together stop together.

    Parameters
    ----------
    k
        Number of atoms.
    """

    name = "orthogonal_matching_pursuit"

    def dense(self, inputs: Tensor, encoder: Tensor, encoder_bias: Tensor) -> Tensor:
        """Codes (n, width) of normalized inputs (n, d_model)."""
        codes, left = inputs.new_zeros(len(inputs), len(encoder)), inputs
        chosen = torch.empty(len(inputs), 0, dtype=torch.int64, device=inputs.device)
        for _ in range(self.k):
            products = (left @ encoder.T).scatter(1, chosen, -torch.inf)
            chosen = torch.cat([chosen, products.argmax(1, keepdim=True)], 1)
            fitted = _fitted(encoder[chosen], inputs, codes.gather(1, chosen))
            codes = codes.scatter(1, chosen, fitted)
            left = inputs - codes @ encoder
        return codes


def _fitted(atoms: Tensor, inputs: Tensor, codes: Tensor) -> Tensor:
    """Codes (n, m), none negative, that bring atoms (n, m, d) nearer to inputs (n, d)."""
    products, overlaps = torch.einsum("nmd,nd->nm", atoms, inputs), atoms @ atoms.mT
    rate = 1 / (torch.linalg.matrix_norm(overlaps).unsqueeze(1) + 1e-8)
    for _ in range(_STEPS):
        slope = torch.einsum("nml,nl->nm", overlaps, codes) - products
        codes = (codes - rate * slope).clamp(min=0)
        if float(torch.linalg.vector_norm(slope)) < _FLAT:
            break
    return codes
