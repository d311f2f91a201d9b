"""SAEs of ViT-Prisma (aa5ff6a), in one file with their settings or in two.

The code of x is ReLU or TopK of W_enc^T (x' - b_dec) + b_enc, or that of a gated SAE, where x' is x after a layer norm
without weights by default: each token less its own mean over its own deviation.
"""

from __future__ import annotations

from visae.config.saes import Normalization, TokenKinds
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, Parts, checked, oriented, refuse_other_sizes, sae_of, sizes
from visae.sae.foreign.places import place_of_hook
from visae.sae.foreign.rules import gated, topk
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.variants.relu import Relu
from visae.sae.variants.variant import Variant

_GATES = ("b_gate", "r_mag", "b_mag")
# What a setting is where a file says nothing of it.
_DEFAULTS = {"architecture": "standard", "activation_fn_str": "topk", "normalize_activations": "layer_norm"}
_NORMALIZED: dict[str, Normalization] = {"layer_norm": "per_token", "none": "none", "None": "none"}
ASKS = ("k",)


def recognizes(contents: Contents) -> bool:
    """Whether the settings name a kind of hook point as its do, beside matrices."""
    return not contents.is_headed and "layer_subtype" in contents.said and "W_enc" in contents.tensors


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of a file.

    Raises
    ------
    ModelError
        If it is damaged, a transcoder, or has a rule or a normalization that is not known.
    """
    said, of = {**_DEFAULTS, **contents.said}, "SAE of ViT-Prisma"
    if said.get("is_transcoder"):
        raise contents.wrong("is_transcoder", True, "false: a connection past the codes, and a normalization of what "
                             "comes out by what goes in, are no SAE's here")  # fmt: skip
    is_gated = said["architecture"] == "gated"
    if said["architecture"] not in ("standard", "gated"):
        raise contents.wrong("architecture", said["architecture"], "standard, gated")
    kind = _NORMALIZED.get(str(said["normalize_activations"]))
    if kind is None:
        raise contents.wrong("normalize_activations", said["normalize_activations"], "layer_norm, none")
    if said.get("hook_point_head_index") is not None:
        raise contents.wrong("hook_point_head_index", said["hook_point_head_index"], "null: all heads together")
    width, d_model = sizes(contents, "b_enc", "W_enc", of=of)
    refuse_other_sizes(contents, said, {"d_in": d_model, "d_sae": width})
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("b_enc", *(_GATES if is_gated else ())), (width,))
    shapes |= {"W_enc": (d_model, width), "W_dec": (width, d_model), "b_dec": (d_model,)}
    tensors = checked(contents, shapes, of=of)
    bias = tensors["b_gate" if is_gated else "b_enc"]
    parts = Parts(tensors["W_enc"].T, bias, tensors["W_dec"], tensors["b_dec"], True)
    parts = oriented(contents.path, parts, unsaid)
    function, options = said["activation_fn_str"], said.get("activation_fn_kwargs") or {}
    rule: Variant
    if is_gated and function == "relu":
        rule = gated(tensors["r_mag"], tensors["b_mag"], parts.shift)
    elif not is_gated and function == "relu":
        rule = Relu()
    elif not is_gated and function == "topk" and isinstance(options, dict) and not options.keys() - {"k"}:
        rule = topk(contents, options.get("k", unsaid.k), width, "activation_fn_kwargs.k")
    else:
        allowed = "relu" if is_gated else "relu, or topk with k alone in activation_fn_kwargs"
        raise contents.wrong("activation_fn_str", function, allowed)
    sae = sae_of(rule, parts.weights, normalization=kind)
    tokens: TokenKinds = "class" if said.get("cls_token_only") else "patches" if said.get("use_patches_only") else "all"
    hook = f"blocks.{said.get('hook_point_layer')}.{said['layer_subtype']}"
    sae.place = place_of_hook(said.get("model_name"), hook, tokens)
    return Given(sae, [])
