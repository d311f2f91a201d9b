"""Loggers: what TensorBoard reads back, and that results are the same with and without."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from visae.activations.given import write_store
from visae.config.settings import TopKSettings
from visae.errors import ConfigError
from visae.sae.trainer import Around, train

SETTINGS = TopKSettings(variant="topk", k=3, expansion=3, steps=12, batch_size=64, log_every=4, checkpoint_every=6)


@pytest.fixture
def manifest(tmp_path):
    values = np.random.default_rng(5).standard_normal((30, 16, 8)).astype(np.float32)
    return write_store(tmp_path / "store", values, list(range(16)), {"train": 20, "val": 10})


def test_tensorboard_has_what_metrics_has_and_results_are_the_same(manifest, tmp_path) -> None:
    reason = "tensorboard is an extra: pip install visae[tensorboard]"
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    train(SETTINGS, [manifest], tmp_path / "plain", tmp_path / "work/a", "cpu")
    train(
        SETTINGS, [manifest], tmp_path / "watched", tmp_path / "work/b", "cpu", around=Around(loggers=["tensorboard"])
    )
    one, other = (load_file(tmp_path / name / "sae.safetensors") for name in ("plain", "watched"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    read = events.EventAccumulator(str(tmp_path / "work/events/watched-b"))
    read.Reload()
    rows = pl.read_parquet(tmp_path / "watched/metrics.parquet")
    for split, metric in (("train", "loss"), ("val", "normalized_mse")):
        expected = rows.filter(split=split)
        found = read.Scalars(f"{split}/{metric}")
        assert [event.step for event in found] == expected["step"].to_list()
        assert [event.value for event in found] == pytest.approx(expected[metric].to_list(), rel=1e-6)


@pytest.mark.slow
def test_a_killed_training_goes_on_in_the_same_run_of_wandb_and_a_new_one_does_not(tmp_path, monkeypatch) -> None:
    pytest.importorskip("wandb", reason="wandb is an extra: pip install visae[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    start = "from visae.sae.loggers import opened; import os, pathlib, signal; "
    start += f"(logger,) = opened(['wandb'], pathlib.Path({str(tmp_path)!r}), 'topk', {{'k': 3}}); "
    start += "logger.log(1, {'train/loss': 0.5}); print(logger._run.id, flush=True); "
    ids = [
        subprocess.run([sys.executable, "-c", start + end], stdout=subprocess.PIPE, text=True, timeout=100).stdout
        for end in ("os.kill(os.getpid(), signal.SIGKILL)", "logger.close()", "logger.close()")
    ]
    assert ids[0] == ids[1] != ids[2]
    assert all(ids)


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_named_with_its_extra(manifest, tmp_path, monkeypatch, name, package) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"loggers: {name}: not installed; pip install 'visae\[{name}\]'"):
        train(SETTINGS, [manifest], tmp_path / "out", tmp_path / "work", "cpu", around=Around(loggers=[name]))
