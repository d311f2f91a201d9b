"""timm is imported without torch.compile, which still works afterwards."""

import subprocess
import sys

import pytest

CODE = """
import sys
from visae.vision.timm_import import import_timm

import_timm()
from visae.config.settings import ModelIdentity
from visae.vision.weights import fetched
import torch

module, _ = fetched(ModelIdentity(architecture="vit_tiny_patch16_224", weights="random"), 0)
with torch.inference_mode():
    module(torch.zeros(1, 3, 224, 224))
print("torch._dynamo" in sys.modules, "torch._dynamo.utils" in sys.modules)
"""
AFTERWARDS = """
import torchvision
from timm.models.naflexvit import NaFlexRopeIterator
from torch._dynamo.utils import is_compile_supported
from torchvision.ops.roi_align import is_compile_supported as kept

assert kept("cpu") == is_compile_supported("cpu")
assert torch.compiler.disable.__module__ == "torch.compiler"
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""


def printed(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_a_forward_pass_needs_no_compiler() -> None:
    assert printed(CODE).split() == ["False", "False"]


@pytest.mark.slow
def test_the_compiler_works_afterwards() -> None:
    assert printed(CODE + AFTERWARDS).split()[-1] == "2.0"


@pytest.mark.slow
def test_a_decorated_function_is_left_out_of_a_compiled_one() -> None:
    code = (
        "from visae.vision.timm_import import _disabled_when_called\n"
        "import torch\n"
        "@_disabled_when_called\n"
        "def inner(x): return x * 2\n"
        "@_disabled_when_called(recursive=False)\n"
        "def other(x): return x * 3\n"
        "graphs = []\n"
        "def backend(graph, inputs): graphs.append(graph.code); return graph.forward\n"
        "outer = torch.compile(lambda x: other(inner(x + 1)) - 1, backend=backend)\n"
        "print(outer(torch.ones(1)).item(), any('* 2' in code for code in graphs))\n"
    )
    assert printed(code).split() == ["11.0", "False"]
