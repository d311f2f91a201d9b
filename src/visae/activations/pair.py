"""Two stores of the same tokens, read in step: what goes into a transcoder and what shall come out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from visae.activations.schema import DTYPES
from visae.activations.store import ActivationStore, Kinds
from visae.errors import StoreError


class StorePair:
    """A store whose rows have another store's behind them; `ShuffledReader` takes it for one store.

    Parameters
    ----------
    store, target
        Of the same pictures, tokens and splits; `d_model` may differ.

    Raises
    ------
    StoreError
        If their rows do not belong to each other.
    """

    def __init__(self, store: ActivationStore, target: ActivationStore) -> None:
        for name in ("n_images", "splits", "choice"):
            one, other = getattr(store, name), getattr(target, name)
            if one != other:
                raise StoreError(
                    f"target_layer: {target.folder} does not have the tokens of {store.folder}: {name} differs "
                    f"({_short(other)}, not {_short(one)})"
                )
        pictures = [one.manifest.get("index_sha256") for one in (store, target)]
        if None not in pictures and pictures[0] != pictures[1]:
            raise StoreError(f"target_layer: {target.folder} is of other pictures than {store.folder}")
        self.store, self.target = store, target
        self.folder, self.splits, self.choice = store.folder, store.splits, store.choice
        self.d_model = store.d_model + target.d_model
        self.dtype = store.dtype if store.dtype == target.dtype else "float32"

    def groups(self, images: range) -> list[tuple[int, int, range]]:
        """Row groups of the first store that hold the pictures; see `ActivationStore.groups`."""
        return self.store.groups(images)

    def n_tokens(self, kinds: Kinds) -> int:
        """Stored tokens of that kind in a picture."""
        return self.store.n_tokens(kinds)

    def read_group(self, shard: int, group: int, wanted: range, kinds: Kinds) -> torch.Tensor:
        """Values (n_images, n_tokens, d_model of both); the target's groups and shards may be cut otherwise."""
        rows = self.store.read_group(shard, group, wanted, kinds)
        target = self.target.read(wanted, kinds)
        return torch.cat([rows.to(DTYPES[self.dtype]), target.to(DTYPES[self.dtype])], 2)


def paired(stores: list[ActivationStore], targets: list[ActivationStore]) -> Sequence[StorePair]:
    """Each store with its target; raises StoreError where they do not go together."""
    if len(stores) != len(targets):
        raise StoreError(f"target_layer: {len(targets)} target stores for {len(stores)} stores; give one for each")
    return [StorePair(*pair) for pair in zip(stores, targets, strict=True)]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}..."
