"""Runs that are killed, told to stop, or find damaged checkpoints."""

import dataclasses
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sae_run_for_tests import settings
from safetensors.torch import load_file

from visae.activations.given import write_store
from visae.config.settings import TopKSettings
from visae.sae.checkpoints import Checkpoint, Checkpoints
from visae.sae.trainer import train

STEPS = 240
SCRIPT = Path(__file__).with_name("sae_run_for_tests.py")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    activations = np.random.default_rng(5).standard_normal((60, 17, 12)).astype(np.float32)
    write_store(folder / "store", activations, [-1, *range(16)], {"train": 50, "val": 10}, shards=2)
    return folder


@pytest.fixture(scope="module")
def whole(place):
    """Folder of the run that nothing interrupts."""
    torch.set_num_threads(1)
    train(settings(STEPS), [place / "store/manifest.json"], place / "whole/out", place / "whole/work", "cpu")
    return place / "whole"


def started(folder, steps=STEPS):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(steps)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def newest_step(folder):
    steps = [int(path.stem[5:]) for path in (folder / "work/checkpoints").glob("step-*.json")]
    return max(steps, default=0)


def assert_same_result(folder, whole):
    found, expected = (load_file(run / "out/sae.safetensors") for run in (folder, whole))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    tables = [
        pl.read_parquet(run / "out/metrics.parquet").drop("tokens_per_second", "data_wait_share")
        for run in (folder, whole)
    ]
    assert tables[0].equals(tables[1])


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


@pytest.mark.slow
def test_a_run_killed_at_random_points_ends_bit_identical(place, whole):
    folder = place / "killed"
    chance = random.Random(2)
    kills = 0
    for _ in range(3):
        process = started(folder)
        # Some progress first, then a random moment: within a step, or while a checkpoint is written.
        before = newest_step(folder)
        wait_for(lambda before=before, process=process: newest_step(folder) > before or process.poll() is not None)
        time.sleep(chance.uniform(0, 0.1))
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills == 3
    assert 0 < newest_step(folder) < STEPS
    train(settings(STEPS), [place / "store/manifest.json"], folder / "out", folder / "work", "cpu")
    assert_same_result(folder, whole)
    assert not (folder / "work/checkpoints").exists()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_bit_identical(place, whole):
    """Each process lives for a random time, whatever it is at: start, a step, the middle of a checkpoint."""
    folder = place / "killed-often"
    chance = random.Random(7)
    kills, reached, first = 0, set(), 0.0
    while kills < 20:
        # Forked when everything is imported, so that kills fall into training, not into Python's start.
        child, started = os.fork(), time.monotonic()
        if not child:
            try:
                train(settings(STEPS), [place / "store/manifest.json"], folder / "out", folder / "work", "cpu")
            finally:
                os._exit(0)
        if first:
            time.sleep(first * chance.uniform(0.1, 1.6))
        else:  # how long that takes depends on what else the machine does
            while not newest_step(folder):
                time.sleep(0.005)
            first = time.monotonic() - started
        os.kill(child, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        reached.add(newest_step(folder))
    # Some fell before the first checkpoint, and the others after many different ones.
    assert len(reached) > 4
    train(settings(STEPS), [place / "store/manifest.json"], folder / "out", folder / "work", "cpu")
    assert_same_result(folder, whole)


@pytest.mark.slow
def test_sigusr1_keeps_a_checkpoint_at_once_and_goes_on(place, whole):
    folder = place / "usr1"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(STEPS)], stdout=subprocess.PIPE, env=environment
    )
    wait_for(lambda: newest_step(folder) > 0)
    seen = set()
    while process.poll() is None:
        process.send_signal(signal.SIGUSR1)
        seen |= {int(path.stem[5:]) for path in (folder / "work/checkpoints").glob("step-*.json")}
        time.sleep(0.003)
    assert process.returncode == 0
    # Unasked, it keeps every fifth step only.
    assert {step for step in seen if step % 5}
    assert_same_result(folder, whole)


# Python's status after Ctrl-C depends on how its parent was started.
@pytest.mark.parametrize(("number", "statuses"), [(signal.SIGTERM, {143}), (signal.SIGINT, {1, 130, -signal.SIGINT})])
def test_told_to_stop_it_keeps_the_step_it_is_at(place, whole, number, statuses):
    folder = place / f"told{number}"
    process = started(folder)
    wait_for(lambda: newest_step(folder) > 0)
    process.send_signal(number)
    assert process.wait(timeout=60) in statuses
    assert 0 < newest_step(folder) < STEPS
    train(settings(STEPS), [place / "store/manifest.json"], folder / "out", folder / "work", "cpu")
    assert_same_result(folder, whole)


@pytest.fixture(scope="module")
def stopped(place):
    """Folder of a run that was killed when it had two checkpoints."""
    folder = place / "stopped"
    process = started(folder)
    wait_for(lambda: len(list((folder / "work/checkpoints").glob("step-*.json"))) >= 2)
    process.kill()
    process.wait()
    return folder


@pytest.mark.parametrize("damage", ["tensors", "description", "entries", "gone"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(place, whole, stopped, damage, caplog):
    folder = shutil.copytree(stopped, place / f"damaged-{damage}")
    newest = max((folder / "work/checkpoints").glob("step-*.json"))
    tensors = newest.with_suffix(".safetensors")
    if damage == "tensors":
        content = bytearray(tensors.read_bytes())
        content[len(content) // 2] ^= 1
        tensors.write_bytes(content)
    elif damage == "description":
        newest.write_text(newest.read_text()[:-20])
    elif damage == "entries":
        newest.write_text(json.dumps({**json.loads(newest.read_text()), "run": "another"}))
    else:
        tensors.unlink()
    with caplog.at_level(logging.WARNING):
        train(settings(STEPS), [place / "store/manifest.json"], folder / "out", folder / "work", "cpu")
    assert f"{newest.name} is damaged" in caplog.text
    assert_same_result(folder, whole)


def test_a_checkpoint_of_other_settings_is_named_and_ignored(place, stopped, caplog):
    folder = shutil.copytree(stopped, place / "other")
    other = dataclasses.replace(settings(20), expansion=2)
    with caplog.at_level(logging.WARNING):
        train(other, [place / "store/manifest.json"], folder / "out", folder / "work", "cpu")
    assert "settings.expansion, settings.steps differs" in caplog.text
    train(other, [place / "store/manifest.json"], place / "fresh/out", place / "fresh/work", "cpu")
    assert_same_result(folder, place / "fresh")


def test_a_checkpoint_of_other_default_rates_is_named_and_ignored(place, stopped, caplog, monkeypatch):
    folder = shutil.copytree(stopped, place / "rates")
    monkeypatch.setattr(TopKSettings, "default_rate", 0.01)
    with caplog.at_level(logging.WARNING):
        train(settings(STEPS), [place / "store/manifest.json"], folder / "out", folder / "work", "cpu")
    assert "rates.learning_rate differs" in caplog.text
    assert json.loads((folder / "out/config.json").read_text())["rates"] == {
        "learning_rate": 0.01 / STEPS**0.5,
        "bias_rate": 1.0,
    }


def test_two_checkpoints_are_kept_and_read_back_whole(tmp_path):
    checkpoints = Checkpoints(tmp_path / "kept", {"seed": 1})
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
        checkpoints.save(Checkpoint(step, {"a": torch.full((3,), step), "b": torch.tensor(0.5)}, [{"step": step}]))
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == [f"step-0000000{step}.{end}" for step in (2, 3) for end in ("json", "safetensors")]
    newest = checkpoints.newest()
    assert newest is not None
    assert (newest.step, newest.rows) == (3, [{"step": 3}])
    assert newest.tensors["a"].tolist() == [3, 3, 3]
    assert Checkpoints(tmp_path / "kept", {"seed": 2}).newest() is None
