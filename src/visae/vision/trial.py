"""Which layers of a network can be read and edited, found by doing both before anything depends on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.vision.blocks import Blocks
from visae.vision.card import LayerShape, ModelCard
from visae.vision.hook_points import HookPoint
from visae.vision.stages import Stages

# How the layers of a kind of network are read, in the order in which they are tried.
FAMILIES: tuple[type[Blocks] | type[Stages], ...] = (Blocks, Stages)
# Of the largest final value: how far a resumed pass may end from the uninterrupted one.
TOLERANCE = 1e-4


class Tokens(NamedTuple):
    """What a card says of a network's tokens."""

    layers: tuple[LayerShape, ...]
    d_final: int
    n_prefix: int
    has_class_token: bool


def measured(module: Any, architecture: str, size: tuple[int, int]) -> tuple[str, Tokens]:
    """Find how a network's layers are read, and what their tokens are.

    Raises
    ------
    ModelError
        If there is no way.
    """
    reason = "it has neither blocks of equal tokens nor feature grids"
    for family in FAMILIES:
        try:
            if family.has(module):
                layers = family(module, size)
                found = layers.shapes(), layers.d_final(), layers.n_prefix(), layers.has_class_token()
                return family.family, Tokens(*found)
        except Exception as error:  # networks fail in many ways at what they were not made for
            reason = _short(error)
    raise _unread(module, architecture, reason)


def tried(module: Any, card: ModelCard) -> ModelCard:
    """Return the card with what came of reading every layer and of resuming from it.

    A layer can be read where its tokens have the shape that the card says, and edited where the pass that is resumed
    from what was read ends as the uninterrupted one.

    Raises
    ------
    ModelError
        If no layer can be read.
    """
    layers = next(family for family in FAMILIES if family.family == card.family)(module, card.image_size)
    generator = torch.Generator().manual_seed(0)
    device = next(module.parameters()).device
    # Two pictures, so that what is kept of one of them is seen; noise, so that no symmetry hides a wrong order.
    images = torch.randn(2, 3, *card.image_size, generator=generator).to(device)
    with torch.no_grad():
        try:
            whole = layers.final(images)
        except Exception as error:  # as in measured
            raise _unread(module, card.architecture, _short(error)) from error
        read = _read(layers, card.depth, images)
        shapes = tuple(_layer(layers, card, number, read[number], whole) for number in range(card.depth))
    if not any(shape.can_read for shape in shapes):
        raise _unread(module, card.architecture, shapes[-1].why_not)
    return replace(card, layers=shapes)


def _read(layers: Blocks | Stages, depth: int, images: Tensor) -> list[Tensor | str]:
    """Tokens of each layer, or why it cannot be read; in one pass where all can."""
    points = [HookPoint(number) for number in range(depth)]
    try:
        found = layers.read(images, points)
        return [found[point] for point in points]
    except Exception as error:  # as in measured
        return [_short(error)] if depth == 1 else [_read_alone(layers, point, images) for point in points]


def _read_alone(layers: Blocks | Stages, point: HookPoint, images: Tensor) -> Tensor | str:
    try:
        return layers.read(images, [point])[point]
    except Exception as error:  # as in measured
        return _short(error)


def _layer(layers: Blocks | Stages, card: ModelCard, number: int, tokens: Tensor | str, whole: Tensor) -> LayerShape:
    shape = card.layers[number]
    if isinstance(tokens, str):
        return replace(shape, can_read=False, can_edit=False, why_not=tokens)
    wanted = (len(whole), len(card.tokens(number)), shape.d_model)
    if tuple(tokens.shape) != wanted:
        reason = (
            f"it has {' x '.join(map(str, tokens.shape[1:]))} values a picture there, not {wanted[1]} x {wanted[2]}"
        )
        return replace(shape, can_read=False, can_edit=False, why_not=f"{reason} as after its last block")
    try:
        resumed = layers.resume(tokens, number)
    except Exception as error:  # as in measured
        return replace(shape, can_edit=False, why_not=f"no pass can be resumed there ({_short(error)})")
    if resumed.shape != whole.shape:
        return replace(shape, can_edit=False, why_not="a pass that is resumed there ends in another shape")
    off = float((resumed - whole).abs().max() / whole.abs().max().clamp_min(1e-12))
    if not off <= TOLERANCE:
        reason = f"a pass that is resumed there ends {off:.1g} of its largest value away from the whole pass"
        return replace(shape, can_edit=False, why_not=f"{reason}: later layers read more than its tokens")
    return shape


def _unread(module: Any, architecture: str, reason: str) -> ModelError:
    return ModelError(f"models: architecture: {architecture} ({type(module).__name__}) cannot be read: {reason}")


def _short(error: Exception) -> str:
    """What an error says, in one line; with its kind where it is not meant for people."""
    text = str(error).strip().split("\n", maxsplit=1)[0]
    return text if isinstance(error, ModelError) else f"{type(error).__name__}: {text}".removesuffix(": ")
