"""The one way in: look at everything that a study names, in the order in which it would be used."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from visae.config.parse import load_config
from visae.config.settings import Settings
from visae.config.stored import used_datasets
from visae.doctor.config import of_configuration
from visae.doctor.data import of_dataset
from visae.doctor.device import of_device
from visae.doctor.disk import of_disk
from visae.doctor.models import of_models
from visae.doctor.needs import Wanted
from visae.doctor.report import Section, is_wrong, lines_of
from visae.doctor.slurm import of_slurm
from visae.errors import ConfigError
from visae.launch.where import chosen_cluster

logger = logging.getLogger(__name__)


def doctor(configfile: Path, sample: int = 200, full: bool = False, offline: bool = False) -> None:
    """Look at a study before anything runs: say what is fine, odd and wrong, and exit with 1 if anything is wrong.

    Nothing is made, changed or downloaded.

    Parameters
    ----------
    configfile
        The YAML that the workflow will run with.
    sample
        Pictures and masks looked at in each data set: the first of each split, and others at random.
    full
        Look at all pictures and masks, and find copies in two splits.
    offline
        Ask no model hub whether it has the weights.
    """
    if sample < 1:
        raise ConfigError(f"--sample {sample}: look at one picture or more")
    sections = []
    for section in examined(configfile, None if full else sample, offline):
        sections.append(section)
        print("\n".join(list(lines_of([section]))[:-1]), flush=True)
    print(list(lines_of(sections))[-1])
    if is_wrong(sections):
        sys.exit(1)


def examined(configfile: Path, sample: int | None, offline: bool) -> Iterator[Section]:
    """Yield a section for each part of a study; `sample` None looks at every picture."""
    section = Section(f"configuration: {configfile}")
    settings: Settings | None = None
    with section.looking("it"):
        settings = load_config(configfile)
        of_configuration(section, settings)
    yield section
    if settings is None:
        return
    pictures: dict[str, int] = {}
    used = used_datasets(settings)
    for name in sorted(name for name, dataset in settings.datasets.items() if dataset.kind != "union"):
        section = Section(f"data set: {name}")
        with section.looking("it"):
            pictures[name] = of_dataset(section, settings, name, sample)
        if name not in used:
            section.soften()
        yield section
    wanted = Wanted(settings, pictures)
    yield from of_models(settings, wanted, offline)
    where = chosen_cluster(settings.cluster)
    yield of_disk(settings, wanted, where)
    if where == "slurm":
        yield of_slurm(settings, wanted)
    yield of_device(settings, wanted, where)
