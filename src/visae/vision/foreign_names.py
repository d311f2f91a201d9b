"""timm's names for the weights of other libraries: open_clip and OpenAI, Hugging Face transformers, Meta's DINOv2.

Which library wrote a file is told by the names in it. What belongs to another part than the vision tower is left out
where its name is known, and refused by name where it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visae.errors import ModelError

State = dict[str, Tensor]

# Parts that stand beside a vision tower: text towers and their projections, heads of a pre-training.
_OTHER_PARTS = re.compile(
    r"(text|text_model|text_decoder|transformer|token_embedding|ln_final|dino_head|ibot_head|decoder_\w+)\..*"
    r"|positional_embedding|text_projection(\.weight|\.bias)?|logit_scale|logit_bias|attn_mask|cls_emb"
    r"|input_resolution|context_length|vocab_size"
)
# Of the vision tower itself: counters that are no weights, and what stands for masked patches in training.
_NO_WEIGHTS = re.compile(r"(.*\.)?(position_ids|mask_token|decoder_pos_embed|decoder_\w+\..*|pooler\.dense\.\w+)")


@dataclass(frozen=True)
class Naming:
    """How one library names the parts of a vision tower.

    Attributes
    ----------
    library
        Its name, for messages.
    marks
        Names that, after one and the same prefix, tell a file of this library.
    swaps
        Patterns of whole names (after the prefix) with what timm calls them.
    heads
        Names, of the whole file, of what stands after the tower and is its head, with what timm calls them.
    beside
        Names, of the whole file, that stand beside the tower and are left out.
    """

    library: str
    marks: tuple[str, ...]
    swaps: tuple[tuple[str, str], ...]
    heads: tuple[tuple[str, str], ...] = ()
    beside: str = "(?!)"


_LAYER = r"encoder\.layers?\.(\d+)\."
_W = r"(weight|bias)"
NAMINGS = (
    Naming(
        "open_clip",
        ("conv1.weight", "transformer.resblocks.0.ln_1.weight"),
        (
            (r"class_embedding", "cls_token"),
            (r"positional_embedding", "pos_embed"),
            (rf"conv1\.{_W}", r"patch_embed.proj.\1"),
            (rf"ln_pre\.{_W}", r"norm_pre.\1"),
            (rf"ln_post\.{_W}", r"norm.\1"),
            (rf"transformer\.resblocks\.(\d+)\.ln_([12])\.{_W}", r"blocks.\1.norm\2.\3"),
            (r"transformer\.resblocks\.(\d+)\.ls_([12])\.gamma", r"blocks.\1.ls\2.gamma"),
            (rf"transformer\.resblocks\.(\d+)\.attn\.in_proj_{_W}", r"blocks.\1.attn.qkv.\2"),
            (rf"transformer\.resblocks\.(\d+)\.attn\.out_proj\.{_W}", r"blocks.\1.attn.proj.\2"),
            (rf"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.{_W}", r"blocks.\1.mlp.fc1.\2"),
            (rf"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.{_W}", r"blocks.\1.mlp.fc2.\2"),
            (r"proj", "head.projection"),
        ),
    ),
    Naming(
        "transformers (CLIP, SigLIP)",
        ("embeddings.patch_embedding.weight", "embeddings.position_embedding.weight"),
        (
            (r"embeddings\.class_embedding", "cls_token"),
            (r"embeddings\.position_embedding\.weight", "pos_embed"),
            (rf"embeddings\.patch_embedding\.{_W}", r"patch_embed.proj.\1"),
            (rf"pre_layrnorm\.{_W}", r"norm_pre.\1"),
            (rf"post_layernorm\.{_W}", r"norm.\1"),
            (rf"{_LAYER}layer_norm([12])\.{_W}", r"blocks.\1.norm\2.\3"),
            (rf"{_LAYER}self_attn\.([qkv])_proj\.{_W}", r"blocks.\1.attn.\2.\3"),
            (rf"{_LAYER}self_attn\.out_proj\.{_W}", r"blocks.\1.attn.proj.\2"),
            (rf"{_LAYER}mlp\.fc([12])\.{_W}", r"blocks.\1.mlp.fc\2.\3"),
            (r"head\.probe", "attn_pool.latent"),
            (rf"head\.attention\.in_proj_{_W}", r"attn_pool.q+kv.\1"),
            (rf"head\.attention\.out_proj\.{_W}", r"attn_pool.proj.\1"),
            (rf"head\.layernorm\.{_W}", r"attn_pool.norm.\1"),
            (rf"head\.mlp\.fc([12])\.{_W}", r"attn_pool.mlp.fc\1.\2"),
        ),
        heads=((r"visual_projection\.weight", "head.weight"),),
        # Reads the mean of all patches, which is another pooling than timm's.
        beside=rf"classifier\.{_W}",
    ),
    Naming(
        "transformers (DINOv2, ViT)",
        ("embeddings.patch_embeddings.projection.weight", "embeddings.cls_token"),
        (
            (r"embeddings\.cls_token", "cls_token"),
            (r"embeddings\.register_tokens", "register_tokens"),
            (r"embeddings\.position_embeddings", "pos_embed"),
            (rf"embeddings\.patch_embeddings\.projection\.{_W}", r"patch_embed.proj.\1"),
            (rf"layernorm\.{_W}", r"norm.\1"),
            (rf"{_LAYER}norm([12])\.{_W}", r"blocks.\1.norm\2.\3"),
            (rf"{_LAYER}layernorm_before\.{_W}", r"blocks.\1.norm1.\2"),
            (rf"{_LAYER}layernorm_after\.{_W}", r"blocks.\1.norm2.\2"),
            (rf"{_LAYER}layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
            (rf"{_LAYER}attention\.attention\.(q)uery\.{_W}", r"blocks.\1.attn.\2.\3"),
            (rf"{_LAYER}attention\.attention\.(k)ey\.{_W}", r"blocks.\1.attn.\2.\3"),
            (rf"{_LAYER}attention\.attention\.(v)alue\.{_W}", r"blocks.\1.attn.\2.\3"),
            (rf"{_LAYER}attention\.([qkv])_proj\.{_W}", r"blocks.\1.attn.\2.\3"),
            (rf"{_LAYER}attention\.(?:output\.dense|o_proj)\.{_W}", r"blocks.\1.attn.proj.\2"),
            (rf"{_LAYER}(?:mlp\.fc1|mlp\.weights_in|intermediate\.dense)\.{_W}", r"blocks.\1.mlp.fc1.\2"),
            (rf"{_LAYER}(?:mlp\.fc2|mlp\.weights_out|output\.dense)\.{_W}", r"blocks.\1.mlp.fc2.\2"),
        ),
        # Of a ViT it reads the class token and would be timm's head; of DINOv2 the mean of patches too.
        beside=rf"classifier\.{_W}",
    ),
    Naming(
        "timm or Meta's DINOv2",
        ("patch_embed.proj.weight",),
        # Meta's training keeps blocks in chunks, and names the parts of a gated MLP otherwise.
        (
            (r"blocks\.\d+\.(\d+\..*)", r"blocks.\1"),
            (rf"blocks\.(?:\d+\.)?(\d+)\.mlp\.w12\.{_W}", r"blocks.\1.mlp.fc1.\2"),
            (rf"blocks\.(?:\d+\.)?(\d+)\.mlp\.w3\.{_W}", r"blocks.\1.mlp.fc2.\2"),
        ),
        heads=((rf"head\.proj\.{_W}", r"head.\1"),),
    ),
)


def timm_names(state: State, module: Any) -> State:
    """Give a vision tower's weights the names, and the shapes but for resampling, that a timm module has for them.

    Parameters
    ----------
    state
        Names to tensors, as a file has them.
    module
        The timm model that is to load them. Where it is no transformer with patches, or the names are none that are
        known here, the state is returned as it is.

    Raises
    ------
    ModelError
        If the file has several vision towers, parts that are neither of the tower nor known to stand beside it, or
        patches of another size.
    """
    own = module.state_dict()
    if "patch_embed.proj.weight" not in own or not hasattr(module, "blocks"):
        return state
    for naming in NAMINGS:
        prefixes = _prefixes(naming, state)
        if len(prefixes) > 1:
            raise ModelError(
                f"it holds several vision towers, under {', '.join(repr(prefix) for prefix in prefixes)}; save one"
            )
        if prefixes:
            found = _shaped(_renamed(state, naming, prefixes[0], own), module)
            _check_patches(found, own)
            return found
    return state


def _check_patches(state: State, own: State) -> None:
    """Refuse patches of another size, which timm would resample without a word."""
    theirs, ours = (tensors["patch_embed.proj.weight"].shape for tensors in (state, own))
    if len(theirs) == len(ours) == 4 and theirs[2:] != ours[2:]:
        raise ModelError(
            f"its patches have {theirs[2]} x {theirs[3]} px, and those of this architecture {ours[2]} x {ours[3]} px; "
            "take the architecture of the file's"
        )


def _prefixes(naming: Naming, state: State) -> list[str]:
    """What stands before this library's names in a state dict, for each vision tower in it."""
    first = naming.marks[0]
    found = (name.removesuffix(first) for name in state if name.endswith(first))
    return sorted(
        prefix
        for prefix in found
        if (not prefix or prefix.endswith(".")) and all(prefix + mark in state for mark in naming.marks)
    )


def _renamed(state: State, naming: Naming, prefix: str, own: State) -> State:
    found: State = {}
    unknown = []
    for name, tensor in state.items():
        inside = name.removeprefix(prefix) if name.startswith(prefix) else ""
        outside = _outside(name, prefix)
        if inside in own:
            found[inside] = tensor
        elif _NO_WEIGHTS.fullmatch(name):
            continue
        elif new := _swapped(inside, naming.swaps) or _swapped(outside, naming.heads):
            found[new] = tensor
        elif _OTHER_PARTS.fullmatch(outside) or re.fullmatch(naming.beside, outside):
            continue
        elif inside:  # timm converts more names, and what it leaves is refused when the model is loaded
            found[inside] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise ModelError(
            f"beside a vision tower in the names of {naming.library} it holds {len(unknown)} tensors that visae does "
            f"not know, such as {unknown[0]}; save the vision tower alone"
        )
    return found


def _outside(name: str, prefix: str) -> str:
    """Name of a tensor as seen from the innermost part of a model that has both it and the vision tower in it."""
    parts = prefix.split(".")[:-1]
    around = (".".join([*parts[:depth], ""]) for depth in range(len(parts) - 1, 0, -1))
    return next((name.removeprefix(part) for part in around if name.startswith(part)), name)


def _swapped(name: str, swaps: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, replacement in swaps:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    return None


def _shaped(state: State, module: Any) -> State:
    """Join, split and turn what two libraries keep in other shapes."""
    state = _joined(state)
    for kind in ("weight", "bias"):
        if (both := state.pop(f"attn_pool.q+kv.{kind}", None)) is not None:
            third = len(both) // 3
            state[f"attn_pool.q.{kind}"], state[f"attn_pool.kv.{kind}"] = both[:third], both[third:]
    if (turned := state.pop("head.projection", None)) is not None:
        state["head.weight"] = turned.T
    if "cls_token" in state:
        state["cls_token"] = state["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in state and state["pos_embed"].ndim == 2:
        state["pos_embed"] = state["pos_embed"][None]
    if "register_tokens" in state and getattr(module, "reg_token", None) is not None:
        # timm adds no position to the class token of these models: what it would be is part of the token.
        state["reg_token"] = state.pop("register_tokens")
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return _with_head(state, module)


def _joined(state: State) -> State:
    """Queries, keys and values of each block as the one tensor that timm has for them."""
    found: State = {}
    for name, tensor in state.items():
        match = re.fullmatch(r"(blocks\.\d+\.attn\.)([qkv])\.(weight|bias)", name)
        if not match:
            found[name] = tensor
            continue
        start, _, kind = match.groups()
        parts = [f"{start}{part}.{kind}" for part in "qkv"]
        if missing := [part for part in parts if part not in state]:
            raise ModelError(f"it has {name} and not {missing[0]}")
        found[f"{start}qkv.{kind}"] = torch.cat([state[part] for part in parts])
    return found


def _with_head(state: State, module: Any) -> State:
    """Keep a projection as the model's head, without bias, where the model has a head of that kind."""
    if "head.weight" in state and not isinstance(getattr(module, "head", None), nn.Linear):
        return {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    if "head.weight" in state and "head.bias" not in state:
        state["head.bias"] = torch.zeros(len(state["head.weight"]))
    return state
