"""The dictionaries that are measured on counterfactual pairs: those of a study, and others beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visae.arms.dictionaries import mean_input, neurons, principal_components, untrained_dictionaries
from visae.counterfactual.changes import PairTokens
from visae.errors import StoreError
from visae.sae import SparseAutoencoder, load_sae

NEURONS, COMPONENTS, UNTRAINED = "raw neurons", "principal components", "untrained"

# Pictures of split train, evenly spaced, whose tokens stand for all where components and means are taken.
_PICTURES = 100
_CHUNK = 8192


@dataclass(frozen=True)
class Compared:
    """A dictionary by the name that it has in tables.

    Attributes
    ----------
    kind
        `study`, `neurons`, `components` or `untrained`.
    """

    name: str
    kind: str
    dictionary: SparseAutoencoder


def names_of(saes: Sequence[str]) -> list[str]:
    """Names of SAEs by the folders that their config.json lie in; whole paths where two are the same."""
    names = [Path(path).parent.name for path in saes]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, saes, strict=True)]


def opened_saes(saes: Sequence[str], d_model: int, device: torch.device) -> dict[str, SparseAutoencoder]:
    """Load the SAEs of a study; raises StoreError where one takes other activations."""
    found = {name: load_sae(path, device) for name, path in zip(names_of(saes), saes, strict=True)}
    for name, sae in found.items():
        if sae.d_model != d_model:
            raise StoreError(f"{name}: it takes activations of {sae.d_model} dimensions, the pairs' have {d_model}")
    return found


@torch.inference_mode()
def codes_a_token(sae: SparseAutoencoder, tokens: PairTokens) -> int:
    """Codes that an SAE gives a token, in the mean over base pictures; at least 1."""
    rows = _sample(tokens, sae.place.tokens)
    n = sum(len(sae.sparse_codes(part.to(sae.decoder_bias.device)).values) for part in rows.split(_CHUNK))
    return max(1, round(n / len(rows)))


def beside(sae: SparseAutoencoder, k: int, tokens: PairTokens, untrained: int, seed: int) -> Iterator[Compared]:
    """Dictionaries as sparse as an SAE: raw neurons, principal components and, as wide, untrained ones.

    Parameters
    ----------
    k
        Codes a token.
    tokens
        Of split train: of its base pictures the mean and the components are taken.
    """
    rows = _sample(tokens, sae.place.tokens)
    middle = mean_input(sae, rows)
    yield Compared(NEURONS, "neurons", neurons(sae, k, middle))
    yield Compared(COMPONENTS, "components", principal_components(sae, k, rows, middle))
    for number, dictionary in enumerate(untrained_dictionaries(sae, k, untrained, seed, middle), start=1):
        yield Compared(f"{UNTRAINED} {number}", "untrained", dictionary)


def _sample(tokens: PairTokens, kind: str) -> Tensor:
    """Tokens (n, d_model) of base pictures."""
    places = np.unique(np.linspace(0, len(tokens.scenes) - 1, _PICTURES).astype(int))
    ids = sorted(tokens.scenes[place].pairs[0].base for place in places.tolist())
    return torch.cat(list(tokens.store.each(ids, kind)))  # type: ignore[arg-type]
