"""Pictures read from Parquet files by their locators: in any order, side by side, and in little memory."""

import io
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from huggingface_for_tests import (
    ALL,
    cell,
    encoded,
    hub,
    pictures,
    plain_shard,
    shard,
    values_of,
)
from PIL import Image

from visae.data import parquet_cells
from visae.data.images import open_image
from visae.data.index import build_index, read_index
from visae.data.locators import content_sha256, file_identity, opened


def test_one_row_a_group_and_a_row_group_of_many(root, index_path, monkeypatch):
    """Windows of a few rows; both ways to lie give the same pictures in any order."""
    monkeypatch.setattr(parquet_cells, "_WINDOW_BYTES", 1000)
    monkeypatch.setattr(parquet_cells, "_HELD_BYTES", 3000)
    for name, size in (("single", 1), ("whole", 1000)):
        plain_shard(root / name / "a.parquet", {"image": pictures(40)}, row_group_size=size)
    order = np.random.default_rng(0).permutation(40)
    for name in ("single", "whole"):
        build_index(hub(root / name, **ALL), index_path)
        paths = read_index(index_path)["path"]
        for number in order:
            assert content_sha256(paths[int(number)]) == content_sha256_of(encoded(int(number)))


def content_sha256_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_threads_and_forked_processes_read_side_by_side(root, index_path):
    plain_shard(root / "a.parquet", {"image": pictures(300)}, row_group_size=70)
    build_index(hub(root, **ALL), index_path)
    paths = read_index(index_path)["path"].to_list()
    expected = [content_sha256_of(encoded(number)) for number in range(300)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(content_sha256, paths)) == expected
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(content_sha256, paths) == expected


def test_a_file_that_changed_after_it_was_indexed_is_named(root, index_path):
    path = shard(root / "a.parquet", {"image": pictures(5)})
    build_index(hub(root, **ALL), index_path)
    last = read_index(index_path)["path"][4]
    assert file_identity(last) != file_identity(read_index(index_path)["path"][3])
    shard(path, {"image": pictures(2)})
    with pytest.raises(OSError, match=r"has no row 5 in that column; it was changed after it was indexed"):
        opened(last)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        opened(last)


def test_names_with_the_signs_of_locators(root, index_path):
    names = ["a@0:7", "x.tar!y@1:2", "/home/somebody/secret/b.png", "C:\\me\\c.png", "line\nbreak.png", "é ü.png"]
    rows = [cell(encoded(number), name) for number, name in enumerate(names)]
    shard(root / "my.parquet!x.tar" / "a.parquet", {"image": rows})
    build_index(hub(root, **ALL), index_path)
    paths = read_index(index_path)["path"]
    shown = [path.rpartition("a.parquet!image/")[2].rpartition("@")[0] for path in paths]
    assert shown == ["a@0:7", "x.tar!y@1:2", "b.png", "c.png", "line?break.png", "é ü.png"]
    for number, path in enumerate(paths):
        np.testing.assert_array_equal(np.asarray(open_image(path)), values_of(number))


MEASURE = """
import sys
from pathlib import Path
from visae.config.settings import HuggingFaceSettings
from visae.data.index import build_index

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024

settings = HuggingFaceSettings(kind="huggingface", root=sys.argv[1], val_share=0, test_share=0)
build_index(settings, sys.argv[2])
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_memory_is_flat_however_large_files_and_row_groups_are(tmp_path):
    """Of 300 kB a picture, as little is held for 1500 pictures as for 500: what windows hold, and what pages need."""
    content = io.BytesIO()
    Image.fromarray(values_of(0, (300, 333))).save(content, "bmp")
    peaks = {}
    for name, count, options in (
        ("few", 500, {}),
        ("many", 1500, {}),
        ("one group", 1500, {"batch_size": 2000}),
    ):
        rows = {"image": [cell(content.getvalue() + number.to_bytes(4)) for number in range(count)]}
        path = shard(tmp_path / name / "a.parquet", rows, **options)
        assert (pyarrow.parquet.read_metadata(path).num_row_groups == 1) == (name == "one group")
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
        command = [sys.executable, "-c", MEASURE, path.parent, tmp_path / "out" / name / "index.parquet"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks[name] = int(done.stdout)
    assert peaks["many"] - peaks["few"] < 60, peaks
    assert peaks["one group"] - peaks["few"] < 60, peaks
