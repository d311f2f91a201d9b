"""Import timm beside a CPU build of torch, and without torch.compile.

PyPI's torchvision, which timm imports, is built for CUDA. Beside a CPU torch its compiled operators do not load, and
its import dies with `operator torchvision::nms does not exist`. Declaring the two schemas that it looks for is enough:
visae calls neither.

Both import all of torch.compile, for a function that visae never calls and for a decorator: a second of processor time
in each job that loads a model.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_COMPILER, _ASKED = "torch._dynamo.utils", "is_compile_supported"
_kept: list[torch.library.Library] = []


def import_timm() -> None:
    """Import timm, so that whoever does it next finds it; does nothing where torchvision has been imported before."""
    if "torchvision" in sys.modules:
        return
    if torch.version.cuda is None and not _kept and importlib.util.find_spec("torchvision") is not None:
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _kept.append(library)
    with _compiler_left_out():
        importlib.import_module("timm")


@contextmanager
def _compiler_left_out() -> Iterator[None]:
    """Put stand-ins into the places of torch.compile's parts that an import asks for; they end with it."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    decorator = torch.compiler.disable
    sys.modules[_COMPILER] = stand_in = _StandIn(_COMPILER)
    torch.compiler.disable = _disabled_when_called  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compiler.disable = decorator
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]


class _StandIn(ModuleType):
    """Gives way to the real module as soon as more is asked of it than the function, or the function is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        if name == _ASKED:
            return _asked_later
        if sys.modules.get(_COMPILER) is self:
            del sys.modules[_COMPILER]
        return getattr(importlib.import_module(_COMPILER), name)


def _asked_later(device: Any) -> bool:
    """The function that torchvision takes, which imports torch.compile when it is called."""
    return getattr(importlib.import_module(_COMPILER), _ASKED)(device)


def _disabled_when_called(function: Callable[..., Any] | None = None, recursive: bool = True, **options: Any) -> Any:
    """The decorator torch.compiler.disable, which decorates at the first call instead of at once."""
    if function is None:
        return functools.partial(_disabled_when_called, recursive=recursive, **options)
    decorated: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        if not decorated:
            decorated.append(torch.compiler.disable(function, recursive, **options))
        return decorated[0](*arguments, **named)

    return called
