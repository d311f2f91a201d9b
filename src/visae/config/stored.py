"""Which activations a configuration needs: of which data sets, at which layers of which models."""

from __future__ import annotations

from visae.config.members import of_study
from visae.config.settings import Settings, UnionSettings
from visae.config.tasks import TASKS


def members_of(settings: Settings, dataset: str) -> list[str]:
    """Data sets that a name stands for: a union's members, else itself."""
    section = settings.datasets[dataset]
    return section.members if isinstance(section, UnionSettings) else [dataset]


def used_datasets(settings: Settings) -> list[str]:
    """Data sets that some study reads, unions as their members."""
    used: set[str] = set()
    for study in settings.studies.values():
        used.update(members_of(settings, study.train_on), study.describe)
        if study.counterfactuals is not None:
            used.add(study.counterfactuals)
    return sorted(used)


def layers_of(settings: Settings, dataset: str, model: str) -> list[str]:
    """Layers, with their hooks, that some study reads of a data set and model, in order."""
    wanted: set[str] = set()
    for study in settings.studies.values():
        if study.stored_model != model:
            continue
        heads = {dataset for task, dataset in study.tasks.items() if TASKS[task].head}
        edited = set(study.tasks.values())
        trained_on = members_of(settings, study.train_on)
        if dataset in {*trained_on, *study.describe, *edited, study.counterfactuals}:
            wanted.add(study.point)
        if dataset in trained_on:
            targets = {sae.target_point for sae in of_study(settings, study).values()}
            wanted.update(target for target in targets if target is not None)
        if dataset in heads:
            wanted.add(str(study.head_layer))
    return sorted(wanted)


def points_of(settings: Settings, model: str) -> list[str]:
    """Layers of a model, with their hooks, that some study reads on any data set, in order."""
    return sorted({point for dataset in used_datasets(settings) for point in layers_of(settings, dataset, model)})


def edited_layers(settings: Settings, model: str) -> list[str]:
    """Layers of a model whose patches some study edits: that of each study with a task or pairs."""
    studies = [study for study in settings.studies.values() if study.stored_model == model]
    return sorted(
        {str(study.layer) for study in studies if study.classification or study.segmentation or study.counterfactuals}
    )
