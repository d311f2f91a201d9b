"""A study with an audit: each SAE's meanings are tested on each data set with classes, by what the study has."""

from __future__ import annotations

from copy import deepcopy

import pytest
from conftest import SMALL, Workflow

pytestmark = pytest.mark.slow


def test_an_audit_tests_the_latents_of_every_sae_and_waits_for_the_atlas(fresh: Workflow) -> None:
    values = deepcopy(SMALL)
    values["studies"]["small"] |= {"audit": True, "atlas": True, "proposals": {"topk": "mine.csv"}}
    fresh.configure(values)
    done = fresh.run("audit", "--dry-run")
    assert done.returncode != 0
    assert "mine.csv" in done.stdout + done.stderr
    (fresh.folder / "mine.csv").write_text("latent,meaning\n0,brick\n")
    jobs = fresh.jobs("audit")
    assert (jobs["audit_of_meanings"], jobs["audit_figure"], jobs["atlas_of_task"]) == (2, 1, 4)
    # And nothing that it does not need.
    assert not {"experiment", "exemplars", "causes", "report"} & set(jobs)
