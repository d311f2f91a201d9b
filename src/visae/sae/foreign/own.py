"""visae's own files, as `export-sae --as hub` writes them and the hub holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.files import read_json
from visae.notices import from_plain
from visae.sae.autoencoder import FORMAT, load_sae
from visae.sae.foreign.given import Given

_CONFIG, _WEIGHTS = "config.json", "sae.safetensors"


def is_own(source: Path) -> bool:
    """Whether a folder, or the folder of a file of weights or configuration, is of an SAE of visae."""
    folder = source if source.is_dir() else source.parent
    named = source.is_dir() or source.name in (_CONFIG, _WEIGHTS)
    return named and _entries(folder).get("format") == FORMAT


def read_own(source: Path) -> Given:
    """Read an SAE of visae, with the notices that it came with.

    Raises
    ------
    ModelError
        If a file is missing, damaged, or not of the other.
    """
    folder = source if source.is_dir() else source.parent
    sae = load_sae(folder / _CONFIG)
    return Given(sae, from_plain(_entries(folder).get("notices") or ()))


def weights_of(source: Path) -> Path:
    """File of weights beside a configuration, or in a folder."""
    return (source if source.is_dir() else source.parent) / _WEIGHTS


def _entries(folder: Path) -> dict[str, Any]:
    """Entries of config.json; none where it is missing or damaged."""
    try:
        found = read_json(folder / _CONFIG)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
