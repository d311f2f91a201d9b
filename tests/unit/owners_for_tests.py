"""Vision models of their owners' libraries with random weights, saved as their owners save them.

Weights are drawn wider than libraries do at the start of a training, so that every part of a block moves the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

from visae.config.settings import ModelIdentity
from visae.vision.model import VisionModel, load_model, prepare_model
from visae.vision.timm_import import import_timm

import_timm()  # before any of the libraries below imports torchvision

TINY_CLIP = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
TINY_CLIP_SHAPE = {"width": 256, "layers": 10, "heads": 4, "patch": 16}
SMALL_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter: matrices of unit gain, scales of norms about 1, biases and tokens of 0.2."""
    generator = torch.Generator().manual_seed(seed)
    scales = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    with torch.no_grad():
        for name, values in module.named_parameters():
            is_matrix = name.endswith("weight") and values.ndim >= 2 and "position" not in name
            about = 1.0 if name in scales or name.endswith(("gamma", "lambda1")) else 0.0
            width = values[0].numel() ** -0.5 if is_matrix else 0.2
            values.normal_(about, width, generator=generator)
    return module.eval()


def clip(activation: str = "quick_gelu", width: int = 768, layers: int = 12, heads: int = 12, patch: int = 32, **more):
    """transformers' CLIP, with a text tower."""
    import transformers

    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 224,
        "patch_size": patch,
        "hidden_act": activation,
    } | more
    text = SMALL_TEXT | {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    return lively(transformers.CLIPModel(config))


def siglip(size: int = 256, patch: int = 32):
    """transformers' SigLIP, with a text tower."""
    import transformers

    vision = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": size,
        "patch_size": patch,
    }
    text = SMALL_TEXT | {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1}
    return lively(transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision)))


def dinov2(registers: int = 4, size: int = 518):
    """transformers' DINOv2 ViT-S/14, with registers or without."""
    import transformers

    shape = {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "image_size": size,
        "patch_size": 14,
    }
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**shape, num_register_tokens=registers)
        return lively(transformers.Dinov2WithRegistersModel(config))
    return lively(transformers.Dinov2Model(transformers.Dinov2Config(**shape)))


def open_clip_model(quick_gelu: bool = False, **vision):
    """open_clip's CLIP, or a tower of timm's in it."""
    import open_clip

    torch.manual_seed(0)
    text = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
    kind = open_clip.CustomTextCLIP if "timm_model_name" in vision else open_clip.CLIP
    model = lively(kind(embed_dim=512, vision_cfg=vision, text_cfg=text, quick_gelu=quick_gelu))
    model.given = vision  # for its configuration
    return model


def transformers_blocks(model: nn.Module, images: Tensor, layers: list[int]) -> list[Tensor]:
    """Outputs of blocks by the owner's code: transformers returns what enters each block and what leaves the last."""
    tower = getattr(model, "vision_model", model)
    with torch.inference_mode():
        states = tower(pixel_values=images, output_hidden_states=True).hidden_states
    return [states[layer + 1] for layer in layers]


def open_clip_blocks(model: nn.Module, images: Tensor, layers: list[int]) -> list[Tensor]:
    """Outputs of blocks by open_clip's own forward pass."""
    tower = model.visual
    blocks = tower.trunk.blocks if hasattr(tower, "trunk") else tower.transformer.resblocks
    seen: dict[int, Tensor] = {}
    hooks = [
        blocks[layer].register_forward_hook(lambda _m, _i, out, layer=layer: seen.update({layer: out}))
        for layer in layers
    ]
    with torch.inference_mode():
        model.encode_image(images)
    for hook in hooks:
        hook.remove()
    return [seen[layer] for layer in layers]


def pooled(model: nn.Module, images: Tensor) -> Tensor:
    """What the owner's code makes of a whole picture."""
    with torch.inference_mode():
        if hasattr(model, "encode_image"):
            return model.encode_image(images)
        return getattr(model, "get_image_features", model)(pixel_values=images).pooler_output


def metas_names(model: nn.Module) -> dict[str, Tensor]:
    """The weights of transformers' DINOv2 in the names and shapes of Meta's own files."""
    theirs = model.state_dict()
    found = {
        "cls_token": theirs["embeddings.cls_token"],
        "pos_embed": theirs["embeddings.position_embeddings"],
        "mask_token": theirs["embeddings.mask_token"],
        "norm.weight": theirs["layernorm.weight"],
        "norm.bias": theirs["layernorm.bias"],
    }
    if "embeddings.register_tokens" in theirs:
        found["register_tokens"] = theirs["embeddings.register_tokens"]
    for kind in ("weight", "bias"):
        found[f"patch_embed.proj.{kind}"] = theirs[f"embeddings.patch_embeddings.projection.{kind}"]
    for block in range(model.config.num_hidden_layers):
        start, ours = f"encoder.layer.{block}.", f"blocks.{block}."
        for kind in ("weight", "bias"):
            parts = [theirs[f"{start}attention.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{ours}attn.qkv.{kind}"] = torch.cat(parts)
            found[f"{ours}attn.proj.{kind}"] = theirs[f"{start}attention.o_proj.{kind}"]
            for part in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"{ours}{part}.{kind}"] = theirs[f"{start}{part}.{kind}"]
        for part in (1, 2):
            found[f"{ours}ls{part}.gamma"] = theirs[f"{start}layer_scale{part}.lambda1"]
    return found


def vits_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a plain ViT of timm in the names of transformers' ViT, without its head."""
    names = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    found = {"embeddings.cls_token": state["cls_token"], "embeddings.position_embeddings": state["pos_embed"]}
    for name, tensor in state.items():
        part, kind = name.rsplit(".", maxsplit=1) if "." in name else (name, "")
        if part == "patch_embed.proj":
            found[f"embeddings.patch_embeddings.projection.{kind}"] = tensor
        elif part == "norm":
            found[f"layernorm.{kind}"] = tensor
        elif part.startswith("blocks."):
            _, block, inner = part.split(".", maxsplit=2)
            start = f"encoder.layer.{block}"
            if inner == "attn.qkv":
                for piece, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    found[f"{start}.attention.attention.{piece}.{kind}"] = third.contiguous()
            else:
                found[f"{start}.{names[inner]}.{kind}"] = tensor
    return found


def save_transformers(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def photographs(folder: Path) -> list[Path]:
    """Photographs of odd sizes as files: an oblong JPEG, a tall PNG, a square JPEG, and a small PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[], np.ndarray]] = {
        "wide.jpg": lambda: data.astronaut()[40:341, 11:498],
        "tall.png": lambda: data.coffee()[:399, 100:337],
        "square.jpg": lambda: data.chelsea()[:299, 50:349],
        "small.png": lambda: data.chelsea()[100:231, 60:251],
    }
    for name, make in makers.items():
        Image.fromarray(make()).save(folder / name, **({"quality": 92} if name.endswith("jpg") else {}))
    return [folder / name for name in makers]


def prepared(folder: Path, architecture: str, weights: Path, **settings: object) -> VisionModel:
    """Take in a file of weights."""
    identity = ModelIdentity(architecture=architecture, weights=str(weights), **settings)
    prepare_model(identity, folder / "weights.safetensors", folder / "model.json")
    return load_model(folder / "model.json")
