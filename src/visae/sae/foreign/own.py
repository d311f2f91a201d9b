"""visae's own files, as `export-sae --as hub` writes them."""

from __future__ import annotations

from visae.notices import from_plain
from visae.sae.autoencoder import FORMAT, load_sae
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given
from visae.sae.foreign.unsaid import Unsaid


def recognizes(contents: Contents) -> bool:
    """Whether the settings say that visae wrote them."""
    return contents.said.get("format") == FORMAT


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of visae, with the notices that it came with.

    Raises
    ------
    ModelError
        If a file is missing, damaged, or not of the other.
    """
    sae = load_sae(contents.said_in)
    return Given(sae, from_plain(contents.said.get("notices") or ()))
