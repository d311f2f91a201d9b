"""Sets of latents that together lie along what a class is read from, chosen on split train by slopes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from visae.arms.selection import Selection, own_slopes
from visae.sae import SparseAutoencoder

# Tokens of a class that sets are chosen on; their dense codes exist at once.
_MOST_ROWS = 1024
# By what part the share has to grow for a latent to be taken: more than rounding.
_LEAST = 1e-6


@dataclass(frozen=True)
class Slopes:
    """Tokens of a class's own units on split train, and the gradient of its log odds there, (n, d_model) each."""

    rows: Tensor
    gradients: Tensor

    @property
    def direction(self) -> Tensor:
        """Unit vector (d_model,) along which the class is read, in the mean."""
        return normalize(self.gradients.mean(dim=0), dim=0)


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Latents of a dictionary in the order in which they were taken.

    Attributes
    ----------
    largest
        Value of each of which edits are multiples.
    expected
        Estimated share of the direction's effect, at the same length, of the first latent, the first two and so on.
    lengths
        How far the change is, in root mean square over tokens of the class, of the first latent, the first two and so
        on.
    """

    dictionary: SparseAutoencoder
    latents: tuple[int, ...]
    largest: tuple[float, ...]
    expected: tuple[float, ...]
    lengths: tuple[float, ...]

    def first(self, size: int) -> LatentSet:
        """Return the first latents."""
        return LatentSet(
            self.dictionary, self.latents[:size], self.largest[:size], self.expected[:size], self.lengths[:size]
        )

    @property
    def total(self) -> Tensor:
        """Sum of the latents' directions times their largest values, (d_model,), in units of the decoder's rows."""
        rows = self.dictionary.raw_rows()[list(self.latents)]
        return torch.tensor(self.largest, device=rows.device, dtype=rows.dtype) @ rows


def class_slopes(selection: Selection, number: int, n_pictures: int) -> Slopes | None:
    """Slopes on so many pictures of a class, by number, of the selection split; None without a picture of it."""
    parts = [own_slopes(selection.task, tokens, number, own) for tokens, own in selection.units(number, n_pictures)]
    if not parts:
        return None
    rows, gradients = (torch.cat(values) for values in zip(*parts, strict=True))
    if not len(rows):
        return None
    drawn = np.random.default_rng([selection.seed, number, 24]).permutation(len(rows))[:_MOST_ROWS]
    chosen = torch.from_numpy(np.sort(drawn)).to(rows.device)
    return Slopes(rows[chosen], gradients[chosen])


@dataclass(frozen=True, eq=False)
class Proposal:
    """Latents that a set may be made of.

    Attributes
    ----------
    largest
        Value of each of which edits are multiples.
    codes
        (n, m) of the tokens that the set is chosen on.
    """

    dictionary: SparseAutoencoder
    latents: Sequence[int]
    largest: Sequence[float]
    codes: Tensor

    @classmethod
    def of(
        cls, dictionary: SparseAutoencoder, slopes: Slopes, latents: Sequence[int], largest: Sequence[float]
    ) -> Proposal:
        """Propose given latents."""
        return cls(dictionary, latents, largest, dictionary.latent_values(slopes.rows, list(latents)))


@torch.inference_mode()
def proposed(dictionary: SparseAutoencoder, slopes: Slopes, most: int) -> Proposal:
    """Latents of any dictionary that support a class most by the estimate, with their largest values on its tokens."""
    codes = dictionary.encode(slopes.rows)
    score = (codes * dictionary.along(slopes.gradients, like=slopes.rows)).mean(dim=0)
    score, latents = score.topk(min(most, len(score)))
    latents = latents[score > 0]
    kept = codes[:, latents]
    largest = kept.amax(dim=0).tolist() if len(latents) else []
    return Proposal(dictionary, latents.tolist(), largest, kept)


@torch.inference_mode()
def chosen_set(slopes: Slopes, proposal: Proposal, most: int, scale: float) -> LatentSet | None:
    """Take latents one after the other, each the one with which the set does most for its length.

    Were latents set to `scale` times their largest values, token p would move by c_p = sum_i (scale L_i - a_pi) d_i,
    and the class's log odds would change, to first order, by the mean of <g_p, c_p>. The direction that the class is
    read from changes them, as long in root mean square, by that length times the norm of the mean gradient. The ratio
    of both is the share that a set is expected to reach. It is taken greedily; what would lower it is left out.

    Parameters
    ----------
    most
        Latents of the set.
    scale
        0 or below.

    Returns
    -------
    LatentSet
        None where no candidate lowers the log odds.
    """
    latents, largest = proposal.latents, proposal.largest
    if not len(latents):
        return None
    effects, products = _effects_and_products(slopes, proposal, scale)
    norm = float(slopes.gradients.mean(dim=0).norm())
    taken: list[int] = []
    expected: list[float] = []
    while len(taken) < min(most, len(latents)):
        left = [place for place in range(len(latents)) if place not in taken]
        shares = [_share(effects, products, [*taken, place], norm) for place in left]
        best = int(np.argmax(shares))
        if shares[best] <= (1 + _LEAST) * (expected[-1] if expected else 0.0):
            break
        taken.append(left[best])
        expected.append(shares[best])
    if not taken:
        return None
    own, values = tuple(latents[place] for place in taken), tuple(largest[place] for place in taken)
    lengths = tuple(_length(products, taken[: size + 1]) for size in range(len(taken)))
    return LatentSet(proposal.dictionary, own, values, tuple(expected), lengths)


def _share(effects: NDArray[np.float64], products: NDArray[np.float64], places: list[int], norm: float) -> float:
    """Expected share of a set, by the places of its latents."""
    length = _length(products, places)
    return float(-effects[places].sum() / (length * norm)) if length > 0 and norm > 0 else 0.0


def _length(products: NDArray[np.float64], places: list[int]) -> float:
    """Root mean square length of the change of a set."""
    return float(np.sqrt(max(products[np.ix_(places, places)].sum(), 0.0)))


def _effects_and_products(
    slopes: Slopes, proposal: Proposal, scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimated change of the log odds by each latent's change, (m,), and mean products of any two changes, (m, m)."""
    dictionary, codes = proposal.dictionary, proposal.codes
    rows_of = dictionary.raw_rows() if dictionary.needs_like else dictionary.directions()
    chosen = rows_of[list(proposal.latents)]
    change = scale * torch.tensor(list(proposal.largest), device=codes.device, dtype=codes.dtype) - codes
    if dictionary.needs_like:
        change = change * dictionary.output_scale_of(slopes.rows)
    effects = (change * (slopes.gradients @ chosen.T)).mean(dim=0, dtype=torch.float64)
    products = (change.T @ change).double() / len(change) * (chosen @ chosen.T).double()
    return effects.cpu().numpy(), products.cpu().numpy()
