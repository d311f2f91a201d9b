"""What config.json says of an SAE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visae.errors import ModelError
from visae.files import read_json
from visae.sae.place import Place
from visae.sae.variants.members import VARIANTS

FORMAT = "visae sparse autoencoder 1"
# Entries of config.json: what decides the function, and what `save_sae` is given beside.
_ALWAYS = frozenset({"format", "variant", "options", "width", "d_model", "weights_sha256"})
_DECISIVE = (*_ALWAYS, "d_target", "clamp", "normalization", "skip", "place")
_ABOUT = (
    *("settings", "rates", "provenance", "imported", "notices", "proof"),
    *("layer", "hook", "target_layer", "target_hook"),
)


def load_place(config_path: str | Path) -> Place:
    """Where the SAE of a config.json belongs, without its weights; ModelError as of `load_sae`."""
    config = entries_of(Path(config_path))
    try:
        return place_of(config)
    except ModelError as error:
        raise ModelError(f"{config_path}: {error}") from error


def place_of(config: Mapping[str, Any]) -> Place:
    """Where an SAE belongs; files of before there were places say layer and hook at most, and mean patches."""
    if "place" in config:
        return Place.from_entries(config["place"])
    return Place(layer=config.get("layer"), hook=config.get("hook") or "residual")


def _to_have(path: Path) -> str:
    """What to do where an SAE has no config.json."""
    taken_in = f"; one of another project is taken in first by: visae import-sae {path.parent} FOLDER"
    has_others = path.parent.is_dir() and any(path.parent.iterdir())
    return f"train the SAE with: snakemake {path}{taken_in if has_others else ''}"


def entries_of(path: Path) -> dict[str, Any]:
    """Entries of a config.json that this version can keep what it says of."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; {_to_have(path)}")
    try:
        config = dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error}); train the SAE again with: snakemake {path} --force") from error
    if config.get("format") != FORMAT or str(config.get("variant")) not in VARIANTS:
        raise ModelError(
            f"{path}: not the config of a sparse autoencoder that this version reads ({FORMAT}); those of other "
            "projects are taken in by import-sae"
        )
    if unknown := sorted(config.keys() - {*_DECISIVE, *_ABOUT}):
        raise ModelError(
            f"{path}: unknown keys: {', '.join(unknown)}; a newer visae wrote it, and this one may compute other "
            "codes: update visae, or train the SAE again"
        )
    if missing := sorted(_ALWAYS - config.keys()):
        raise ModelError(f"{path}: {', '.join(missing)}: missing; train the SAE again with: snakemake {path} --force")
    return config
