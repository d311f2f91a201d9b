"""How a key is declared."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any


def setting(
    doc: str,
    default: Any = MISSING,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    not_empty: bool = False,
    slurm_time: bool = False,
) -> Any:
    """Declare one key: what it means, its default (required without one) and its allowed range.

    With `slurm_time` minutes may also be written as Slurm writes times.
    """
    limits = {
        "minimum": minimum,
        "exclusiveMinimum": above,
        "maximum": maximum,
        "not_empty": not_empty,
        "slurm_time": slurm_time,
    }
    metadata = {"doc": doc, **{k: v for k, v in limits.items() if v is not None and v is not False}}
    if default is MISSING:
        return field(metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
