"""What a configuration allows and hardly anybody means: units mixed up, parts that nothing uses."""

from __future__ import annotations

from visae.config.published import local_files, published
from visae.config.settings import Settings
from visae.config.stored import used_datasets
from visae.doctor.report import Section
from visae.errors import ConfigError

_TWO_WEEKS = 14 * 24 * 60
_LARGEST_NODE_GB = 4096
_SMALLEST_JOB_GB = 1


def of_configuration(section: Section, settings: Settings) -> None:
    """Look at settings that were read strictly and fit together."""
    sizes = ", ".join(
        f"{len(getattr(settings, key))} {key}" for key in ("datasets", "models", "saes", "sweeps", "studies")
    )
    section.fine(f"read strictly: no key twice, no unknown key, every name defined ({sizes})")
    _unset_variables(section, settings)
    _unused(section, settings)
    _units_of_slurm(section, settings)
    _units_of_the_rest(section, settings)
    _sources_of_published(section, settings)


def _unset_variables(section: Section, settings: Settings) -> None:
    places = {"results": settings.results}
    places |= {f"models: {name}: weights": model.weights for name, model in settings.models.items()}
    for key, text in places.items():
        if "${" in text:
            section.wrong(f"{key}: {text}: the environment variable in it is not set", "export it first")


def _unused(section: Section, settings: Settings) -> None:
    studies = settings.studies.values()
    data = {*used_datasets(settings), *settings.benchmark.others, *(study.train_on for study in studies)}
    sweeps = {name for study in studies for name in study.saes}
    saes = sweeps | {settings.sweeps[name].base for name in sweeps & settings.sweeps.keys()}
    models = {study.model for study in studies} | {settings.features.similarity}
    used = {"datasets": data, "models": models, "saes": saes, "sweeps": sweeps}
    for key, names in used.items():
        for name in sorted(getattr(settings, key).keys() - names):
            section.odd(f"{key}: {name}: no study uses it, so nothing will be made of it")


def _units_of_slurm(section: Section, settings: Settings) -> None:
    slurm = settings.slurm
    if slurm.minutes > _TWO_WEEKS:
        section.odd(
            f"slurm: minutes: {slurm.minutes} are {slurm.minutes / 1440:.0f} days",
            f"if seconds were meant: minutes: {-(-slurm.minutes // 60)}",
        )
    if slurm.notice > 30 * slurm.minutes:
        section.odd(
            f"slurm: notice: {slurm.notice} s is more than half of the time limit ({60 * slurm.minutes} s)",
            "it is in seconds: a checkpoint takes seconds to minutes",
        )
    if slurm.memory_gb > _LARGEST_NODE_GB:
        section.odd(
            f"slurm: memory_gb: {slurm.memory_gb:g} GB is more than nodes have",
            f"if megabytes were meant: memory_gb: {slurm.memory_gb / 1000:g}",
        )
    if slurm.memory_gb < _SMALLEST_JOB_GB:
        section.odd(f"slurm: memory_gb: {slurm.memory_gb:g} GB: torch alone takes about 1 GB", "memory_gb: 4 or more")
    if slurm.patience > 24 * 60:
        section.odd(f"slurm: patience: {slurm.patience:g} minutes are {slurm.patience / 1440:.1f} days")
    if slurm.check_every < 1:
        section.odd(
            f"slurm: check_every: {slurm.check_every:g} s asks the controller more than once a second, for each job",
            "check_every: 15",
        )
    if slurm.gather > 600:
        section.odd(f"slurm: gather: {slurm.gather:g} s: every training waits so long before it is submitted")


def _units_of_the_rest(section: Section, settings: Settings) -> None:
    for name, dataset in settings.datasets.items():
        if dataset.max_unreadable >= 0.5:
            section.odd(
                f"datasets: {name}: max_unreadable: {dataset.max_unreadable:g} is a share: with it "
                f"{dataset.max_unreadable:.0%} of the pictures may be unreadable",
                f"if per cent were meant: max_unreadable: {dataset.max_unreadable / 100:g}",
            )
    for name, sae in settings.saes.items():
        rate = getattr(sae, "learning_rate", None)
        if rate is not None and rate > 0.1:
            section.odd(f"saes: {name}: learning_rate: {rate:g} is far above what Adam learns with", "1e-3, or so")


def _sources_of_published(section: Section, settings: Settings) -> None:
    for name, sae in published(settings).items():
        try:
            files = local_files(name, sae)
        except ConfigError as error:
            section.wrong(str(error), "correct source, or fetch the file first")
            continue
        if files and not sae.is_on_hub:
            section.fine(f"saes: {name}: {sae.source} is there ({len(files)} {'file' if len(files) == 1 else 'files'})")
        elif "@" not in sae.whole_source and sae.sha256 is None:
            section.odd(
                f"saes: {name}: {sae.source} is fetched as it is on the day that its job runs",
                "write the repository's commit after @, or its sha256",
            )
