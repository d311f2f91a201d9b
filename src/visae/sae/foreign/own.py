"""visae's own files, as `export-sae --as hub` writes them."""

from __future__ import annotations

from visae.errors import ModelError
from visae.notices import from_plain
from visae.sae.autoencoder import load_sae
from visae.sae.entries import FORMAT
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given
from visae.sae.foreign.unsaid import Unsaid


def recognizes(contents: Contents) -> bool:
    """Whether the settings say that visae wrote them, whichever of its versions."""
    return str(contents.said.get("format")).startswith(FORMAT.rstrip("0123456789"))


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of visae, with the notices that it came with.

    Raises
    ------
    ModelError
        If a file is missing, damaged, or not of the other.
    """
    if not recognizes(contents):
        raise ModelError(
            f"{contents.path}: not a file of visae's own: no config.json beside it says so; that of the project ViSAE "
            "is --as ViSAE"
        )
    sae = load_sae(contents.said_in)
    try:
        return Given(sae, from_plain(contents.said.get("notices") or ()))
    except TypeError as error:
        raise contents.wrong("notices", contents.said["notices"], "a list of level and text") from error
