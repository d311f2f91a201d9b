"""Where an SAE belongs: model, block, hook point and kind of tokens of the activations that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from torch import Tensor

from visae.config.kinds import TokenKinds
from visae.errors import ModelError


@dataclass(frozen=True)
class Place:
    """What an SAE was trained on; the entry `place` of its config.json. None stands for: not known.

    Attributes
    ----------
    model
        Name of the architecture, as in a model card.
    weights_sha256
        sha256 of the model's weights.safetensors.
    layer
        Block, counted from 0.
    hook
        What of that block; see `visae.vision.hook_points`. Hook points of other projects keep their own names.
    tokens
        `patches`, `class` (the [CLS] token alone), or `all` (with registers).

    Raises
    ------
    ModelError
        If a value is none that a place has.
    """

    model: str | None = None
    weights_sha256: str | None = None
    layer: int | None = None
    hook: str = "residual"
    tokens: TokenKinds = "patches"

    def __post_init__(self) -> None:
        kinds: tuple[tuple[str, Any, str], ...] = (
            *((name, str | None, "text, or null") for name in ("model", "weights_sha256")),
            ("layer", int | None, "a whole number from 0, or null"),
            ("hook", str, "text"),
        )
        for name, kind, allowed in kinds:
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
                raise ModelError(f"place: {name}: {value!r}; allowed: {allowed}")
        if self.tokens not in get_args(TokenKinds):
            raise ModelError(f"place: tokens: {self.tokens!r}; allowed: {', '.join(get_args(TokenKinds))}")

    @classmethod
    def from_entries(cls, entries: object) -> Place:
        """Place from what `asdict` makes of it.

        Raises
        ------
        ModelError
            If a key or a value is none that a place has.
        """
        if not isinstance(entries, Mapping):
            raise ModelError(f"place: {entries!r}; allowed: keys and values")
        if unknown := sorted({*entries} - {spec.name for spec in fields(cls)}):
            raise ModelError(f"place: unknown keys: {', '.join(unknown)}; a newer visae wrote it: update visae")
        return cls(**entries)


def among_last(chosen: Tensor, kinds: TokenKinds, n_tokens: int) -> Tensor:
    """Tokens of a kind, bool (b, n_own), as a mask over the last tokens of a picture: only the class token is first."""
    if kinds != "class":
        return chosen
    mask = chosen.new_zeros(len(chosen), n_tokens)
    mask[:, :1] = chosen
    return mask
