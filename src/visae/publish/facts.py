"""What is known of an SAE that is to be published: from its own files, and from the results around it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from visae.activations.manifest import read_manifest
from visae.files import read_json
from visae.layout import CARD, FEATURES, STORE
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.place import Place
from visae.vision.card import ModelCard
from visae.vision.hook_points import HookPoint

# Folders before a name: on this machine they are of use, elsewhere they tell who had it.
_FOLDERS = re.compile(r"(?<![\w:/.~])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:'\"]+[/\\])+")


@dataclass(frozen=True)
class Facts:
    """What a model card is written from.

    Attributes
    ----------
    sae
        The SAE.
    entries
        Its config.json, without folders of this machine.
    summary
        Its summary.json likewise; empty where there is none.
    card
        Of the model that it was trained on, where that lies in the same results.
    trained_on
        Name of the data set, where the SAE lies in results.
    pictures
        Pictures by split that its store has.
    severity
        How far the mean of the activations outweighs their spread, where the store says it.
    features
        Folder that describes its latents; None where there is none.
    """

    sae: SparseAutoencoder
    entries: dict[str, Any]
    summary: dict[str, Any]
    card: ModelCard | None = None
    trained_on: str | None = None
    pictures: dict[str, int] = field(default_factory=dict)
    severity: float | None = None
    features: Path | None = None


def gathered(sae: SparseAutoencoder, config: Path, features: Path | None) -> Facts:
    """Read what lies beside an SAE and, where it is part of results, around it.

    Parameters
    ----------
    config
        Its config.json.
    features
        Folder that describes its latents; left out, the first of the results that does.
    """
    summary = config.with_name("summary.json")
    known: dict[str, Any] = {
        "entries": without_folders(read_json(config)),
        "summary": without_folders(read_json(summary)) if summary.is_file() else {},
        "features": features,
    }
    parts = config.absolute().parts[-6:]
    if len(parts) < 6 or parts[0] != "saes" or not parts[3].startswith("layer"):
        return Facts(sae, **known)
    names = dict(zip(("trained_on", "model", "layer", "sae"), parts[1:5], strict=True))
    names["layer"] = names["layer"].removeprefix("layer")
    results = config.absolute().parents[5]
    card = results / CARD.format(**names)
    store = results / STORE.format(dataset=names["trained_on"], **names)
    known |= {"card": ModelCard.read(card) if card.is_file() else None, "trained_on": names["trained_on"]}
    sae.place = _completed(sae.place, names["layer"], known["card"])
    known["entries"]["place"] = asdict(sae.place)
    if store.is_file():
        known |= _of_store(read_manifest(store), sae)
    if features is None:
        known["features"] = _features(results, names)
    return Facts(sae, **known)


def _completed(place: Place, point: str, card: ModelCard | None) -> Place:
    """Place with what the folders say where its own file, of before SAEs had one, does not."""
    if place.layer is None:
        at = HookPoint.parse(point)
        place = replace(place, layer=at.layer, hook=at.hook)
    if place.model is None and card is not None:
        place = replace(place, model=card.architecture, weights_sha256=card.weights_sha256)
    return place


def _of_store(manifest: dict[str, Any], sae: SparseAutoencoder) -> dict[str, Any]:
    severity = manifest.get("outlier_severity") or {}
    pictures = {split: end - first for split, (first, end) in manifest["splits"].items() if end > first}
    return {"pictures": pictures, "severity": severity.get(sae.place.tokens)}


def _features(results: Path, names: dict[str, str]) -> Path | None:
    """Folder of features of an SAE, those of the data set that it was trained on first."""
    own = results / FEATURES.format(dataset=names["trained_on"], **names)
    found = [own, *sorted(own.parent.glob("*"))]
    return next((folder for folder in found if (folder / "exemplars.parquet").is_file()), None)


def without_folders(value: Any) -> Any:
    """Entries of a JSON file with the names of files alone where they have whole paths."""
    if isinstance(value, dict):
        return {without_folders(key): without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_folders(entry) for entry in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value
