"""What the tests in this folder share: a Slurm that runs, and the helpers of the workflow's tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from one_node import SETUP, OneNode, missing_programs
from submitted import HERE


def small_workflow() -> ModuleType:
    """The helpers of the workflow's tests."""
    spec = importlib.util.spec_from_file_location("small_workflow", HERE.parent / "workflow/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["small_workflow"] = module
    spec.loader.exec_module(module)
    return module


SMALL = small_workflow()


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
