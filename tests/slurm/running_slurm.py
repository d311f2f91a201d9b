"""The fixture of this folder's tests: a Slurm that runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from one_node import SETUP, OneNode, missing_programs
from submitted import SMALL


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNode]:
    """Start Slurm, and let this process and its children find it while this file's tests run, and no longer."""
    if missing := missing_programs():
        reason = f"no Slurm here ({', '.join(missing)} missing); {SETUP}"
        if os.environ.get("VISAE_REQUIRE_SLURM"):
            pytest.fail(reason)
        pytest.skip(reason)
    node = OneNode(tmp_path_factory.mktemp("node") / "slurm")
    kept = {name: os.environ.get(name) for name in ("PATH", "PYTHONPATH")}
    try:
        node.start()
        os.environ.update(node.environment, PYTHONPATH=str(SMALL.ROOT / "src"))
        yield node
    finally:
        node.stop()
        os.environ.update({name: value for name, value in kept.items() if value is not None})
        for name in [name for name, value in kept.items() if value is None]:
            os.environ.pop(name, None)
