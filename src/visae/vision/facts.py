"""What a model assumes, in words: for the log of its card, the report and the doctor."""

from __future__ import annotations

from collections.abc import Sequence

from visae.vision.card import ModelCard

_SHORT_HASH = 12


def model_facts(card: ModelCard) -> dict[str, str]:
    """What a person checks of a model, by its name."""
    height, width = card.image_size
    facts = {
        "architecture": card.architecture,
        "weights": card.weights_origin,
        "sha256 of the weights": card.weights_sha256[:_SHORT_HASH],
        "tag": card.tag or "",
        "hub": card.hub_id or "",
        "license": card.license or "",
        "layers": _layers(card),
        "sees": f"{height} x {width} px, {_fit(card)}, {card.interpolation}",
        "mean of pixels": _numbers(card.mean),
        "deviation of pixels": _numbers(card.std),
        "activation function": card.activation_function or "",
        "timm notes": "; ".join(card.timm_notes),
    }
    return {name: text for name, text in facts.items() if text}


def _fit(card: ModelCard) -> str:
    if card.fit == "crop" and card.crop_share < 1:
        return f"centre crop of {card.crop_share:g}"
    return {"crop": "centre crop", "squash": "squashed"}.get(card.fit, card.fit)


def _layers(card: ModelCard) -> str:
    """How many there are, and which of them can be read and edited where not all can."""
    told = f"{card.depth} {card.family}"
    for can, words in (("can_read", "read"), ("can_edit", "edited")):
        kept = [number for number, layer in enumerate(card.layers) if getattr(layer, can)]
        if len(kept) < card.depth:
            told += f"; {', '.join(map(str, kept)) or 'none'} can be {words}"
    return told


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
