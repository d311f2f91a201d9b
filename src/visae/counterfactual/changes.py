"""How far the codes of latents, and the network's own activations, change from a picture to its counterfactual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.data.images import Preprocessing
from visae.data.paired import Pair
from visae.progress import progress_bar
from visae.sae import SparseAutoencoder


@dataclass(frozen=True)
class Scene:
    """A base picture, and all pictures that differ from it in one cause.

    Attributes
    ----------
    name
        Of the pairs.
    rows
        Number of each pair among all of the split, in the order of `pairs`.
    """

    name: str
    pairs: tuple[Pair, ...]
    rows: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        """Image ids, the base first."""
        return [self.pairs[0].base, *(pair.changed for pair in self.pairs)]


def scenes_of(pairs: Sequence[Pair], split: str) -> list[Scene]:
    """Group the pairs of a split by their base, in their order."""
    found: dict[str, list[tuple[int, Pair]]] = {}
    for row, pair in enumerate(pair for pair in pairs if pair.split == split):
        found.setdefault(pair.name, []).append((row, pair))
    return [Scene(name, tuple(pair for _, pair in own), tuple(row for row, _ in own)) for name, own in found.items()]


@dataclass
class Changes:
    """What changes in the pairs of a split; rows are pairs.

    Attributes
    ----------
    scene
        (n_pairs,) number of the base.
    cause
        (n_pairs,) number of the cause.
    whole
        (n_pairs, width) change of the mean code of the picture, without its sign: |mean over tokens of changed - base|.
    inside, outside
        (n_pairs, width) mean over the tokens in and out of the region of |changed - base|; NaN where there are none.
    network
        (n_pairs, 3) the same three of the raw activations, with norms in place of absolute values.
    pictures
        (width,) pictures in which each latent is active.
    spread
        (width,) standard deviation of the mean code over base pictures.
    network_spread
        Root mean squared distance of the base pictures' mean activation from their mean.
    l0
        Codes a token.
    """

    scene: NDArray[np.int64]
    cause: NDArray[np.int64]
    whole: NDArray[np.float32]
    inside: NDArray[np.float32]
    outside: NDArray[np.float32]
    network: NDArray[np.float32]
    pictures: NDArray[np.int64]
    spread: NDArray[np.float64]
    network_spread: float
    l0: float


class PairTokens:
    """The stored tokens of a split's scenes, and which of them lie in the region of each pair.

    Parameters
    ----------
    store
        Activations of the data set at the layer.
    pairs
        All of the data set.
    causes
        Their names, in the order in which `Changes` numbers them.
    seen, grid
        The model's card, or None where the activations were given, and patches down and across.
    kind
        Tokens that the dictionaries are of.
    """

    def __init__(
        self,
        store: ActivationStore,
        pairs: Sequence[Pair],
        causes: Sequence[str],
        split: str,
        seen: Preprocessing,
        grid: tuple[int, int],
    ) -> None:
        self.store, self.split = store, split
        self.scenes = scenes_of(pairs, split)
        self.cause = np.array([causes.index(pair.cause) for pair in pairs if pair.split == split], dtype=np.int64)
        self.scene = np.empty(len(self.cause), dtype=np.int64)
        self.shares = np.empty((len(self.cause), grid[0] * grid[1]), dtype=np.float32)
        for number, scene in enumerate(self.scenes):
            for row, pair in zip(scene.rows, scene.pairs, strict=True):
                self.scene[row] = number
                self.shares[row] = pair.share_of_patches(seen, grid)

    def tokens(self, scene: Scene, kind: str) -> Tensor:
        """Tokens (1 + n_pairs, n_tokens, d_model) of a scene, the base first; memory holds one scene."""
        ids = np.array(scene.ids)
        order = np.argsort(ids)
        found = torch.stack(list(self.store.each(ids[order], kind)))  # type: ignore[arg-type]
        return found[torch.from_numpy(np.argsort(order))]

    def inside(self, row: int, n_tokens: int, kind: str) -> NDArray[np.float32]:
        """Share of each token that lies in the region of a pair, (n_tokens,); tokens before the patches lie in none.

        A class token stands for the whole picture: of an SAE of class tokens, it is inside.
        """
        if kind == "class":
            return np.ones(n_tokens, dtype=np.float32)
        return np.concatenate([np.zeros(n_tokens - self.shares.shape[1], dtype=np.float32), self.shares[row]])


@torch.inference_mode()
def measured_changes(tokens: PairTokens, dictionary: SparseAutoencoder, batch_tokens: int = 4096) -> Changes:
    """Encode every picture once and measure all latents of a dictionary on all pairs of a split.

    Memory grows with pairs times latents, 12 bytes each, and with no other number: the tests are made on the values of
    single pairs.
    """
    kind, device = dictionary.place.tokens, dictionary.decoder_bias.device
    n, width = len(tokens.cause), dictionary.width
    values = {name: np.full((n, width), np.nan, dtype=np.float32) for name in ("whole", "inside", "outside")}
    network = np.full((n, 3), np.nan, dtype=np.float32)
    pictures, bases, raw, n_codes, n_tokens = np.zeros(width, dtype=np.int64), [], [], 0, 0
    with progress_bar(len(tokens.scenes), f"pairs of {tokens.split}", "scenes") as bar:
        for scene in tokens.scenes:
            rows = tokens.tokens(scene, kind).to(device)
            codes = torch.cat([dictionary.encode(part) for part in _parts(rows, batch_tokens)])
            pictures += (codes > 0).any(dim=1).sum(dim=0).cpu().numpy()
            n_codes, n_tokens = n_codes + int((codes > 0).sum()), n_tokens + codes.shape[0] * codes.shape[1]
            mean, mean_raw = codes.mean(dim=1, dtype=torch.float64), rows.mean(dim=1, dtype=torch.float64)
            bases.append(mean[0].cpu().numpy())
            raw.append(mean_raw[0].cpu().numpy())
            for place, row in enumerate(scene.rows, start=1):
                share = torch.from_numpy(tokens.inside(row, codes.shape[1], kind)).to(device)
                by_token = (codes[place] - codes[0]).abs()
                lengths = (rows[place] - rows[0]).norm(dim=1, keepdim=True)
                values["whole"][row] = (mean[place] - mean[0]).abs().cpu().numpy()
                network[row, 0] = float((mean_raw[place] - mean_raw[0]).norm())
                for number, (name, weight) in enumerate((("inside", share), ("outside", 1 - share)), start=1):
                    total = float(weight.sum())
                    if total > 0:
                        values[name][row] = (weight @ by_token / total).cpu().numpy()
                        network[row, number] = float(weight @ lengths[:, 0]) / total
            bar.update()
    of_bases, of_raw = np.array(bases), np.array(raw)
    return Changes(
        scene=tokens.scene,
        cause=tokens.cause,
        **values,
        network=network,
        pictures=pictures,
        spread=of_bases.std(axis=0),
        network_spread=float(np.sqrt(of_raw.var(axis=0).sum())),
        l0=n_codes / max(n_tokens, 1),
    )


def _parts(rows: Tensor, batch_tokens: int) -> Iterator[Tensor]:
    """Pictures (b, n_tokens, d_model) of so many tokens that their dense codes fit."""
    yield from rows.split(max(1, batch_tokens // rows.shape[1]))
