"""Progress bars with throughput and time left, quiet where nobody watches."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(total: int | None, what: str, unit: str, **options: Any) -> tqdm:
    """Return a bar over `total` units (None: nobody knows); off a terminal it prints a line a half minute at most."""
    watched = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        mininterval=0.2 if watched else 30.0,
        dynamic_ncols=watched,
        leave=True,
        **options,
    )
