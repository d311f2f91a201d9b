"""Let timm import beside a CPU build of torch.

PyPI's torchvision is built for CUDA. Beside a CPU torch its compiled operators do not load, and its
import dies with `operator torchvision::nms does not exist`. Declaring the two schemas that it looks
for is enough: visae calls neither.
"""

from __future__ import annotations

import importlib.util
import sys

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []


def allow_cpu_torch() -> None:
    """Declare torchvision's missing operators; does nothing where its own build works."""
    if "torchvision" in sys.modules or _kept or importlib.util.find_spec("torchvision") is None:
        return
    if torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _kept.append(library)
