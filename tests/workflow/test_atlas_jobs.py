"""Which jobs an atlas asks for, and what its latents do together."""

from __future__ import annotations

from copy import deepcopy

import pytest
from conftest import SMALL, Workflow

pytestmark = pytest.mark.slow

OF_ATLAS = ("atlas_of_task", "atlas_figure")
OF_INTERACTIONS = ("interactions_of_task", "interactions_figure")


@pytest.mark.parametrize(("latents", "jobs"), [(30, (*OF_ATLAS, *OF_INTERACTIONS)), (0, OF_ATLAS)])
def test_an_atlas_has_its_jobs_and_those_of_pairs_unless_no_latents_are_wanted(
    fresh: Workflow, latents: int, jobs: tuple[str, ...]
) -> None:
    settings = deepcopy(SMALL) | {"interactions": {"latents": latents}}
    settings["studies"]["small"]["atlas"] = True
    fresh.configure(settings)
    found = fresh.jobs("all")
    # Two SAEs and two tasks.
    assert {job: found.get(job) for job in (*OF_ATLAS, *OF_INTERACTIONS)} == {
        job: 4 if job in jobs else None for job in (*OF_ATLAS, *OF_INTERACTIONS)
    }
