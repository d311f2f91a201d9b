"""Disk, memory and arithmetic of a configuration's stores, SAEs and codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from visae.activations.schema import ShardHeader, TokenChoice
from visae.activations.store import ActivationStore
from visae.config.kinds import TokenKinds
from visae.config.members import scored_on, sweep_members, trained
from visae.config.published import PublishedSettings
from visae.config.settings import GIVEN, AnySae, ReluSettings, Settings, StudySettings, TopKSettings
from visae.config.stored import layers_of, members_of, used_datasets
from visae.features.codes import RUN_ROWS
from visae.planning.models import PlannedModel
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.initial import empty_sae
from visae.vision.hook_points import HookPoint

# What a code takes in the files of `encode`: a float32, the numbers of token and picture (of those in a sorted run) in
# as few bits as do, and hardly anything for the latent, which repeats.
_VALUE_BYTES, _LATENT_BYTES = 4, 0.1


@dataclass(frozen=True)
class StoreNeed:
    """The activations of one data set and model: one forward pass for all `layers`; `tokens` are the rows of all."""

    dataset: str
    model: str
    layers: list[str]
    pictures: int
    tokens: int
    bytes: int
    flop: float


@dataclass(frozen=True)
class SaeNeed:
    """An SAE, or all members of a sweep, on one training set.

    Attributes
    ----------
    count, width
        How many are trained, and latents of each.
    tokens
        That all of them learn from, together.
    bytes, checkpoint_bytes
        Of what is published, and of the two checkpoints of each while they train.
    memory_bytes
        Of weights, gradients and Adam's two moments of all that train together; batches and codes come on top.
    flop
        Of all, as products of dense matrices.
    """

    sae: str
    trained_on: str
    model: str
    layer: str
    count: int
    width: int
    tokens: int
    bytes: int
    checkpoint_bytes: int
    memory_bytes: int
    flop: float


@dataclass(frozen=True)
class CodesNeed:
    """The codes of one SAE on one data set; `bytes` for `active` latents a patch."""

    sae: str
    trained_on: str
    model: str
    layer: str
    dataset: str
    tokens: int
    active: float
    bytes: int
    flop: float


class Needs:
    """What a configuration needs.

    Parameters
    ----------
    settings
        The configuration.
    pictures
        Number of pictures by data set.
    active
        Active latents a patch where the configuration sets no bound.
    """

    def __init__(self, settings: Settings, pictures: dict[str, int], active: float) -> None:
        self.settings, self.pictures, self.active = settings, pictures, active
        used = {study.model for study in settings.studies.values() if study.model is not None}
        self.models = {name: PlannedModel(settings.models[name]) for name in sorted(used)}

    def stores(self) -> list[StoreNeed]:
        """Activations, by data set and model; those that were given are there already."""
        found = []
        for dataset in used_datasets(self.settings):
            for name, model in self.models.items():
                layers = layers_of(self.settings, dataset, name)
                if not layers:
                    continue
                headers = [self._header(dataset, name, HookPoint.parse(layer)) for layer in layers]
                rows = sum(header.n_images * header.choice.n_rows for header in headers)
                size = sum(header.n_bytes for header in headers)
                flop = self.pictures[dataset] * model.flop(layers)
                found.append(StoreNeed(dataset, name, layers, self.pictures[dataset], rows, size, flop))
        return found

    def saes(self) -> list[SaeNeed]:
        """SAEs and sweeps; studies that share them need them once."""
        found = {}
        for study in self.settings.studies.values():
            for name in study.saes:
                members = self.members(name)
                saes = [self.untrained(study, section) for section in members]
                sizes = [_bytes_of(sae.state_dict().values()) for sae in saes]
                weights = sum(_bytes_of(sae.parameters()) for sae in saes)
                tokens = [section.steps * section.batch_size for section in members]
                trains = not isinstance(self.settings.saes.get(name), PublishedSettings)
                found[self._place(study, name)] = SaeNeed(
                    *self._place(study, name),
                    count=len(members),
                    width=saes[0].width,
                    tokens=sum(tokens),
                    # The chosen member is copied.
                    bytes=sum(sizes) + (max(sizes) if name in self.settings.sweeps else 0),
                    checkpoint_bytes=2 * (sum(sizes) + 2 * weights) if trains else 0,
                    memory_bytes=4 * weights if trains else weights,
                    flop=sum(n * training_flop(sae) for n, sae in zip(tokens, saes, strict=True)),
                )
        return list(found.values())

    def codes(self) -> list[CodesNeed]:
        """Codes of each SAE on each described data set; of sweeps the chosen member, and all that are scored."""
        found = {}
        for study in self.settings.studies.values():
            for name in study.saes:
                section = self.members(name)[0]
                sae = self.untrained(study, section)
                active = self._active(name)
                for dataset in study.describe:
                    tokens = self._described(dataset, study, section.tokens)
                    a_picture = tokens / self.pictures[dataset]
                    together = min(self.pictures[dataset], RUN_ROWS / (active * a_picture))
                    bits = sum(math.ceil(math.log2(max(2.0, number))) for number in (a_picture, together))
                    a_code = _VALUE_BYTES + _LATENT_BYTES + bits / 8
                    place = (*self._place(study, name), dataset)
                    scored = dataset == scored_on(self.settings, study, name)
                    tokens *= 1 + (len(self.members(name)) if scored else 0)
                    flop = tokens * encoding_flop(sae)
                    found[place] = CodesNeed(*place, tokens, active, round(tokens * active * a_code), flop)
        return list(found.values())

    def members(self, name: str) -> list[AnySae]:
        """Sections of the SAEs that a name stands for: its own, or those of a sweep's members."""
        sweep = self.settings.sweeps.get(name)
        if sweep is None:
            section = self.settings.saes[name]
            return [self._planned(name, section) if isinstance(section, PublishedSettings) else section]
        return list(sweep_members(name, sweep, trained(self.settings)[sweep.base]).values())

    def _planned(self, name: str, section: PublishedSettings) -> AnySae:
        """What a published SAE is counted as: one without training, of its width as far as that is known."""
        study = next(study for study in self.settings.studies.values() if name in study.saes)
        expansion, tokens = section.expansion(self._d_model(study, study.point)), section.tokens or "patches"
        if section.k is None:
            return ReluSettings(variant="relu", expansion=expansion, steps=0, tokens=tokens)
        return TopKSettings(variant="topk", k=section.k, expansion=expansion, steps=0, tokens=tokens)

    def untrained(self, study: StudySettings, section: AnySae) -> SparseAutoencoder:
        """An SAE of a study, without memory for its weights."""
        target = None if section.target_point is None else self._d_model(study, section.target_point)
        with torch.device("meta"):
            return empty_sae(section, self._d_model(study, study.point), target)

    def study_of(self, need: SaeNeed | CodesNeed) -> StudySettings:
        """Return a study that needs it."""
        wanted = (need.trained_on, need.model, need.layer)
        studies = self.settings.studies.values()
        return next(s for s in studies if need.sae in s.saes and (s.train_on, s.stored_model, s.point) == wanted)

    def _place(self, study: StudySettings, name: str) -> tuple[str, str, str, str]:
        return name, study.train_on, study.stored_model, study.point

    def _active(self, name: str) -> float:
        """Latents that a patch has at most: `k`, or the limit on l0 by which a sweep's member is chosen."""
        sweep = self.settings.sweeps.get(name)
        limits = [getattr(section, "k", math.inf) for section in self.members(name)]
        most = min(max(limits), sweep.select.at_most.get("l0", math.inf) if sweep else math.inf)
        return most if most < math.inf else self.active

    def _d_model(self, study: StudySettings, point: str) -> int:
        if study.model is None:
            return self._given(members_of(self.settings, study.train_on)[0]).d_model
        return self.models[study.model].card.layers[HookPoint.parse(point).layer].d_model

    def _described(self, dataset: str, study: StudySettings, kinds: TokenKinds) -> int:
        """Tokens of a kind; ModelError where the model has no class token and those are wanted."""
        if study.model is None:
            store = self._given(dataset)
            return store.n_images * store.n_tokens(kinds)
        self.models[study.model].card.token_slice(kinds)
        choice = self._header(dataset, study.model, HookPoint(study.layer, study.hook)).choice
        of_picture = {"patches": choice.n_rows - choice.n_prefix, "class": 1, "all": choice.n_rows}
        return self.pictures[dataset] * of_picture[kinds]

    def _given(self, dataset: str) -> ActivationStore:
        layer = layers_of(self.settings, dataset, GIVEN)[0]
        folder = Path(self.settings.results, "activations", dataset, GIVEN, f"layer{layer}")
        return ActivationStore.open(folder / "manifest.json")

    def _header(self, dataset: str, model: str, point: HookPoint) -> ShardHeader:
        """Header of a store as if it were one shard."""
        card = self.models[model].card
        card.check(point, "studies: layer")
        choice = TokenChoice(tuple(card.tokens(point.layer)), self.settings.datasets[dataset].tokens_per_image)
        shape = card.layers[point.layer]
        dtype, pictures = self.settings.models[model].dtype, self.pictures[dataset]
        return ShardHeader("", point.layer, point.hook, shape.d_model, dtype, choice, shape.grid, 0, pictures)


def training_flop(sae: SparseAutoencoder) -> float:
    """Floating-point operations of training a token: forward, and gradients of codes and of both matrices."""
    return sae.width * (4.0 * sae.d_model + 6.0 * sae.d_target)


def encoding_flop(sae: SparseAutoencoder) -> float:
    """Floating-point operations of a token's codes."""
    return 2.0 * sae.width * sae.d_model


def _bytes_of(tensors: object) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)  # type: ignore[attr-defined]
