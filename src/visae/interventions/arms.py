"""The arms of an experiment: one edit that is claimed to matter, and the controls that it has to beat.

All arms edit the same patches. To add one, write a function of `Situation` and scale, and list it in ARMS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from visae.interventions.edits import moved, value_change, with_rows
from visae.sae import SparseAutoencoder

_CHUNK = 2048


@dataclass(frozen=True)
class Situation:
    """Patches to edit, and what the arms edit them with.

    Attributes
    ----------
    rows
        (n, d_model) raw activations of the patches.
    values
        (n, 1 + draws) codes there of the automatic latent and of the random ones.
    largest
        (1 + draws,) the largest value of each of them on the selection split.
    directions
        (1 + draws, d_model) change of the activation per unit of each.
    vectors
        (draws, d_model) random unit vectors.
    """

    sae: SparseAutoencoder
    rows: Tensor
    values: Tensor
    largest: Tensor
    directions: Tensor
    vectors: Tensor

    def latent_change(self, which: int, scale: float) -> Tensor:
        """Change (n, d_model) when a latent is set to `scale` times its largest value."""
        old = self.values[:, which : which + 1]
        new = (scale * self.largest[which]).expand_as(old)
        return value_change(old, new, self.directions[which : which + 1])


@dataclass(frozen=True)
class Latents:
    """The automatic latent of a class, and the controls drawn for it; tensors as in `Situation`."""

    latents: list[int]
    largest: Tensor
    vectors: Tensor

    def situation(self, sae: SparseAutoencoder, rows: Tensor) -> Situation:
        """Codes of these latents on rows (n, d_model)."""
        values, directions = sae.latent_values(rows, self.latents), sae.directions()[self.latents]
        return Situation(sae, rows, values, self.largest, directions, self.vectors)


def none(situation: Situation, scale: float) -> list[Tensor]:
    """No edit: what resuming the network by itself changes, which has to be nothing."""
    return [situation.rows]


def reconstruction(situation: Situation, scale: float) -> list[Tensor]:
    """The patches as the sparse autoencoder reconstructs them: what its error alone would do."""
    sae = situation.sae
    return [torch.cat([sae.decode(sae.sparse_codes(part)) for part in situation.rows.split(_CHUNK)])]


def random_vector(situation: Situation, scale: float) -> list[Tensor]:
    """Random directions, on each patch as long as the automatic latent's change there."""
    length = situation.latent_change(0, scale).norm(dim=1, keepdim=True)
    return [moved(situation.rows, length * vector) for vector in situation.vectors]


def random_latent(situation: Situation, scale: float) -> list[Tensor]:
    """Other latents, set to the same multiple of their own largest value."""
    draws = range(1, len(situation.largest))
    return [moved(situation.rows, situation.latent_change(which, scale)) for which in draws]


def automatic(situation: Situation, scale: float) -> list[Tensor]:
    """The latent that was chosen for the class."""
    return [moved(situation.rows, situation.latent_change(0, scale))]


ARMS: dict[str, Callable[[Situation, float], list[Tensor]]] = {
    "none": none,
    "reconstruction": reconstruction,
    "random_vector": random_vector,
    "random_latent": random_latent,
    "automatic": automatic,
}
# Their edit is the same at every scale, so it is run once and reported at each.
WITHOUT_SCALE = ("none", "reconstruction")


@dataclass(frozen=True)
class Outcome:
    """What a batch looks like after one edit.

    Attributes
    ----------
    scales
        Scales that the outcome stands for.
    draws
        How many draws the arm has; shares are means over them.
    after
        What `read` gives, (b, ...).
    """

    arm: str
    scales: tuple[float, ...]
    draw: int
    draws: int
    after: Tensor


def outcomes(
    tokens: Tensor,
    patches: Tensor,
    situation: Situation,
    scales: tuple[float, ...],
    *,
    before: Tensor,
    read: Callable[[Tensor], Tensor],
) -> Iterator[Outcome]:
    """Edit a batch by every arm, scale and draw, and read the result.

    Parameters
    ----------
    tokens
        (b, n_tokens, d_model) unedited.
    patches
        bool (b, n_patches), the edited ones.
    before
        What `read(tokens)` gave.
    read
        Resumes the network from tokens and reads a head.
    """
    for arm, edit in ARMS.items():
        groups = [scales] if arm in WITHOUT_SCALE else [(scale,) for scale in scales]
        for group in groups:
            rows = edit(situation, group[0])
            for draw, changed in enumerate(rows):
                edited_tokens = with_rows(tokens, patches, changed)
                # `none` is run in full, as proof that resuming gives the same again.
                after = read(edited_tokens) if arm == "none" else _read_changed(tokens, edited_tokens, before, read)
                yield Outcome(arm, group, draw, len(rows), after)


def _read_changed(tokens: Tensor, edited_tokens: Tensor, before: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Read the pictures that an edit changed; the others give what they gave before."""
    touched = (tokens != edited_tokens).flatten(1).any(dim=1)
    if touched.all():
        return read(edited_tokens)
    after = before.clone()
    if touched.any():
        after[touched] = read(edited_tokens[touched])
    return after
