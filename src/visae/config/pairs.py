"""What a study that measures counterfactual pairs has to have."""

from __future__ import annotations

from collections.abc import Iterator

from visae.config.settings import ScenePairsSettings, Settings, StudySettings, TableSettings


def of_pairs(settings: Settings, at: str, study: StudySettings) -> Iterator[str]:
    """Yield a line for each reason why a study's pairs cannot be measured; `at` names the study."""
    name = study.counterfactuals
    if name is None:
        return
    dataset = settings.datasets.get(name)
    if dataset is None:
        yield f"{at}: counterfactuals: {name!r} is not in datasets ({', '.join(sorted(settings.datasets))})"
        return
    if not isinstance(dataset, ScenePairsSettings | TableSettings):
        yield (
            f"{at}: counterfactuals: {name!r} is of kind {dataset.kind}, which has no pairs; name one of kind "
            "scene_pairs, or a table with the columns pair and cause"
        )
    if dataset.tokens_per_image is not None:
        yield f"{at}: counterfactuals: {name!r} keeps tokens_per_image: {dataset.tokens_per_image}; pairs need all"
    if study.model is None:
        yield f"{at}: counterfactuals: key 'model' is missing; edited pictures go through it"
    if study.hook != "residual":
        yield f"{at}: counterfactuals: hook: {study.hook} cannot be edited; leave the key out or set hook: residual"
    if min(settings.counterfactuals.c_values) <= 0:
        yield f"counterfactuals: c_values: {settings.counterfactuals.c_values}: each must be above 0"
