"""What a schema cannot say of a configuration: that its names exist and its parts fit together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from visae.config.pairs import of_pairs
from visae.config.published import PublishedSettings
from visae.config.saes import growing
from visae.config.settings import GIVEN, AnySae, DrawnSettings, MatryoshkaSettings, Settings, StudySettings
from visae.config.tasks import TASKS


def of_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> Iterator[str]:
    """Yield a line for each that is not of pixels between 0 and 1, by channel, or cannot be divided by."""
    for key, values in (("mean", mean), ("std", std)):
        if values is not None and (len(values) != 3 or not all(0 <= value <= 1 for value in values)):
            yield f"{key}: {list(values)}: write three numbers from 0 to 1, of red, green and blue"
    if std is not None and min(std, default=1) <= 0:
        yield f"std: {list(std)}: each must be above 0"


def unresolved(settings: Settings) -> Iterator[str]:
    """Yield a line for each name that points to nothing, and each combination that cannot be."""
    yield from _of_datasets(settings)
    for name, model in settings.models.items():
        size = model.image_size
        if isinstance(size, list) and (len(size) != 2 or min(size) < 14):
            yield f"models: {name}: image_size: {size}: write one side, or height and width, each 14 or more"
        yield from (f"models: {name}: {problem}" for problem in of_normalization(model.mean, model.std))
        if name == GIVEN:
            yield f"models: {name}: this name stands for given activations in paths; choose another"
    for name, sae in settings.saes.items():
        if not isinstance(sae, PublishedSettings):
            yield from of_sae(f"saes: {name}", sae)
    for key in ("log10_frequency", "log10_mean"):
        limits = getattr(settings.figures, key)
        if limits and (len(limits) != 2 or limits[0] > limits[1]):
            yield f"figures: {key}: {limits}: write the lowest and the highest, or an empty list"
    yield from _of_heads(settings)
    yield from _of_gain(settings)
    yield from _of_names(settings)
    yield from _of_manual(settings)
    yield from _of_slurm(settings)
    judge = settings.features.similarity
    if judge not in (None, "own") and judge not in settings.models:
        yield f"features: similarity: {judge!r} is neither own nor in models ({_names(settings.models)})"
    yield from _of_benchmark(settings)
    yield from _of_atlas(settings)
    for name, study in settings.studies.items():
        at = f"studies: {name}"
        yield from _of_study(settings, at, study)
        yield from _of_groups(settings, at, study)
        yield from _impossible(settings, at, study)
        yield from _of_audit(settings, at, study)


def of_sae(at: str, sae: AnySae) -> Iterator[str]:
    """What cannot be of one SAE's section; `at` names it."""
    if isinstance(sae, MatryoshkaSettings) and not growing(sae.prefixes):
        yield f"{at}: prefixes: {sae.prefixes}: each must be 1 or more and larger than the one before"


def _of_datasets(settings: Settings) -> Iterator[str]:
    unions = {name for name, dataset in settings.datasets.items() if dataset.kind == "union"}
    for name in unions:
        for member in settings.datasets[name].members:  # type: ignore[union-attr]
            if member not in settings.datasets:
                yield f"datasets: {name}: members: {member!r} is not in datasets ({_names(settings.datasets)})"
            elif member in unions:
                yield f"datasets: {name}: members: {member!r} is a union itself; name its members instead"
    for name, drawn in settings.datasets.items():
        if isinstance(drawn, DrawnSettings) and drawn.val_share + drawn.test_share >= 1:
            yield f"datasets: {name}: val_share: with test_share it leaves nothing for train; their sum must be below 1"


def _of_study(settings: Settings, at: str, study: StudySettings) -> Iterator[str]:
    """Names in a study that point to nothing, or to data sets of the wrong kind."""
    unions = {name for name, dataset in settings.datasets.items() if dataset.kind == "union"}
    if study.model is not None and study.model not in settings.models:
        yield f"{at}: model: {study.model!r} is not in models ({_names(settings.models)})"
    if study.head_layer is not None and study.layer > study.head_layer:
        yield f"{at}: layer: {study.layer} lies after head_layer: {study.head_layer}"
    for sae in study.saes:
        if sae not in settings.saes and sae not in settings.sweeps:
            sweeps = f" or sweeps ({_names(settings.sweeps)})" if settings.sweeps else ""
            yield f"{at}: saes: {sae!r} is not in saes ({_names(settings.saes)}){sweeps}"
    described = [("describe", dataset) for dataset in study.describe]
    measured = list(study.tasks.items())
    for key, dataset in [("train_on", study.train_on), *described, *measured]:
        if dataset not in settings.datasets:
            yield f"{at}: {key}: {dataset!r} is not in datasets ({_names(settings.datasets)})"
        elif dataset in unions and key != "train_on":
            yield f"{at}: {key}: {dataset!r} is a union, which serves train_on only; name a member"
    for key, dataset in measured:
        if dataset in settings.datasets and dataset not in study.describe:
            yield f"{at}: {key}: {dataset!r} must stand in describe too: latents are chosen by their codes on it"
    segmented = settings.datasets.get(study.segmentation or "")
    if segmented and segmented.kind != "union" and not segmented.has_masks:
        key = "mask" if hasattr(segmented, "mask") else "classes"
        named = f" unless its key {key} names them" if hasattr(segmented, key) else ""
        yield f"{at}: segmentation: {study.segmentation!r} is of kind {segmented.kind}, which has no masks{named}"
    for key in ("classification", "zero_shot"):
        classified = settings.datasets.get(study.tasks.get(key, ""))
        if classified and classified.kind != "union" and not classified.may_have_labels:
            unless = {"image_folder": " with labels: none", "huggingface": " with masks or label: none"}
            unlabelled = unless.get(classified.kind, "")
            yield f"{at}: {key}: {study.tasks[key]!r} is of kind {classified.kind}{unlabelled}, which has no labels"
    read = settings.datasets.get(study.tasks.get("readout", ""))
    if read and not read.is_given:
        yield f"{at}: readout: {study.tasks['readout']!r} is of kind {read.kind}; it reads kinds activations and users"
    if read and read.is_given and read.kind != "users" and study.readout and study.readout.weights is None:
        yield f"{at}: readout: key 'weights' is missing; only a data set of kind users has a readout of its own"
    for key, added in study.added_tasks.items():
        if key not in TASKS or hasattr(study, key):
            yield f"{at}: added_tasks: {key!r} is not in TASKS of visae.config.tasks, or has a key of its own"
        elif added.file is None and not TASKS[key].head:
            yield f"{at}: added_tasks: {key}: key 'file' is missing: its readout"


def _of_groups(settings: Settings, at: str, study: StudySettings) -> Iterator[str]:
    """A study of groups without a task on pictures, or on a data set that has none."""
    if not study.groups:
        return
    on_pictures = {task: name for task, name in study.tasks.items() if task in TASKS and TASKS[task].unit == "picture"}
    if not on_pictures:
        had = ", ".join(study.tasks) or "none"
        yield f"{at}: groups: they are of pictures, and no task of this study answers a picture; it has {had}"
    for task, name in on_pictures.items():
        dataset = settings.datasets.get(name)
        if dataset and dataset.kind != "union" and not dataset.may_have_groups:
            without = {"scenes": " without a shortcut", "huggingface": " without its key group"}.get(dataset.kind, "")
            yield (
                f"{at}: groups: {task} is on {name!r} of kind {dataset.kind}{without}, which has no groups; "
                "tables have them in a column group, huggingface in the column that its key group names, scenes with a "
                "shortcut"
            )


def _of_benchmark(settings: Settings) -> Iterator[str]:
    """Data sets that cross_domain cannot be measured on."""
    for name in settings.benchmark.others:
        dataset = settings.datasets.get(name)
        if dataset is None:
            yield f"benchmark: others: {name!r} is not in datasets ({_names(settings.datasets)})"
        elif dataset.kind == "union":
            yield f"benchmark: others: {name!r} is a union; name its members instead"
        elif not dataset.may_have_labels:
            yield f"benchmark: others: {name!r} is of kind {dataset.kind}, which has no labels"


def _of_heads(settings: Settings) -> Iterator[str]:
    """Values that no head can learn with; a schema cannot bound the members of a list of settings."""
    probe, segmentation = settings.heads.probe, settings.heads.segmentation
    positive = {"probe: c_values": probe.c_values, "segmentation: learning_rates": segmentation.learning_rates}
    for key, values in positive.items():
        if min(values) <= 0:
            yield f"heads: {key}: {values}: each must be above 0"
    if min(segmentation.weight_decays) < 0:
        yield f"heads: segmentation: weight_decays: {segmentation.weight_decays}: each must be 0 or more"


def _of_gain(settings: Settings) -> Iterator[str]:
    """Lengths that are no ladder, and studies that ask for a comparison of what they do not edit."""
    lengths = settings.gain.lengths
    if lengths[0] <= 0 or any(before >= after for before, after in pairwise(lengths)):
        yield f"gain: lengths: {lengths}: each must be above 0 and larger than the one before"
    for name, study in settings.studies.items():
        for key in ("gain", "atlas"):
            if getattr(study, key) and not study.tasks:
                yield f"studies: {name}: {key}: edits are judged by a task, and the study has none; leave {key} out"


def _of_atlas(settings: Settings) -> Iterator[str]:
    """Tasks of an atlas, sizes and doses of sets, and numbers of suppressed latents, that cannot be."""
    sets = settings.atlas.sets
    suppressed = settings.groups.suppressed
    if min(suppressed, default=1) < 1 or len(set(suppressed)) < len(suppressed):
        yield f"groups: suppressed: {suppressed}: each must be 1 or more, and stand once"
    for task in settings.atlas.tasks:
        if not any(study.atlas and task in study.tasks for study in settings.studies.values()):
            yield f"atlas: tasks: {task!r} is a task of no study with an atlas"
    if min(sets.sizes, default=1) < 1:
        yield f"atlas: sets: sizes: {sets.sizes}: each must be 1 or more"
    if max(sets.scales) > 0:
        yield f"atlas: sets: scales: {sets.scales}: each must be 0 or below; insert_scales are above"
    if min(sets.insert_scales) <= 0:
        yield f"atlas: sets: insert_scales: {sets.insert_scales}: each must be above 0"


def _of_slurm(settings: Settings) -> Iterator[str]:
    """A time limit that leaves no time."""
    minutes, notice = settings.slurm.minutes, settings.slurm.notice
    if minutes < 1:
        yield f"slurm: minutes: {minutes} is less than the minimum of 1"
    elif notice >= 60 * minutes:
        yield (
            f"slurm: notice: {notice}: it is in seconds and has to be less than the time limit, which is "
            f"{60 * minutes} s (slurm: minutes: {minutes})"
        )


def _of_names(settings: Settings) -> Iterator[str]:
    """Names of latents of no SAE, or of one SAE from two files."""
    known: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, study in settings.studies.items():
        at = f"studies: {name}: names"
        for sae, file in study.names.items():
            trained = (study.train_on, study.stored_model, study.point, sae)
            other, other_file = known.setdefault(trained, (name, file))
            if sae not in study.saes:
                yield f"{at}: {sae!r} is not in this study's saes ({', '.join(study.saes)})"
            if file != other_file:
                yield f"{at}: {sae}: {file}: study {other} has {other_file} for the same SAE; use one file"


def _of_audit(settings: Settings, at: str, study: StudySettings) -> Iterator[str]:
    """An audit of nothing, and proposals of nothing."""
    described = [settings.datasets[name] for name in study.describe if name in settings.datasets]
    if study.audit and described and not any(data.has_masks or data.may_have_labels for data in described):
        yield f"{at}: audit: no data set of describe has masks or labels, so that no meaning can be tested"
    if study.proposals and not study.audit:
        yield f"{at}: proposals: nothing tests them; set audit: true"
    for sae in study.proposals:
        if sae not in study.saes:
            yield f"{at}: proposals: {sae!r} is not in this study's saes ({', '.join(study.saes)})"


def _of_manual(settings: Settings) -> Iterator[str]:
    """Latents named by hand for an SAE or a task that the study does not have."""
    for name, study in settings.studies.items():
        at = f"studies: {name}: manual"
        tasks = list(study.tasks)
        for sae, by_task in study.manual.items():
            if sae not in study.saes:
                yield f"{at}: {sae!r} is not in this study's saes ({', '.join(study.saes)})"
            for task in by_task:
                if task not in tasks:
                    had = ", ".join(tasks) or "none"
                    yield f"{at}: {sae}: {task!r} is no task of this study, which has {had}"


def _impossible(settings: Settings, at: str, study: StudySettings) -> Iterator[str]:
    """What a study asks of data sets and hook points that these cannot give."""
    used = {study.train_on, *study.describe, *study.tasks.values()}
    known = {name: dataset for name, dataset in settings.datasets.items() if name in used}
    given = [name for name, dataset in known.items() if dataset.is_given]
    if study.model is None and len(given) < len(known):
        yield f"{at}: key 'model' is missing; only data sets of kinds activations and users need no model"
    if study.model is None and study.concepts:
        yield f"{at}: concepts: their pictures go through the model; give the key 'model' or leave concepts out"
    if study.model is None and study.attribution:
        yield f"{at}: attribution: gradients go through the model; give the key 'model' or leave attribution out"
    for key in study.tasks:
        if study.head_layer is None and key in TASKS and TASKS[key].head:
            yield f"{at}: key 'head_layer' is missing: {key} reads the model's last block"
        if study.hook != "residual":
            yield f"{at}: hook: {study.hook} can be described, not edited; leave {key} out or set hook: residual"
    yield from of_pairs(settings, at, study)
    for name, dataset in known.items():
        if dataset.tokens_per_image is not None and name in {*study.describe, *study.tasks.values()}:
            kept = f"tokens_per_image: {dataset.tokens_per_image}"
            yield f"{at}: {name!r} keeps {kept}, so its pictures are not whole, and it serves train_on only"


def _names(section: dict[str, Any]) -> str:
    return ", ".join(sorted(section)) or "which is empty"
