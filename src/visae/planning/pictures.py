"""How many pictures a data set has: told, indexed already, or counted on disk."""

from __future__ import annotations

from pathlib import Path

from visae.config.settings import ActivationsSettings, ScenePairsSettings, ScenesSettings, Settings, UsersSettings
from visae.config.stored import used_datasets
from visae.data.index import listed
from visae.errors import ConfigError, DataError
from visae.files import read_json


def told_pictures(pairs: list[str], settings: Settings) -> dict[str, int]:
    """Numbers of pictures by data set, from texts NAME=NUMBER.

    Raises
    ------
    ConfigError
        If one is not of that form, or names no data set.
    """
    found = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        if name not in settings.datasets or not number.isdecimal():
            known = ", ".join(sorted(settings.datasets))
            raise ConfigError(f"--pictures {pair}: write NAME=NUMBER with a name from datasets ({known})")
        found[name] = int(number)
    return found


def pictures_by_dataset(settings: Settings, told: dict[str, int]) -> dict[str, int]:
    """Numbers of pictures of all data sets that studies read.

    Raises
    ------
    DataError
        If one can neither be had from `told` nor be counted; all such are listed.
    """
    found, problems = {}, []
    for name in used_datasets(settings):
        try:
            found[name] = told[name] if name in told else _counted(settings, name)
        except DataError as error:
            problems.append(f"datasets: {name}: {error}; or tell their number: --pictures {name}=NUMBER")
    if problems:
        raise DataError("\n".join(problems))
    return found


def _counted(settings: Settings, name: str) -> int:
    section = settings.datasets[name]
    summary = Path(settings.results, "datasets", name, "summary.json")
    if summary.is_file():
        return sum(read_json(summary)["n_images"].values())
    if isinstance(section, ScenePairsSettings):
        return section.n_pictures
    if isinstance(section, ScenesSettings | UsersSettings):
        return section.train + section.val + section.test
    if isinstance(section, ActivationsSettings):
        raise DataError("given activations are counted once they are taken in: snakemake activations")
    return sum(1 for _ in listed(section, settings.seed + section.seed).pictures)
