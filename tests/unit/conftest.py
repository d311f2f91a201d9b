"""Fixtures of several modules."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Products as small as those of tests only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
