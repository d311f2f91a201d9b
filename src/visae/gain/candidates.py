"""Dictionaries that are compared, one after the other, and the latent that each chooses for a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.arms.dictionaries import (
    LabelledPatches,
    attribution,
    codes_of,
    targets_by_gradient,
    untrained_dictionaries,
)
from visae.arms.selection import GradientSelection, Selection
from visae.arms.targets import Activity, targets_by_auc, targets_by_patches
from visae.config.gain import GainSettings, Rule
from visae.features.concepts import Labels
from visae.files import read_json
from visae.gain.kinds import NEURONS, TESTED, UNTRAINED
from visae.sae import SparseAutoencoder, load_sae
from visae.tasks.counts import Target
from visae.tasks.task import Gradients

# Rows of a class on which effects are estimated.
_MOST_SLOPES = 512

Named = tuple[str, int]
"""Kind of a dictionary, and its number among its kind."""


@dataclass(frozen=True)
class Dictionaries:
    """All dictionaries of a comparison, made or read anew each time: they need not fit into memory together.

    Attributes
    ----------
    manifest
        manifest.json of those that were trained or fitted to be compared; empty for none.
    """

    selection: Selection
    settings: GainSettings
    manifest: str
    seed: int

    def each(self, most: int | None = None) -> Iterator[tuple[Named, SparseAutoencoder]]:
        """The tested one first; `most` of each kind."""
        sae, selection = self.selection.sae, self.selection
        yield (TESTED, 0), sae
        n = self.settings.untrained if most is None else min(most, self.settings.untrained)
        drawn = untrained_dictionaries(sae, selection.k, n, self.seed, self.middle)
        for number, dictionary in enumerate(drawn):
            yield (UNTRAINED, number), dictionary
        yield (NEURONS, 0), selection.neurons()
        for kind, number, config in self.made:
            if most is None or number < most:
                yield (kind, number), load_sae(config, sae.decoder_bias.device)

    @property
    def made(self) -> list[tuple[str, int, Path]]:
        """Kind, number and config.json of those that were trained or fitted."""
        if not self.manifest:
            return []
        folder = Path(self.manifest).parent
        listed = read_json(self.manifest)["dictionaries"]
        return [(one["kind"], one["number"], folder / one["folder"] / "config.json") for one in listed]

    @property
    def count(self) -> int:
        """How many there are."""
        return 2 + self.settings.untrained + len(self.made)

    @cached_property
    def middle(self) -> Tensor:
        """Mean token of which dictionaries without training start."""
        return self.selection.middle


@dataclass(frozen=True)
class Chosen:
    """A dictionary's latent for a class.

    Attributes
    ----------
    score
        By which it was chosen.
    vector
        (d_model,) unit vector along its direction.
    largest
        Its largest code on the sample; 0 where it is silent there.
    """

    latent: int
    score: float
    vector: Tensor
    largest: float


class Chooser:
    """Chooses latents on one sample of the selection split, the same for every dictionary.

    Attributes
    ----------
    sample
        Tokens of each class, at most so many as the settings say.
    rules
        Those of the settings that there are: without labels of what has the codes, the estimate alone.
    """

    def __init__(self, selection: Selection, settings: GainSettings, seed: int) -> None:
        self.task, self.names = selection.task, selection.task.names
        labelled = not isinstance(selection, GradientSelection)
        kept = [rule for rule in settings.rules if labelled or rule == "estimate"]
        self.rules: list[Rule] = list(dict.fromkeys(kept or ["estimate"]))
        whole = self.task.store.n_tokens(self.task.tokens) if self.task.unit == "picture" else 1
        self.sample = thinned(selection.sample, settings.patches, seed, whole)
        self._gradients = selection.gradients

    @cached_property
    def gradients(self) -> Gradients:
        """Rows and slopes of each class, at most _MOST_SLOPES, spread over its pictures."""
        found = {}
        for number, (rows, slopes) in self._gradients.items():
            places = torch.linspace(0, len(rows) - 1, min(len(rows), _MOST_SLOPES), dtype=torch.float64).round().long()
            found[number] = (rows[places], slopes[places])
        return found

    @cached_property
    def norm(self) -> float:
        """Mean norm of the sample's tokens."""
        parts = self.sample.rows.split(8192)
        return sum(float(part.float().norm(dim=1).sum(dtype=torch.float64)) for part in parts) / len(self.sample.rows)

    def choose(self, dictionary: SparseAutoencoder) -> dict[Rule, dict[int, Chosen]]:
        """Latents by rule and class id; classes for which a rule finds none are left out."""
        codes = codes_of(dictionary, self.sample)
        largest = dict(codes.group_by("latent").agg(pl.col("value").max()).iter_rows())
        rows = dictionary.raw_rows()
        found: dict[Rule, dict[int, Chosen]] = {}
        for rule in self.rules:
            targets = self._by_labels(dictionary, codes) if rule == "labels" else self._by_estimate(dictionary)
            found[rule] = {
                target.class_id: Chosen(
                    target.latents[0],
                    target.score,
                    normalize(rows[target.latents[0]], dim=0),
                    largest.get(target.latents[0], 0.0),
                )
                for target in targets
            }
        return found

    def _by_labels(self, dictionary: SparseAutoencoder, codes: pl.DataFrame) -> list[Target]:
        labels = self.sample.labels
        if self.task.unit == "picture":
            return targets_by_auc(codes.lazy(), self._of_pictures, self.names)
        everything = range(dictionary.width)
        return targets_by_patches(lambda: iter([(everything, codes.lazy())]), labels, self.names, "f1", 1)

    def _by_estimate(self, dictionary: SparseAutoencoder) -> list[Target]:
        return targets_by_gradient(dictionary, self.gradients, self.names, 1)

    @cached_property
    def _of_pictures(self) -> dict[int, int]:
        """Class id of each picture of the sample."""
        ids, start = list(self.names), self.sample.labels.pictures.start
        pairs = zip((self.sample.picture + start).tolist(), self.sample.numbers.tolist(), strict=True)
        return {image_id: ids[number] for image_id, number in dict(pairs).items()}

    def activity(self, dictionary: SparseAutoencoder) -> Activity:
        """How active a dictionary's latents are on the sample."""
        found = codes_of(dictionary, self.sample).filter(pl.col("value") > 0).group_by("latent")
        table = found.agg(pl.len(), pl.col("value").max()).sort("latent")
        latents = table["latent"].to_list()
        return Activity(*(dict(zip(latents, table[name], strict=True)) for name in ("len", "value")))

    @torch.inference_mode()
    def estimates(self, dictionary: SparseAutoencoder) -> Mapping[tuple[int, int], float]:
        """Estimated change of a class's log odds, were a latent switched off, by class id and latent."""
        ids = list(self.names)
        found: dict[tuple[int, int], float] = {}
        for number, (rows, slopes) in self.gradients.items():
            effects = -attribution(dictionary, rows, slopes)
            found |= {(ids[number], latent): effect for latent, effect in enumerate(effects.tolist()) if effect}
        return found


def thinned(patches: LabelledPatches, most: int, seed: int, whole: int = 1) -> LabelledPatches:
    """At most so many labelled patches of each class, drawn; with `whole` patches a picture, whole pictures."""
    numbers = patches.numbers
    order = np.random.default_rng([seed, 31]).permutation(len(numbers))
    if whole > 1:
        places = np.random.default_rng([seed, 31]).permutation(len(patches.labels.pictures))
        order = np.argsort(places[patches.picture], kind="stable")
    kept = np.zeros(len(numbers), dtype=bool)
    for number in np.unique(numbers):
        own = order[numbers[order] == number]
        kept[own[: max(1, most // whole) * whole]] = True
    picture, token = patches.picture[kept], patches.token[kept]
    classes = np.full_like(patches.labels.classes, -1)
    classes[picture, token] = numbers[kept]
    labels = Labels(patches.labels.pictures, classes, patches.labels.n_classes)
    return replace(patches, rows=patches.rows[torch.from_numpy(kept)], picture=picture, token=token, labels=labels)
