"""The folder that one uploads to the Hugging Face hub: weights, what they are, measurements, and a model card."""

from __future__ import annotations

import shutil
from pathlib import Path

from visae.errors import DataError, ModelError
from visae.files import atomic_path, write_json, write_text
from visae.publish.card import Publication, card_text
from visae.publish.facts import Facts, gathered
from visae.publish.picture import drawn_exemplars
from visae.publish.sections import CONFIG, PICTURE, WEIGHTS
from visae.sae.autoencoder import SparseAutoencoder

_CARD, _SUMMARY = "README.md", "summary.json"
_WRITTEN = (WEIGHTS, CONFIG, _SUMMARY, PICTURE, _CARD)


def write_hub(sae: SparseAutoencoder, config: Path, folder: Path, said: Publication) -> list[str]:
    """Write the folder; `load_sae` and `import-sae` open it, here and by its name on the hub.

    Folders of this machine are left out of what is published.

    Parameters
    ----------
    config
        The SAE's config.json; weights lie beside it.
    said
        What only who publishes can say.

    Returns
    -------
    list of str
        What is left to decide or to look at.

    Raises
    ------
    ConfigError
        If the hub would refuse the licence or the name.
    ModelError
        If other files lie in the folder, which would be uploaded too.
    DataError
        If exemplars were asked for by `features` and cannot be drawn.
    """
    said.check()
    if folder.exists() and (others := sorted(path.name for path in folder.iterdir() if path.name not in _WRITTEN)):
        raise ModelError(f"{folder}: has {', '.join(others[:5])}, which would be uploaded too; give an empty folder")
    facts = gathered(sae, config, said.features)
    picture, hints = _drawn(facts, said)
    text = card_text(facts, said, picture is not None)
    with atomic_path(folder / WEIGHTS) as temporary:
        shutil.copyfile(config.with_name(WEIGHTS), temporary)
    write_json(folder / CONFIG, facts.entries)
    for name, is_there in ((_SUMMARY, bool(facts.summary)), (PICTURE, picture is not None)):
        if not is_there:  # of an export before this one
            (folder / name).unlink(missing_ok=True)
    if facts.summary:
        write_json(folder / _SUMMARY, facts.summary)
    if picture is not None:
        with atomic_path(folder / PICTURE) as temporary:
            temporary.write_bytes(picture)
    write_text(folder / _CARD, text)
    return [*hints, *_left(facts, said, folder)]


def _drawn(facts: Facts, said: Publication) -> tuple[bytes | None, list[str]]:
    """Picture of exemplars as PNG, and what there is to say of it."""
    if said.without_picture:
        return None, []
    if facts.features is None:
        return None, [f"no {PICTURE}: no features of this SAE were found; describe it first, or give --features"]
    try:
        figure = drawn_exemplars(facts.features)
    except DataError as error:
        if said.features is not None:
            raise
        return None, [f"no {PICTURE}: {error}"]
    return figure.png(), [f"{PICTURE} shows pictures of {facts.features.name}: publish it only if you may"]


def _left(facts: Facts, said: Publication, folder: Path) -> list[str]:
    """What the card lacks, and the next step."""
    hints = []
    if said.license == "unknown":
        hints.append("license: none was chosen, and few can use it so: --license cc-by-4.0, mit, ...")
    if imported := facts.entries.get("imported"):
        hints.append(f"it was taken in from {imported['path']}: whoever made it has a say in its licence, and a name")
    if facts.sae.place.layer is None:
        hints.append("place: the block is not known; without it nobody can use these codes")
    if said.repository is None:
        hints.append(f"{_CARD} says OWNER/NAME where its place on the hub will be: --repository owner/name")
    hints.append(f"upload it by: hf upload {said.repository or 'OWNER/NAME'} {folder}")
    return hints
