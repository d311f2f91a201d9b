"""What a checkpoint's owners say of it, in the configuration beside it, against the model that was built.

Weights of one shape fit networks of several meanings: another activation function, number of heads or epsilon changes
every number and no shape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.notices import Notice

# transformers leaves out of config.json what is its default, so the defaults have to be known.
_TRANSFORMERS = {
    "clip": ("quick_gelu", 1e-5, 12, 224),
    "siglip": ("gelu_pytorch_tanh", 1e-6, 12, 224),
    "dinov2": ("gelu", 1e-6, 12, 224),
    "dinov2_with_registers": ("gelu", 1e-6, 12, 224),
    "vit": ("gelu", 1e-12, 12, 224),
}
# timm's names for activation functions of transformers; `gelu_new` and `gelu_fast` are the same formula as the tanh.
_ACTIVATIONS = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_python": "gelu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Meaning:
    """What the shapes of a vision transformer's weights do not say; None where it is not known.

    Attributes
    ----------
    activation
        timm's name of the activation function of the MLPs: `gelu` (exact), `gelu_tanh`, `quick_gelu`, ...
    epsilon
        What layer norms add to the variance.
    heads
        Attention heads of a block.
    image_size
        Side in pixels that its position embeddings were trained for.
    """

    activation: str | None = None
    epsilon: float | None = None
    heads: int | None = None
    image_size: int | None = None


def activation_of(module: Any) -> str | None:
    """Name, as timm's, of the activation function of a model's MLPs; None where it has no blocks of that kind."""
    function = getattr(getattr(_first_block(module), "mlp", None), "act", None)
    if function is None:
        return None
    known = {"QuickGELU": "quick_gelu", "GELUTanh": "gelu_tanh", "SiLU": "silu", "ReLU": "relu"}
    name = type(function).__name__
    if name == "GELU":
        return "gelu_tanh" if getattr(function, "approximate", "none") == "tanh" else "gelu"
    return known.get(name, name)


def owner_notices(module: Any, weights_path: Path) -> list[Notice]:
    """Compare a built model with the configurations beside its weights file.

    Parameters
    ----------
    module
        timm model.
    weights_path
        File whose folder may hold config.json (transformers, timm) or open_clip_config.json.

    Returns
    -------
    list of Notice
        A warning for whatever changes every number; a note where position embeddings were resampled.
    """
    notices = []
    for name, read in (("config.json", _of_config), ("open_clip_config.json", _of_open_clip)):
        path = weights_path.with_name(name)
        if not path.is_file():
            continue
        try:
            said, further = read(json.loads(path.read_text(encoding="utf-8")), module)
        except (ValueError, TypeError, AttributeError) as error:
            notices.append(Notice("note", f"{name} beside the weights cannot be read ({error}): nothing was compared"))
            continue
        notices += [*_differences(name, said, _of_module(module)), *further]
    return notices


def _differences(name: str, said: Meaning, built: Meaning) -> list[Notice]:
    found = []
    if said.activation and built.activation and said.activation != built.activation:
        found.append(
            f"the activation function is {said.activation}, and this architecture has {built.activation}: set "
            f"activation_function: {said.activation}, or take timm's variant of that name"
        )
    if said.heads and built.heads and said.heads != built.heads:
        found.append(f"blocks have {said.heads} attention heads, and this architecture has {built.heads}: take another")
    if said.epsilon and built.epsilon and abs(said.epsilon / built.epsilon - 1) > 0.01:
        found.append(
            f"layer norms add {said.epsilon:g} to the variance, and this architecture adds {built.epsilon:g}: "
            "activations differ a little from their owner's"
        )
    notices = [Notice("warning", f"{name} beside the weights says that {text}") for text in found]
    if said.image_size and built.image_size and said.image_size != built.image_size:
        notices.append(
            Notice(
                "note",
                f"{name} beside the weights says that they are for pictures of {said.image_size} px, and this model "
                f"sees {built.image_size} px: position embeddings were resampled (docs/store.md says how)",
            )
        )
    return notices


def _of_module(module: Any) -> Meaning:
    block = _first_block(module)
    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    return Meaning(
        activation_of(module),
        getattr(getattr(block, "norm1", None), "eps", None),
        getattr(getattr(block, "attn", None), "num_heads", None),
        size[0] if size and size[0] == size[-1] else None,
    )


def _of_config(config: dict[str, Any], module: Any) -> tuple[Meaning, list[Notice]]:
    """What config.json says: transformers' of a model or of its vision part, or timm's."""
    if "architecture" in config:
        return Meaning(), _timm_notices(config, module)
    vision = config.get("vision_config") or config
    kind = (
        str(vision.get("model_type", config.get("model_type", ""))).removesuffix("_vision_model").removesuffix("_model")
    )
    defaults = _TRANSFORMERS.get(kind)
    if defaults is None:
        return Meaning(), []
    named = ("hidden_act", "layer_norm_eps", "num_attention_heads", "image_size")
    activation, *numbers = (vision.get(name, default) for name, default in zip(named, defaults, strict=True))
    if vision.get("use_swiglu_ffn"):  # a gated MLP, which never asks for hidden_act
        activation = "silu"
    return Meaning(_ACTIVATIONS.get(activation, activation), *numbers), []


def _of_open_clip(config: dict[str, Any], module: Any) -> tuple[Meaning, list[Notice]]:
    """What open_clip_config.json says of its vision tower, which open_clip builds itself or has from timm."""
    model = config.get("model_cfg", config)
    vision = model.get("vision_cfg", {})
    if "timm_model_name" in vision:
        return Meaning(image_size=vision.get("image_size")), _other_architecture(
            "open_clip_config.json", vision["timm_model_name"], module
        )
    if "width" not in vision:
        return Meaning(), []
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    if (vision.get("act_kwargs") or {}).get("approximate") == "tanh":
        activation = "gelu_tanh"
    epsilon = (vision.get("norm_kwargs") or {}).get("eps", 1e-5)
    heads = vision["width"] // vision.get("head_width", 64)
    return Meaning(activation, epsilon, heads, vision.get("image_size")), []


def _timm_notices(config: dict[str, Any], module: Any) -> list[Notice]:
    notices = _other_architecture("config.json", config["architecture"], module)
    if arguments := config.get("model_args"):
        notices.append(
            Notice(
                "warning",
                "config.json beside the weights changes its architecture by "
                + ", ".join(f"{name}: {value}" for name, value in arguments.items())
                + ", which is not applied here",
            )
        )
    return notices


def _other_architecture(name: str, said: str, module: Any) -> list[Notice]:
    built = (getattr(module, "pretrained_cfg", None) or {}).get("architecture")
    theirs = said.split(".", maxsplit=1)[0]
    if not built or theirs == built:
        return []
    text = f"{name} beside the weights says that they are of {theirs}, and architecture is {built}: weights of one "
    return [Notice("warning", text + "shape fit several; take the owner's")]


def _first_block(module: Any) -> Any:
    blocks = getattr(module, "blocks", None)
    return blocks[0] if blocks is not None and len(blocks) else None
