"""Where SAEs of other projects belong, as far as names in their files tell."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from visae.config.saes import TokenKinds
from visae.sae.place import Place

# What hook points are called in TransformerLens and ViT-Prisma, whose names SAELens keeps.
HOOKS = {"residual": "hook_resid_post", "attention": "hook_attn_out", "mlp": "hook_mlp_out"}
_OURS = {theirs: ours for ours, theirs in HOOKS.items()}
_NUMBERED = re.compile(r"(?:^|[._])(?:layers?|blocks?|h|resblocks)[._](\d+)(?:[._](.+))?$")


def place_of_hook(model: Any, hook: Any, tokens: TokenKinds = "patches") -> Place:
    """Place of a hook point such as `blocks.9.hook_mlp_out`; what it does not tell is not known."""
    found = re.match(r"blocks\.(\d+)\.(.+)$", str(hook))
    place = Place(model=str(model) if model else None, tokens=tokens)
    if found is None:
        return place
    return replace(place, layer=int(found[1]), hook=_OURS.get(found[2], found[2]))


def place_of_module(name: str) -> Place:
    """Place of a module such as `layers.5.mlp` or `h.5`; nothing is known of others."""
    found = _NUMBERED.search(name)
    if found is None:
        return Place()
    inner = (found[2] or "").split(".")[0]
    return Place(layer=int(found[1]), hook={"": "residual", "attn": "attention"}.get(inner, inner))


def place_of_layer(model: Any, layer: Any, tokens: TokenKinds = "patches") -> Place:
    """Place of a block's number, which some files have as text; a block that is no number is not known."""
    is_number = isinstance(layer, int | str) and not isinstance(layer, bool) and str(layer).isdecimal()
    return Place(model=str(model) if model else None, layer=int(layer) if is_number else None, tokens=tokens)
