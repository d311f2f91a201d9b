"""Numbers and names in words, for messages."""

from __future__ import annotations

from collections.abc import Iterable


def first_of(things: Iterable[object], most: int, between: str = ", ") -> str:
    """Name the first few of some things, and say how many there are beside them."""
    names = list(map(str, things))
    rest = len(names) - most
    return between.join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")
