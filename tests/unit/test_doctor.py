"""The doctor: each look with a study that is as it should be and one that is not; and that it changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from doctor_for_tests import STUDY, class_folders, look, no_root, said
from safetensors.torch import save_file

from visae.config.parse import load_config
from visae.config.settings import ScenesSettings
from visae.doctor.config import _unused
from visae.doctor.report import Section, is_wrong, lines_of
from visae.doctor.slurm import gpus_of
from visae.errors import DataError

ROOT = Path(__file__).parents[2]


def test_a_study_as_it_should_be_is_fine_but_for_its_random_weights(here: Path) -> None:
    found = look(class_folders(here / "data"))
    assert list(found) == ["configuration: study.yaml", "data set: d", "model: tiny", "disk", "this machine"]
    assert said(found, "wrong") == ""
    assert said(found, "odd").splitlines() == ["weights: random: an untrained network, for tests and baselines -> "]
    assert "train 12 pictures (12 labelled, 0 with masks), val 12" in said(found, "fine")
    assert "24 pictures looked at: all 64 x 48 pixels" in said(found, "fine")
    assert "12 blocks, 192 dimensions, 1 tokens before 4 x 4 patches" in said(found, "fine")
    assert "are needed" in said(found, "fine")


# --- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slurm": {"minutes": 86400}}, "86400 are 60 days -> if seconds were meant: minutes: 1440"),
        ({"slurm": {"memory_gb": 64000}}, "64000 GB is more than nodes have -> if megabytes were meant: memory_gb: 64"),
        ({"slurm": {"memory_gb": 0.064}}, "memory_gb: 0.064 GB"),
        ({"slurm": {"minutes": 10, "notice": 400}}, "notice: 400 s is more than half of the time limit (600 s)"),
        ({"slurm": {"check_every": 0.1}}, "more than once a second"),
        ({"slurm": {"gather": 3600}}, "gather: 3600 s: every training waits so long"),
        ({"slurm": {"patience": 2000}}, "patience: 2000 minutes are 1.4 days"),
        ({"datasets__d__max_unreadable": 1}, "if per cent were meant: max_unreadable: 0.01"),
        ({"saes__topk__learning_rate": 3.0}, "learning_rate: 3 is far above"),
        ({"saes__other": {"variant": "relu"}}, "saes: other: no study uses it"),
        ({"models__other": {"architecture": "vit_tiny_patch16_224"}}, "models: other: no study uses it"),
    ],
)
def test_units_mixed_up_and_parts_without_use_are_odd(changes: dict[str, Any], message: str, here: Path) -> None:
    found = look(class_folders(here / "data"), **changes)
    assert message in said(found, "odd")
    assert said(found, "wrong") == ""


def test_pairs_and_data_sets_of_the_benchmark_have_a_use() -> None:
    section, settings = Section("configuration"), load_config(ROOT / "config/counterfactuals.yaml")
    other = ScenesSettings(kind="scenes")
    datasets = {**settings.datasets, "far": other, "idle": other}
    _unused(section, replace(settings, datasets=datasets, benchmark=replace(settings.benchmark, others=["far"])))
    assert [found.text for found in section.findings] == [
        "datasets: idle: no study uses it, so nothing will be made of it"
    ]


def test_sources_of_published_saes_are_looked_at(here: Path) -> None:
    dataset = class_folders(here / "data")
    (here / "theirs.pt").write_bytes(b"")
    for source, more, level, message in (
        ("theirs.pt", {}, "fine", "saes: theirs: theirs.pt is there (1 file)"),
        ("gone.pt", {}, "wrong", "saes: theirs: source: gone.pt: there is no such file or folder"),
        ("hub:a/b", {}, "odd", "hub:a/b is fetched as it is on the day that its job runs"),
        ("hub:a/b", {"sha256": "0" * 64}, "fine", "read strictly"),
    ):
        theirs = {"kind": "published", "source": source, **more}
        found = look(dataset, saes={**STUDY["saes"], "theirs": theirs}, studies__s__saes=["topk", "theirs"])
        assert message in said(found, level)
        assert ("saes: theirs" in said(found, "odd")) == (level == "odd")


def test_a_mistake_in_the_configuration_ends_the_look(here: Path) -> None:
    found = look(class_folders(here / "data"), slurm={"minutes": "12:00"})
    assert len(found) == 1
    assert "slurm: minutes: '12:00' is 12 minutes" in said(found, "wrong")


def test_a_variable_that_is_not_set_is_named(here: Path) -> None:
    found = look({"kind": "image_folder", "root": "${NOT_SET_ANYWHERE}/x"}, results="${NOT_SET_EITHER}/results")
    assert "root: ${NOT_SET_ANYWHERE}/x: the environment variable in it (NOT_SET_ANYWHERE) is not set" in said(
        found, "wrong"
    )
    assert "results: ${NOT_SET_EITHER}/results" in said(found, "wrong")
    assert "what is needed is not known: the pictures of 'd' are not counted" in said(found, "odd")


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models__tiny__architecture": "vit_tiny_patch16_22"},
            "architecture: vit_tiny_patch16_22 at 64 x 64 px: Unknown",
        ),
        ({"models__tiny__weights": "/nowhere/weights.safetensors"}, "not an existing .safetensors"),
        ({"models__tiny__weights": "hub"}, "name the weights by their tag; timm"),
        (
            {"models__tiny__weights": "hub", "models__tiny__architecture": "vit_tiny_patch16_224.nobody"},
            "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        ),
        ({"models__tiny__weights": "hub", "models__tiny__architecture": "vit_teeny.x"}, "has none of that name"),
        (
            {"studies__s__layer": 11, "studies__s__head_layer": 12},
            "head_layer: 12: heads read the last layer of vit_tiny_patch16_224 -> head_layer: 11",
        ),
        ({"studies__s__layer": 12, "studies__s__head_layer": 12}, "has 12 blocks, so layers go from 0 to 11"),
    ],
)
def test_models_that_cannot_serve_are_wrong(changes: dict[str, Any], message: str, here: Path) -> None:
    found = look(class_folders(here / "data"), **changes)
    assert message in said(found, "wrong")


@pytest.mark.parametrize(
    ("architecture", "level", "message"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", "fine", "tag augreg_in21k: 12 blocks, 192 dimensions"),
        ("vit_base_patch16_clip_224.openai", "odd", "take architecture: vit_base_patch16_clip_quickgelu_224.openai"),
    ],
)
def test_what_is_noted_of_weights_is_said_before_they_are_downloaded(
    architecture: str, level: str, message: str, here: Path
) -> None:
    found = look(class_folders(here / "data"), models__tiny__architecture=architecture, models__tiny__weights="hub")
    assert message in said(found, level)


def test_a_layer_that_cannot_be_edited_is_wrong(here: Path) -> None:
    # Its class token joins at block 10.
    changed = {"models__tiny__architecture": "convit_tiny", "models__tiny__image_size": 224, "studies__s__layer": 8}
    found = look(class_folders(here / "data"), **changed)
    assert "studies: layer: 8: convit_tiny cannot be" in said(found, "wrong")


def test_a_file_of_weights_that_do_not_fit_is_wrong(here: Path) -> None:
    save_file({"blocks.0.norm1.weight": torch.zeros(3)}, here / "weights.safetensors")
    found = look(class_folders(here / "data"), models__tiny__weights=str(here / "weights.safetensors"))
    assert "do not fit vit_tiny_patch16_224" in said(found, "wrong")


def test_weights_that_are_nowhere_yet_are_odd_offline_and_fine_where_they_were_taken(here: Path) -> None:
    hub = {"models__tiny__weights": "hub", "models__tiny__architecture": "vit_tiny_patch16_224.augreg_in21k"}
    dataset = class_folders(here / "data")
    found = look(dataset, **hub)
    assert "not in this machine's cache, and the hub was not asked" in said(found, "odd")
    (here / "results/models/tiny").mkdir(parents=True)
    (here / "results/models/tiny/weights.safetensors").touch()
    found = look(dataset, **hub)
    assert "taken already" in said(found, "fine")


# --- this machine ---------------------------------------------------------------------------------


def test_cuda_is_wrong_where_there_is_none(here: Path) -> None:
    found = look(class_folders(here / "data"), device="cuda")
    assert ("sees no GPU here" in said(found, "wrong")) == (not torch.cuda.is_available())


def test_more_threads_than_cores_are_odd(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert "threads wait for one another" in said(look(class_folders(here / "data")), "odd")


@pytest.mark.parametrize(
    ("gres", "number"),
    [
        ("gpu:2", 2),
        ("gpu:a100:4(S:0-1),nvme:1", 4),
        ("gpu:a100:4(S:0),gpu:v100:2(S:1)", 6),
        ("(null)", 0),
        ("mps:100", 0),
    ],
)
def test_gpus_of_a_node(gres: str, number: int) -> None:
    assert gpus_of(gres) == number


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    line = [sys.executable, "-m", "visae", "doctor", "--offline", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=everything)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Paths, with sizes and times of files; of folders not, as Python tries TMPDIR with a file that it deletes."""
    stats = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (0, 0) if path.is_dir() else (s.st_size, s.st_mtime_ns) for path, s in stats.items()}


@pytest.mark.slow
def test_it_changes_nothing_and_exits_with_1_where_something_is_wrong(here: Path) -> None:
    home = here / "home"
    home.mkdir()
    kept = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "TMPDIR")}
    hub = {"models__tiny__weights": "hub", "models__tiny__architecture": "vit_tiny_patch16_224.augreg_in21k"}
    look(class_folders(here / "data"), **hub)
    before = tree(here)
    done = command("--configfile", "study.yaml", **kept)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("0 wrong")
    assert tree(here) == before
    no_root(here / "data")
    before = tree(here)
    done = command("--configfile", "study.yaml", **kept)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].endswith("1 wrong"), done.stdout
    assert tree(here) == before


def test_each_line_that_is_not_fine_can_have_the_line_that_mends_it() -> None:
    section = Section("disk")
    section.wrong("it is full\nreally", "make room")
    with section.looking("quota"):
        raise ValueError("strange")
    with section.looking("data"):
        raise DataError("root: gone")
    assert list(lines_of([section])) == [
        "disk",
        *["  wrong  it is full", "         really", "         -> make room"],
        "  odd    quota could not be looked at: ValueError: strange",
        *["  wrong  root: gone", "", "1 odd, 2 wrong"],
    ]
    assert is_wrong([section])
