"""What an arm adds to a patch at a scale: latents or a coordinate set to a value, a reconstruction, a vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from visae.edits.edit import of_length
from visae.sae import SparseAutoencoder

_CHUNK = 2048


@dataclass(frozen=True)
class Situation:
    """Tokens to edit: patches mostly.

    Attributes
    ----------
    rows
        (n, d_model) their raw activations.
    values
        (n, m) their codes of all latents that some arm edits.
    columns
        Latent to its column of `values`.
    """

    sae: SparseAutoencoder
    rows: Tensor
    values: Tensor
    columns: Mapping[int, int]


class Change(Protocol):
    """What an edit adds to each patch."""

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """Change (n, d_model) at a scale."""


@dataclass(frozen=True)
class Reconstruction:
    """The patches as the sparse autoencoder reconstructs them: what its error alone would do."""

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """Minus the error."""
        sae, parts = situation.sae, situation.rows.split(_CHUNK)
        return torch.cat([sae.decode(sae.sparse_codes(part), like=part) - part for part in parts])


@dataclass(frozen=True)
class SetLatents:
    """Latents set to `scale` times their largest values, (m,), on the selection split."""

    latents: tuple[int, ...]
    largest: tuple[float, ...]

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """New minus old value, along the latents' directions."""
        old = situation.values[:, [situation.columns[latent] for latent in self.latents]]
        new = scale * torch.tensor(self.largest, device=old.device).expand_as(old)
        return situation.sae.change(new - old, self.latents, like=situation.rows)


@dataclass(frozen=True, eq=False)
class SetCoordinate:
    """A direction treated as if it were a latent.

    A patch's coordinate is how far it is along the unit vector (d_model,) from the mean of the selection split. It is
    set to `scale` times the largest coordinate there.

    Attributes
    ----------
    mean, largest
        Of `rows @ vector` on the selection split: its mean, and its largest value above the mean.
    """

    vector: Tensor
    mean: float
    largest: float

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """New minus old coordinate, along the vector."""
        old = situation.rows @ self.vector - self.mean
        return (scale * self.largest - old)[:, None] * self.vector


@dataclass(frozen=True, eq=False)
class AddVector:
    """A vector (d_model,) that is added as it is, whatever the scale.

    Attributes
    ----------
    latents, dictionary
        Where given, the vector is added only where one of the dictionary's latents is active.
    """

    vector: Tensor
    latents: tuple[int, ...] = ()
    dictionary: SparseAutoencoder | None = None

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """The vector, or zero."""
        change = self.vector.expand_as(situation.rows)
        if self.dictionary is None:
            return change
        active = (self.dictionary.latent_values(situation.rows, list(self.latents)) > 0).any(dim=1, keepdim=True)
        return change * active


@dataclass(frozen=True, eq=False)
class AsLong:
    """A change whose length on each patch is that of another one."""

    change: Change
    other: Change

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """Direction of the one, length of the other."""
        lengths = self.other(situation, scale).norm(dim=1, keepdim=True)
        # A latent that is silent and set to 0 changes nothing; a lower value is where it would go.
        return of_length(self.change(situation, scale), lengths, self.change(situation, min(scale, -1.0)))


@dataclass(frozen=True, eq=False)
class Together:
    """Changes added to each other."""

    parts: tuple[Change, ...]

    def __call__(self, situation: Situation, scale: float) -> Tensor:
        """Their sum."""
        return torch.stack([part(situation, scale) for part in self.parts]).sum(dim=0)


Draws = Mapping[str, Sequence[Change]]
"""The draws of each arm of one class, by the arm's name; the automatic arm is one of them, no edit needs no draw."""


def situation(sae: SparseAutoencoder, rows: Tensor, draws: Draws) -> Situation:
    """Describe rows (n, d_model) to the draws of all arms."""
    latents = sorted({latent for changes in draws.values() for change in changes for latent in _latents(change)})
    columns = {latent: column for column, latent in enumerate(latents)}
    # To encode everything for no latent at all would only take time.
    values = sae.latent_values(rows, latents) if latents else rows.new_zeros(len(rows), 0)
    return Situation(sae, rows, values, columns)


def _latents(change: Change) -> Iterator[int]:
    """Latents that a change sets, those of its parts included."""
    if isinstance(change, SetLatents):
        yield from change.latents
    elif isinstance(change, AsLong):
        yield from _latents(change.change)
        yield from _latents(change.other)
    elif isinstance(change, Together):
        for part in change.parts:
            yield from _latents(part)
