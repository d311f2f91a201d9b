"""Projects that train SAEs of CLIP by dictionary_learning: the same files, and what these do not say of their place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from visae.config.saes import Normalization, TokenKinds
from visae.notices import Notice
from visae.sae.foreign import dictionary_learning
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, renormalized
from visae.sae.foreign.unsaid import Unsaid

ASKS = dictionary_learning.ASKS
_LARGE = re.compile(r"(?i)vit-?(large|l)[-/_]?(patch)?14")
_BASE = "openai/clip-vit-base-patch32"


def _trainer(contents: Contents) -> dict[str, Any]:
    return contents.section("trainer")


def is_of_a_vlm(contents: Contents) -> bool:
    """Whether a file of dictionary_learning says that it is of CLIP L/14, as sae-for-vlm's are."""
    return dictionary_learning.recognizes(contents) and bool(_LARGE.search(str(_trainer(contents).get("lm_name"))))


def is_of_standardized_tokens(contents: Contents) -> bool:
    """Whether a file of dictionary_learning has what ViSAE's training says: CLIP B/32 and a block written as text."""
    said = _trainer(contents)
    return (
        dictionary_learning.recognizes(contents)
        and said.get("lm_name") == _BASE
        and isinstance(said.get("layer"), str)
        and said.get("dict_class") == "BatchTopKSAE"
    )


def reading(
    tokens: TokenKinds, layer: int | None = None, normalization: Normalization = "none", text: str = ""
) -> Callable[[Contents, Unsaid], Given]:
    """Reader of a project whose files are dictionary_learning's.

    Parameters
    ----------
    tokens, layer
        What it was trained on; `layer` where the file says none.
    normalization
        What is done with each token first.
    text
        What is to be said, because no key says it.
    """

    def read(contents: Contents, unsaid: Unsaid) -> Given:
        given = dictionary_learning.read(contents, unsaid)
        sae = renormalized(given.sae, normalization)
        sae.place = replace(sae.place, layer=layer if sae.place.layer is None else sae.place.layer, tokens=tokens)
        return given._replace(sae=sae, notices=[*given.notices, *([Notice("warning", text)] if text else [])])

    return read


read_sae_for_vlm = reading(
    "class",
    text="taken as trained on the class token, as sae-for-vlm's are; no key says so: --as dictionary_learning does not",
)
read_vision_interp = reading(
    "class", layer=16, text="taken as trained on the class token after block 16, as vision-interp's are; no key says so"
)
read_visae = reading(
    "class",
    normalization="per_token",
    text="taken as ViSAE's, which standardizes each token by itself before it encodes, and trains on class tokens or "
    "on patches; no key says either: --as dictionary_learning takes tokens as they are",
)
