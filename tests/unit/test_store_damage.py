"""A damaged store is either read right or refused, never read wrong; and `activations check` says what is wrong."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visae.activations.check import check_store
from visae.activations.given import write_store
from visae.activations.reader import ShuffledReader
from visae.activations.schema import DTYPES, shard_name
from visae.activations.store import ActivationStore
from visae.errors import StoreError

TOKENS = [-1, *range(6)]


@pytest.fixture(params=list(DTYPES))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    values = torch.randn(40, len(TOKENS), 5, generator=torch.Generator().manual_seed(0)).to(DTYPES[request.param])
    path = write_store(tmp_path / "store", values, TOKENS, {"train": 30, "val": 10}, dtype=request.param, shards=2)
    return path, values.float()


def read_right_or_refused(path: Path, values: torch.Tensor) -> bool:
    """Read all pictures, in order and shuffled; True if they came, and then they are right."""
    try:
        store = ActivationStore.open(path)
        found = store.read(range(40), "all")
        batch = next(ShuffledReader([store], "train", 30 * 6, seed=0).batches())
    except StoreError:
        return False
    assert torch.equal(found, values)
    expected = values[:30, 1:].flatten(0, 1).numpy()
    assert np.array_equal(np.sort(batch.numpy(), axis=0), np.sort(expected, axis=0))
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_never_read_as_a_value(made: tuple[Path, torch.Tensor], data: st.DataObject) -> None:
    path, values = made
    shard = path.parent / shard_name(data.draw(st.integers(0, 1)))
    whole = bytearray(shard.read_bytes())
    # Pages first, then the footer, which is most of so small a file.
    place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 600))
    damaged = whole.copy()
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    shard.write_bytes(damaged)
    try:
        read_right_or_refused(path, values)
        [problem] = check_store(path.parent)
        # Where the bit is one of those that say whose shard it is, it looks like somebody else's.
        assert re.search(rf"{re.escape(shard.name)}: (altered|foreign)", problem)
    finally:
        shard.write_bytes(whole)


def test_every_bit_of_the_values_is_guarded(made: tuple[Path, torch.Tensor]) -> None:
    """The bytes of the values themselves, one after the other: a change there is always refused."""
    path, values = made
    shard = path.parent / shard_name(0)
    whole = shard.read_bytes()
    first = values[:20].to(DTYPES[ActivationStore.open(path).dtype]).view(torch.uint8).numpy().tobytes()
    start = whole.index(first)
    for place in range(start, start + len(first), 17):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert not read_right_or_refused(path, values)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_shard_is_refused(made: tuple[Path, torch.Tensor], cut: float) -> None:
    path, values = made
    shard = path.parent / shard_name(1)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(len(whole) * cut)])
    try:
        assert not read_right_or_refused(path, values)
        [problem] = check_store(path.parent)
        assert f"{shard.name}: truncated: {int(len(whole) * cut)} bytes of {len(whole)}" in problem
    finally:
        shard.write_bytes(whole)


def test_shards_of_one_size_do_not_stand_in_for_each_other(tmp_path: Path) -> None:
    values = torch.randn(40, len(TOKENS), 5)
    path = write_store(tmp_path, values, TOKENS, {"train": 30, "val": 10}, shards=4)
    first, second = (path.parent / shard_name(number) for number in (1, 2))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert not read_right_or_refused(path, values)
    assert ["foreign" in problem for problem in check_store(path.parent)] == [True, True]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "visae activations 1"}'])
def test_a_damaged_manifest_is_named(made: tuple[Path, torch.Tensor], text: str) -> None:
    path, _ = made
    path.write_text(text)
    [problem] = check_store(path.parent)
    assert problem.startswith(f"{path}: damaged manifest")
    with pytest.raises(StoreError, match=r"manifest\.json"):
        ActivationStore.open(path)


def command(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "visae", "activations", "check", str(folder)], capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_command_names_every_problem(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 7, 5)).astype(np.float32)
    for name in ("whole", "broken"):
        write_store(tmp_path / name, values, TOKENS, {"train": 40}, shards=4)
    assert command(tmp_path / "whole").returncode == 0
    broken = tmp_path / "broken"
    shards = [broken / shard_name(number) for number in range(4)]
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[2].write_bytes((tmp_path / "whole" / shard_name(3)).read_bytes())
    altered = bytearray(shards[3].read_bytes())
    altered[len(altered) // 3] ^= 1
    shards[3].write_bytes(altered)
    (broken / "shard-00009.parquet").write_bytes(b"")
    done = command(tmp_path)
    assert done.returncode == 1
    for number, state in zip([9, 0, 1, 2, 3], ["foreign", "missing", "truncated", "foreign", "altered"], strict=True):
        assert f"{broken / shard_name(number)}: {state}" in done.stderr
    assert str(tmp_path / "whole") not in done.stderr
    assert command(tmp_path / "nothing").returncode == 1


def test_processes_share_an_epoch_without_overlap(tmp_path: Path) -> None:
    """Every row is read by exactly one of three processes, whatever the pool."""
    values = np.arange(2000 * 30 * 2, dtype=np.float32).reshape(2000, 30, 2)
    store = ActivationStore.open(write_store(tmp_path, values, list(range(30)), {"train": 2000}, shards=3))
    rows = []
    for rank in range(3):
        reader = ShuffledReader([store], "train", 100, seed=5, pool_bytes=100_000, rank=rank, world_size=3)
        batches = itertools.islice(reader.batches(), -(-reader.n_tokens // 100))
        rows.append(torch.cat(list(batches))[: reader.n_tokens])
    assert max(map(len, rows)) - min(map(len, rows)) <= 2 * 8192
    joined = torch.cat(rows)[:, 0].sort().values
    assert np.array_equal(joined.numpy(), np.sort(values[:, :, 0].ravel()))


def test_a_process_without_a_share_is_told(tmp_path: Path) -> None:
    values = np.zeros((4, 3, 2), dtype=np.float32)
    store = ActivationStore.open(write_store(tmp_path, values, [0, 1, 2], {"train": 4}))
    with pytest.raises(StoreError, match=r"process 1 of 2"):
        ShuffledReader([store], "train", 2, seed=0, rank=1, world_size=2)


def test_the_manifest_says_what_each_shard_holds(made: tuple[Path, torch.Tensor]) -> None:
    path, values = made
    shards = json.loads(path.read_text())["shards"]
    for shard, part in zip(shards, (values[:20], values[20:]), strict=True):
        assert shard["rows"] == 20 * len(TOKENS)
        assert (shard["minimum"], shard["maximum"]) == (float(part.min()), float(part.max()))
        assert shard["nan_count"] == 0
