"""What a checkpoint's owners say of it, in the configuration beside it, against the model that was built.

Weights of one shape fit networks of several meanings: another activation function, number of heads or epsilon changes
every number and no shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from visae.errors import ModelError
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


def said_of(config: Mapping[str, Any] | None, clip: Mapping[str, Any] | None) -> Meaning:
    """Read a config.json of transformers, or an open_clip_config.json, which comes first where both are there."""
    model = (clip or {}).get("model_cfg", clip or {})
    vision = model.get("vision_cfg") or {}
    if clip is not None and "timm_model_name" not in vision:
        is_tanh = (vision.get("act_kwargs") or {}).get("approximate") == "tanh"
        return Meaning(
            activation="quick_gelu" if model.get("quick_gelu") else "gelu_tanh" if is_tanh else "gelu",
            epsilon=(vision.get("norm_kwargs") or {}).get("eps", 1e-5),
            heads=vision["width"] // vision.get("head_width", 64) if "width" in vision else None,
            image_size=_side(vision.get("image_size")),
        )
    config = config or {}
    part = config.get("vision_config") or config
    kind = str(part.get("model_type", config.get("model_type"))).removesuffix("_vision_model").removesuffix("_model")
    named = ("hidden_act", "layer_norm_eps", "num_attention_heads", "image_size")
    defaults = _TRANSFORMERS.get(kind, (None,) * len(named))
    activation, epsilon, heads, size = (part.get(name, other) for name, other in zip(named, defaults, strict=True))
    if part.get("use_swiglu_ffn"):  # a gated MLP, which never asks for hidden_act
        activation = "silu"
    return Meaning(_ACTIVATIONS.get(activation, activation), epsilon, heads, _side(size))


def owner_notices(module: Any, said: Meaning) -> list[Notice]:
    """Compare what shapes do not say, but for the activation function, with a built model.

    Returns
    -------
    list of Notice
        A warning for whatever changes every number; a note where position embeddings were resampled.
    """
    blocks = getattr(module, "blocks", None) or [None]
    heads = getattr(getattr(blocks[0], "attn", None), "num_heads", None)
    epsilon = getattr(getattr(blocks[0], "norm1", None), "eps", None)
    size = _side(getattr(getattr(module, "patch_embed", None), "img_size", None))
    found = []
    if said.heads and heads and said.heads != heads:
        text = f"blocks have {said.heads} attention heads, and this architecture has {heads}: take another architecture"
        found.append(Notice("warning", f"the configuration beside the weights says that {text}"))
    if said.epsilon and epsilon and abs(said.epsilon / epsilon - 1) > 0.01:
        text = f"layer norms add {said.epsilon:g} to the variance, and this architecture adds {epsilon:g}"
        effect = "activations differ a little from their owner's (docs/store.md says how much)"
        found.append(Notice("warning", f"the configuration beside the weights says that {text}: {effect}"))
    if said.image_size and size and said.image_size != size:
        text = f"the weights are for pictures of {said.image_size} px, and this model sees {size} px"
        found.append(Notice("note", f"{text}: position embeddings were resampled (docs/store.md says how)"))
    return found


def set_activation(module: Any, name: str) -> None:
    """Replace the activation function of all MLPs of a vision transformer.

    Raises
    ------
    ModelError
        If it has no blocks with such MLPs.
    """
    from timm.layers import get_act_layer

    kind = get_act_layer(name)
    pools = [getattr(module, part) for part in ("attn_pool",) if getattr(module, part, None) is not None]
    found = [part.mlp for part in [*(getattr(module, "blocks", None) or []), *pools] if hasattr(part, "mlp")]
    if not found or not all(isinstance(getattr(mlp, "act", None), nn.Module) for mlp in found):
        raise ModelError(
            f"models: activation_function: {name}: {type(module).__name__} has no blocks with an MLP whose activation "
            "function could be another; leave the key out"
        )
    for mlp in found:
        mlp.act = kind()


def _side(size: Any) -> int | None:
    """Side of a square; None for oblongs, and where nothing is known."""
    sides = {size} if isinstance(size, int) else set(size or ())
    return sides.pop() if len(sides) == 1 else None
