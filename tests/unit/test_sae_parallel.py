"""Two processes, each with half of every batch, against one with all of it."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from sae_parallel_for_tests import train_all
from sae_variants import CASES, planted
from safetensors.torch import load_file

from visae.activations.given import write_store

SCRIPT = Path(__file__).with_name("sae_parallel_for_tests.py")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with the results of one process in `one`, of two in `two`."""
    folder = tmp_path_factory.mktemp("parallel")
    values = planted(60 * 16, seed=1).view(60, 16, 16).numpy()
    write_store(folder / "store", values, list(range(16)), {"train": 50, "val": 10}, shards=2)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train_all(folder, folder / "one")
    torch.set_num_threads(before)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder), str(folder / "two")], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_two_processes_give_the_weights_of_one(place, name) -> None:
    one, two = (load_file(place / folder / name / "sae.safetensors") for folder in ("one", "two"))
    for key, tensor in one.items():
        # Sums in another order: rounding of float32, which some steps of Adam carry on.
        torch.testing.assert_close(two[key], tensor, atol=1e-5, rtol=1e-5, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_what_is_logged_is_of_the_whole_batch(place, name) -> None:
    timed = ("tokens_per_second", "data_wait_share")
    one, two = (pl.read_parquet(place / folder / name / "metrics.parquet").drop(timed) for folder in ("one", "two"))
    assert one.select("step", "split").equals(two.select("step", "split"))
    for column in one.columns[2:]:
        difference = (one[column].fill_null(0) - two[column].fill_null(0)).abs().max()
        assert difference <= 1e-4 * max(1.0, one[column].abs().max() or 0.0), column


def test_dead_latents_are_counted_over_both(place) -> None:
    """Else the auxiliary loss, which the variants' tests have on, would act on other latents in each process."""
    rows = pl.read_parquet(place / "two/topk/metrics.parquet").filter(split="train")
    assert rows["auxk"][-1] > 0
    assert 0 < rows["dead_share"].max() < 1
