"""Who takes part in an experiment: the latents of each class, and all that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visae.arms.changes import Change, Draws, Reconstruction, SetLatents
from visae.arms.directions import coordinates, random_vectors
from visae.arms.selection import Selection
from visae.arms.targets import Manual, drawn_controls, latent_draws
from visae.config.interventions import ARMS, AUTOMATIC
from visae.tasks.counts import Target


def participants(selection: Selection, targets: list[Target], manual: Manual) -> dict[int, Draws]:
    """Draws of every arm for each class, by class id, in the order of ARMS.

    An arm that a class cannot have, such as the difference of class means where the selection split has no patch of
    the class, is left out for that class.

    Raises
    ------
    DataError
        If too few latents are active to draw from.
    """
    settings, activity = selection.settings, selection.activity
    controls = drawn_controls(targets, activity, settings.random_draws, selection.seed)
    alternatives = {
        f"latent_by_{by}": {target.class_id: target for target in selection.targets(by)}
        for by in selection.others
        if f"latent_by_{by}" in settings.arms
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
        if named := manual.get(target.class_name):
            draws["manual"] = [activity.edit(tuple(named))]
        wanted = {*settings.arms, "manual", AUTOMATIC}
        drawn[target.class_id] = {arm: draws[arm] for arm in ARMS if arm in draws and arm in wanted}
    return drawn


def edited_latents(by_class: dict[int, Draws]) -> dict[tuple[str, int], tuple[int, ...]]:
    """Latents that the arms of one draw edit, by arm and class id."""
    return {
        (arm, class_id): changes[0].latents
        for class_id, draws in by_class.items()
        for arm, changes in draws.items()
        if len(changes) == 1 and isinstance(changes[0], SetLatents)
    }


def _directions(selection: Selection, targets: list[Target]) -> dict[int, dict[str, list[Change]]]:
    """Draws of the arms that are directions, by class id."""
    wanted, sae = selection.settings.arms, selection.sae
    device = sae.decoder_bias.device
    vectors: list[tuple[int, str, Tensor]] = []
    for target in targets:
        class_id = target.class_id
        if "random_vector" in wanted:
            drawn = random_vectors(selection.settings.random_draws, sae.d_model, selection.seed, class_id)
            vectors += [(class_id, "random_vector", vector) for vector in drawn]
        if "neuron" in wanted and (neuron := selection.neuron(class_id)) is not None:
            vectors.append((class_id, "neuron", neuron))
        if "class_difference" in wanted and (difference := selection.difference(class_id)) is not None:
            vectors.append((class_id, "class_difference", difference))
        if "head_weight" in wanted and selection.task.numbers[class_id] in selection.gradients:
            slopes = selection.gradients[selection.task.numbers[class_id]][1]
            vectors.append((class_id, "head_weight", slopes.mean(dim=0)))
    found: dict[int, dict[str, list[Change]]] = {target.class_id: {} for target in targets}
    if vectors:
        stacked = torch.stack([vector.to(device) for _, _, vector in vectors])
        edits = coordinates(selection.task.store, selection.split, stacked, device, sae.place.tokens)
        for (class_id, arm, _), edit in zip(vectors, edits, strict=True):
            found[class_id].setdefault(arm, []).append(edit)
    return found
