"""Pictures that one data set is trained on and another measured on, which no data set can see by itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visae.config.settings import Settings
from visae.config.stored import members_of
from visae.doctor.report import Section

# By data set and split: 64 bits of the place of each picture, links followed.
Places = dict[str, dict[str, NDArray[np.int64]]]


def of_shared_pictures(section: Section, settings: Settings, places: Places) -> None:
    """Compare train of what each study's SAEs learn from with val of what the study measures on."""
    for study, wanted in settings.studies.items():
        measured = {*wanted.describe, wanted.classification, wanted.segmentation} - {None}
        for one in members_of(settings, wanted.train_on):
            for other in sorted(str(name) for name in measured - {one}):
                train, val = places.get(one, {}).get("train"), places.get(other, {}).get("val")
                if train is None or val is None:
                    continue
                if n := len(np.intersect1d(train, val)):
                    section.odd(
                        f"studies: {study}: {n:,} pictures of val of {other} are in train of {one}, on which its SAEs "
                        "are trained: what is measured of them is too good",
                        f"take them out of {one}, or measure on others",
                    )
