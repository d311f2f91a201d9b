"""Snakemake reads configurations by itself, loosely; the workflow reads them again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, checkout

MODULE = """
module visae:
    snakefile: "Snakefile"
    config: config["study"]

use rule * from visae as visae_*
"""


def dry_run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "1", "--dry-run", "--quiet"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("more", "arguments", "message"),
    [
        ("slurm: {minutes: 12:00:00}", [], None),
        ("", ["--config", "slurm={minutes: 1-12, notice: 60}", "seed=3"], None),
        ("slurm: {minutes: 12:00}", [], "slurm: minutes: '12:00' is 12 minutes"),
        ("seed: 1\nseed: 2", [], "the key 'seed' stands here and in line"),
        ("seed: 010", [], "seed: '010' is not of type 'integer'"),
        ("", ["--config", "slurm={minutes: 12:00}"], "slurm: minutes: '12:00' is 12 minutes"),
        ("", ["--config", "slurm={gpus: 1, gpus: 2}"], "the key 'gpus' stands here and in line"),
    ],
)
def test_what_yaml_would_change_without_a_word_is_refused(
    more: str, arguments: list[str], message: str | None, tmp_path: Path
) -> None:
    folder = checkout(tmp_path).folder
    (folder / "small.yaml").write_text(f"{yaml.safe_dump(SMALL)}\n{more}\n")
    done = dry_run(folder, "--configfile", "small.yaml", *arguments)
    assert (done.returncode == 0) == (message is None), done.stdout + done.stderr
    if message is not None:
        assert message in done.stdout + done.stderr


@pytest.mark.parametrize(("minutes", "message"), [("12:00:00", None), ("12:00", "'12:00' is 12 minutes")])
def test_a_section_of_another_workflow_is_read_the_same_way(minutes: str, message: str | None, tmp_path: Path) -> None:
    folder = checkout(tmp_path).folder
    (folder / "outer.smk").write_text(MODULE)
    study = json.dumps({**SMALL, "slurm": {"minutes": "HERE"}}).replace('"HERE"', minutes)
    (folder / "outer.yaml").write_text(f"study: {study}\n")
    done = dry_run(folder, "visae_datasets", "--snakefile", "outer.smk", "--configfile", "outer.yaml")
    assert (done.returncode == 0) == (message is None), done.stdout + done.stderr
    if message is not None:
        assert message in done.stdout + done.stderr
