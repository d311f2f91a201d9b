"""Dictionaries beside the tested one, of which latents are chosen in the same way: raw neurons, and untrained ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from visae.activations.store import ActivationStore, Kinds
from visae.arms.targets import targets_by_patches
from visae.features.concepts import Labels
from visae.sae import SparseAutoencoder
from visae.sae.variants.baselines import Baseline, Neurons, Pca, Random
from visae.tasks.counts import Target
from visae.tasks.task import Gradients

# Patches of the selection split that are held in memory; of a larger split pictures are drawn.
MOST_PATCHES = 200_000
_CHUNK = 8192


@dataclass(frozen=True)
class LabelledPatches:
    """Patches of the selection split that carry one class.

    Attributes
    ----------
    rows
        (n, d_model) raw activations, as they are stored.
    picture, token
        (n,) place in the split, and patch.
    labels
        Classes of those patches; all others have none.
    classes
        Class id to name, in the order of class numbers.
    """

    rows: Tensor
    picture: NDArray[np.int64]
    token: NDArray[np.int64]
    labels: Labels
    classes: Mapping[int, str]

    @property
    def numbers(self) -> NDArray[np.integer]:
        """(n,) class number of each patch."""
        return self.labels.classes[self.picture, self.token]

    def difference(self, number: int, device: torch.device) -> Tensor:
        """Mean patch of a class minus that of all other classes, (d_model,)."""
        own = torch.from_numpy(self.numbers == number)
        inside, outside = (self.rows[chosen].to(device, torch.float32).mean(dim=0) for chosen in (own, ~own))
        return inside - outside


def labelled_patches(
    store: ActivationStore, labels: Labels, classes: Mapping[int, str], seed: int, kinds: Kinds = "patches"
) -> LabelledPatches:
    """Read the labelled tokens of a kind of a split, or of so many of its pictures that there are MOST_PATCHES."""
    order = np.random.default_rng([seed, 4]).permutation(len(labels.pictures))
    enough = np.cumsum(labels.by_picture()[order]) - labels.by_picture()[order] < MOST_PATCHES
    chosen = np.sort(order[enough])
    kept = np.full_like(labels.classes, -1)
    kept[chosen] = labels.classes[chosen]
    parts = []
    for number, patches in zip(chosen, store.each(chosen + labels.pictures.start, kinds), strict=True):
        # Stored values are at most as precise, and half as large.
        parts.append(patches[torch.from_numpy(kept[number] >= 0)].to(getattr(torch, store.dtype)))
    rows = torch.cat(parts) if parts else torch.empty(0, store.d_model)
    picture, token = np.nonzero(kept >= 0)
    return LabelledPatches(rows, picture, token, Labels(labels.pictures, kept, labels.n_classes), classes)


def neurons(sae: SparseAutoencoder, k: int, middle: Tensor | None = None) -> SparseAutoencoder:
    """Raw neurons in the units of an SAE: latent i is dimension i above its mean, d_model + i below.

    `middle` is that mean where the SAE's normalization does not centre; see `mean_input`.
    """
    unit = torch.eye(sae.d_model)
    return _dictionary(sae, torch.cat([unit, -unit]), Neurons(min(k, 2 * sae.d_model)), middle)


@torch.inference_mode()
def principal_components(sae: SparseAutoencoder, k: int, rows: Tensor, middle: Tensor) -> SparseAutoencoder:
    """Principal components of tokens (n, d_model) in the units of an SAE: latent i is one, d_model + i its negative.

    `middle` is their mean there, 0 where the SAE's normalization centres; see `mean_input`.
    """
    inputs = sae.unclamped(rows.to(middle.device, torch.float32)) - middle
    rule = Pca(min(k, 2 * sae.d_model))
    components, _ = rule.encodings(inputs.cpu(), 2 * sae.d_model, None, 0)
    return _dictionary(sae, components, rule, middle)


def untrained_dictionaries(
    sae: SparseAutoencoder, k: int, n: int, seed: int, middle: Tensor | None = None
) -> Iterator[SparseAutoencoder]:
    """Dictionaries as wide as an SAE with directions drawn evenly from the sphere: what the variant `random` is."""
    for number in range(n):
        own_seed = int(np.random.SeedSequence([seed, number, 7]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(own_seed)
        yield _dictionary(sae, normalize(torch.randn(sae.width, sae.d_model, generator=generator)), Random(k), middle)


@torch.inference_mode()
def mean_input(sae: SparseAutoencoder, rows: Tensor) -> Tensor:
    """Mean of tokens (n, d_model) in the units of an SAE, (d_model,), on its device; 0 where they are centred there."""
    device = sae.decoder_bias.device
    total = torch.zeros(sae.d_model, dtype=torch.float64, device=device)
    if not sae.centres:
        for part in rows.split(_CHUNK):
            total += sae.unclamped(part.to(device, torch.float32)).sum(dim=0, dtype=torch.float64)
    return (total / max(1, len(rows))).float()


def _dictionary(sae: SparseAutoencoder, rows: Tensor, rule: Baseline, middle: Tensor | None) -> SparseAutoencoder:
    """Dictionary with rows (width, d_model) in the units of an SAE, of tokens whose mean there is `middle`."""
    dictionary = SparseAutoencoder(sae.d_model, len(rows), rule, normalization=sae.normalization)
    empty = torch.zeros(len(rows)), torch.zeros(sae.d_model)
    parts = {"encoder_weight": rows, "decoder_weight": rows, "encoder_bias": empty[0], "decoder_bias": empty[1]}
    own = dictionary.state_dict()
    units = {name: tensor for name, tensor in sae.state_dict().items() if name in own and name not in parts}
    dictionary.load_state_dict({**parts, **units})
    dictionary.place = sae.place
    dictionary = dictionary.requires_grad_(False).to(sae.decoder_bias.device)
    if middle is not None and not sae.centres:
        rule.shift(dictionary.weights, middle)
    return dictionary


@torch.inference_mode()
def codes_of(dictionary: SparseAutoencoder, patches: LabelledPatches) -> pl.DataFrame:
    """Codes of labelled patches, as `scan_codes` gives them."""
    device, parts = dictionary.decoder_bias.device, []
    for start in range(0, len(patches.rows), _CHUNK):
        codes = dictionary.sparse_codes(patches.rows[start : start + _CHUNK].to(device, torch.float32))
        place = codes.tokens.cpu().numpy() + start
        parts.append(
            pl.DataFrame(
                {
                    "image_id": (patches.picture[place] + patches.labels.pictures.start).astype(np.int32),
                    "token": patches.token[place].astype(np.int16),
                    "latent": codes.latents.cpu().numpy().astype(np.int32),
                    "value": codes.values.cpu().numpy(),
                }
            )
        )
    return pl.concat(parts)


def best_latents(
    dictionary: SparseAutoencoder, patches: LabelledPatches, by: str, n_latents: int, gradients: Gradients
) -> list[Target]:
    """Latents of a dictionary for each class, by `f1`, `auc` or `gradient`; `gradients` are for the last only."""
    if by == "gradient":
        return targets_by_gradient(dictionary, gradients, patches.classes, n_latents)
    codes = codes_of(dictionary, patches).lazy()
    everything = range(dictionary.width)
    return targets_by_patches(lambda: iter([(everything, codes)]), patches.labels, patches.classes, by, n_latents)


@torch.inference_mode()
def targets_by_gradient(
    dictionary: SparseAutoencoder, gradients: Gradients, classes: Mapping[int, str], n_latents: int
) -> list[Target]:
    """Latents whose value times the gradient along their direction is largest, in the mean over a class's patches.

    To first order that is how much of the class's log odds would go with the latent.
    """
    targets, names = [], list(classes.items())
    for number, (rows, slopes) in sorted(gradients.items()):
        attributed = attribution(dictionary, rows, slopes)
        score, latents = attributed.topk(min(n_latents, len(attributed)))
        best = tuple(latents[score > 0].tolist())
        if best:
            targets.append(Target(*names[number], best, float(score[0])))
    return targets


def attribution(dictionary: SparseAutoencoder, rows: Tensor, slopes: Tensor) -> Tensor:
    """Mean over rows (n, d_model) of each latent's value times the slope (n, d_model) along its direction, (width,)."""
    return (dictionary.encode(rows) * dictionary.along(slopes, like=rows)).mean(dim=0)
