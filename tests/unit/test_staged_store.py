"""Training from copies of stores on a machine's own disk: same results, whatever happens to the copies."""

import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_run_for_tests import settings

from visae.activations.given import write_store
from visae.activations.staging import staged
from visae.activations.store import ActivationStore
from visae.errors import StoreError
from visae.files import read_json
from visae.sae.trainer import Around, train

# Copies the store and says so after each shard, slowly: the test kills it after the first.
SLOW = """
import sys, time
from pathlib import Path
from visae.activations import staging
copy = staging._copy
def slow(*arguments):
    copy(*arguments)
    print("copied", flush=True)
    time.sleep(60)
staging._copy = slow
with staging.staged([Path(sys.argv[1])], sys.argv[2]):
    pass
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("staging") / "store"
    activations = np.random.default_rng(5).standard_normal((60, 17, 12)).astype(np.float32)
    write_store(folder, activations, [-1, *range(16)], {"train": 50, "val": 10}, shards=3)
    return folder / "manifest.json"


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.parquet"))}


def trained(manifest, folder, scratch):
    torch.set_num_threads(1)
    train(settings(12), [manifest], folder / "out", folder / "work", "cpu", around=Around(scratch=scratch))
    return (folder / "out/sae.safetensors").read_bytes()


def test_weights_are_the_same_and_the_copy_is_gone(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    in_place = trained(manifest, tmp_path / "in-place", None)
    assert trained(manifest, tmp_path / "staged", "$NODE_DISK") == in_place
    assert not list((tmp_path / "disk/visae-stores").rglob("*.parquet"))
    summary, other = (read_json(tmp_path / name / "out/summary.json") for name in ("in-place", "staged"))
    assert summary["normalized_mse"] == other["normalized_mse"]
    assert summary["provenance"]["inputs"] == other["provenance"]["inputs"]


def test_training_reads_the_copy(manifest, tmp_path):
    with staged([manifest], str(tmp_path)) as (copy,):
        path = copy.with_name("shard-00000.parquet")
        altered = bytearray(path.read_bytes())
        altered[len(altered) // 2] ^= 1
        path.write_bytes(altered)
        with pytest.raises(StoreError, match=str(copy.parent)):
            trained(manifest, tmp_path, str(tmp_path))


def test_jobs_share_a_copy_and_the_last_one_deletes_it(manifest, tmp_path):
    with staged([manifest], str(tmp_path)) as (first,):
        inode = first.with_name("shard-00000.parquet").stat().st_ino
        with staged([manifest, manifest], str(tmp_path)) as (second, third):
            assert first == second == third
            assert first.with_name("shard-00000.parquet").stat().st_ino == inode
        assert shards(first.parent) == shards(manifest.parent)
        assert ActivationStore.open(first).read(range(3)).equal(ActivationStore.open(manifest).read(range(3)))
    assert not first.parent.exists()


def test_what_a_killed_job_copied_is_used(manifest, tmp_path):
    command = [sys.executable, "-c", SLOW, str(manifest), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "copied\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = tmp_path.rglob("shard-*.parquet")
    torn = left.with_name(".shard-00001.parquet.0123.partial")
    torn.write_bytes(b"torn")
    inode = left.stat().st_ino
    with staged([manifest], str(tmp_path)) as (copy,):
        assert copy.parent == left.parent
        assert left.stat().st_ino == inode
        assert not torn.exists()
        assert shards(copy.parent) == shards(manifest.parent)


def test_a_torn_or_foreign_copy_is_made_again(manifest, tmp_path):
    with staged([manifest], str(tmp_path)) as (copy,):
        kept = tmp_path / "kept"
        shutil.copytree(copy.parent, kept)
    whole = (kept / "shard-00000.parquet").read_bytes()
    (kept / "shard-00000.parquet").write_bytes(whole[:-100])
    (kept / "shard-00001.parquet").write_bytes(whole[: (kept / "shard-00001.parquet").stat().st_size])
    kept.rename(copy.parent)
    with staged([manifest], str(tmp_path)) as (copy,):
        assert shards(copy.parent) == shards(manifest.parent)


def test_without_room_the_store_is_read_where_it_lies(manifest, tmp_path, caplog):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with caplog.at_level(logging.WARNING):
            without_room = trained(manifest, tmp_path, str(disk))
        assert not list(disk.rglob("*.parquet"))
    finally:
        subprocess.run(["umount", disk], check=True)
    needed = sum(len(content) for content in shards(manifest.parent).values())
    assert f"no room for {manifest.parent} in {disk}/visae-stores/" in caplog.text
    assert f"{needed} bytes are to be copied" in caplog.text
    assert without_room == trained(manifest, tmp_path / "in-place", None)


def test_what_cannot_be_copied_is_refused(manifest, tmp_path):
    with pytest.raises(StoreError, match=r"scratch: \$NO_SUCH_DISK: not set on "), staged([manifest], "$NO_SUCH_DISK"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="visae-stores cannot be made on"), staged([manifest], str(tmp_path / "file")):
        pass
    store = shutil.copytree(manifest.parent, tmp_path / "store")
    path = store / "shard-00001.parquet"
    path.write_bytes(path.read_bytes().replace(b"\x00", b"\x01", 1))
    with (
        pytest.raises(StoreError, match=r"shard-00001\.parquet: its bytes are not those that were written"),
        staged([store / "manifest.json"], str(tmp_path)),
    ):
        pass
