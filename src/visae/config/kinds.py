"""Kinds that sparse autoencoders differ in besides their variant: of which tokens they are, and how those go in."""

from __future__ import annotations

from typing import Literal

TokenKinds = Literal["patches", "class", "all"]
Normalization = Literal["none", "scale", "per_dimension", "per_token"]


def token_slice(kinds: TokenKinds, n_prefix: int) -> slice:
    """Positions of a kind of tokens in a picture's, of which the class token is the first, and patches the last.

    `n_prefix` are those before the patches.
    """
    if kinds == "class":
        return slice(0, 1)
    return slice(n_prefix, None) if kinds == "patches" else slice(None)
