"""Kinds of tokens in words: what latents are active on, and what edits move."""

from __future__ import annotations

import polars as pl

ACTIVE_ON = {"patches": "patches", "class": "pictures", "all": "tokens"}
"""What a latent's frequency counts; a picture has one class token."""

EDITED = {"patches": "patches", "class": "class tokens", "all": "tokens"}
"""What an edit moves."""


def kind_of(table: pl.DataFrame, column: str = "tokens") -> str:
    """Kind of tokens of a table; those of patches have no column for it."""
    return table[column][0] if column in table.columns and table.height else "patches"
