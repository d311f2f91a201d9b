"""Who takes part in the segmentation experiment: the latents of each class, and all that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from visae.config.settings import InterventionSettings
from visae.features.blocks import codes_by_latents
from visae.features.codes import read_codes_manifest
from visae.features.concepts import BLOCK_CODES
from visae.interventions.arms import ARMS, AUTOMATIC, Change, Draws, Reconstruction
from visae.interventions.dictionaries import (
    Gradients,
    LabelledPatches,
    best_latents,
    neurons,
    targets_by_gradient,
)
from visae.interventions.directions import coordinates, random_vectors
from visae.interventions.segmenting import Segmenter
from visae.interventions.targets import (
    Activity,
    Manual,
    Target,
    drawn_controls,
    latent_draws,
    targets_by_f1,
    targets_by_patches,
)
from visae.sae import SparseAutoencoder


@dataclass(frozen=True)
class Selection:
    """What the selection split says: all that choosing latents and directions needs."""

    settings: InterventionSettings
    segmenter: Segmenter
    sae: SparseAutoencoder
    codes_manifest: str | Path
    scores: str | Path
    patches: LabelledPatches
    activity: Activity
    split: str
    seed: int

    @cached_property
    def gradients(self) -> Gradients:
        """Gradients of the classes' log odds, by class number."""
        return self.segmenter.gradients(self.patches.labels, self.seed)

    @property
    def k(self) -> int:
        """Codes that the SAE gives a token, in the mean."""
        codes = read_codes_manifest(self.codes_manifest)
        tokens = codes["n_images"] * self.segmenter.store.n_tokens("all")
        return max(1, round(codes["rows"] / tokens))

    def targets(self, by: str) -> list[Target]:
        """Latents of each class, chosen by `f1`, `auc` or `gradient`; classes without any are left out."""
        n_latents, classes = self.settings.latents_per_class, self.patches.classes
        if by == "f1":
            found = targets_by_f1(self.scores, n_latents)
        elif by == "auc":
            found = targets_by_patches(
                lambda: codes_by_latents(Path(self.codes_manifest), BLOCK_CODES),
                self.patches.labels,
                classes,
                by,
                n_latents,
            )
        else:
            found = targets_by_gradient(self.sae, self.gradients, classes, n_latents)
        return [t for t in found if t.class_id in classes and set(t.latents) <= set(self.activity.largest)]


def participants(selection: Selection, targets: list[Target], manual: Manual) -> dict[int, Draws]:
    """Draws of every arm for each class, by class id, in the order of ARMS.

    An arm that a class cannot have, such as the difference of class means where the selection split has no patch of
    the class, is left out for that class.

    Raises
    ------
    DataError
        If too few latents are active to draw from.
    """
    settings, activity, classes = selection.settings, selection.activity, selection.patches.classes
    controls = drawn_controls(targets, activity, settings.random_draws, selection.seed)
    alternatives = {
        arm: {t.class_id: t for t in selection.targets(by)}
        for arm, by in (("latent_by_auc", "auc"), ("latent_by_gradient", "gradient"))
        if arm in settings.arms
    }
    along = _directions(selection, targets)
    drawn: dict[int, Draws] = {}
    for target in targets:
        draws: dict[str, Sequence[Change]] = {"reconstruction": [Reconstruction()]}
        draws |= latent_draws(target, controls[target.class_id], activity)
        draws |= along[target.class_id]
        for arm, others in alternatives.items():
            if target.class_id in others:
                draws[arm] = [activity.edit(others[target.class_id].latents)]
        if named := manual.get(classes[target.class_id]):
            draws["manual"] = [activity.edit(tuple(named))]
        wanted = {*settings.arms, "manual", AUTOMATIC}
        drawn[target.class_id] = {arm: draws[arm] for arm in ARMS if arm in draws and arm in wanted}
    return drawn


def _directions(selection: Selection, targets: list[Target]) -> dict[int, dict[str, list[Change]]]:
    """Draws of the arms that are directions, by class id."""
    patches, wanted, sae = selection.patches, selection.settings.arms, selection.sae
    device, numbers = sae.mean.device, {class_id: n for n, class_id in enumerate(patches.classes)}
    neuron: dict[int, Target] = {}
    basis = neurons(sae, selection.k)
    if "neuron" in wanted:
        # Neurons have no list of scores: where latents are chosen by F1 from one, theirs are chosen here.
        gradients = selection.gradients if selection.settings.choose_by == "gradient" else {}
        chosen = best_latents(basis, patches, selection.settings.choose_by, 1, gradients)
        neuron = {t.class_id: t for t in chosen}
    vectors: list[tuple[int, str, Tensor]] = []
    for target in targets:
        class_id, number = target.class_id, numbers[target.class_id]
        if "random_vector" in wanted:
            drawn = random_vectors(selection.settings.random_draws, sae.d_model, selection.seed, class_id)
            vectors += [(class_id, "random_vector", vector.to(device)) for vector in drawn]
        if class_id in neuron:
            vectors.append((class_id, "neuron", basis.decoder_weight[neuron[class_id].latents[0]]))
        if "class_difference" in wanted and 0 < (patches.numbers == number).sum() < len(patches.numbers):
            vectors.append((class_id, "class_difference", patches.difference(number, device)))
        if "head_weight" in wanted and number in selection.gradients:
            vectors.append((class_id, "head_weight", selection.gradients[number][1].mean(dim=0)))
    found: dict[int, dict[str, list[Change]]] = {target.class_id: {} for target in targets}
    if vectors:
        stacked = torch.stack([vector for _, _, vector in vectors])
        edits = coordinates(selection.segmenter.store, selection.split, stacked, device)
        for (class_id, arm, _), edit in zip(vectors, edits, strict=True):
            found[class_id].setdefault(arm, []).append(edit)
    return found
