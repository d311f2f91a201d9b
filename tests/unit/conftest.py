"""Fixtures of several modules."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no GPU here"))


@pytest.fixture(scope="module")
def one_thread():
    """Products as small as those of tests only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    """Where an index shall be written; its folder is not there yet."""
    return tmp_path / "results" / "birds" / "index.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a data set shall be written; this folder is not there yet."""
    return tmp_path / "set"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def six_pictures(tmp_path: Path) -> Path:
    """A folder of pictures 0.png to 5.png, their masks 0.mask.png and so on, and the list of the masks' classes."""
    for number in range(6):
        values = np.random.default_rng(number).integers(0, 255, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
        Image.new("L", (9, 6), 2).save(tmp_path / f"{number}.mask.png")
    (tmp_path / "classes.txt").write_text("2\tsky\n5\ttree\n")
    return tmp_path
