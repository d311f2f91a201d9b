"""The formats: which of them a file is of, by what is in it, and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from visae.errors import ModelError
from visae.sae.foreign import (
    dictionary_learning,
    overcomplete,
    own,
    patchsae,
    prisma,
    saelens_reading,
    saev,
    sparsify,
    visaebench,
    vision_dictionaries,
)
from visae.sae.foreign.choosing import open_source
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given
from visae.sae.foreign.unsaid import CodeRule, Unsaid, placed
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.pursuit import MatchingPursuit, OrthogonalMatchingPursuit
from visae.sae.variants.quantized import Quantized
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Variant

_NAMED = 12
# Code rules as they are said by hand.
_CODES: dict[CodeRule, type[Variant]] = {
    "relu": Relu,
    "topk": TopK,
    "batchtopk": BatchTopK,
    "jumprelu": JumpRelu,
    "quantized": Quantized,
    "quantized-hard": Quantized,
    "matching-pursuit": MatchingPursuit,
    "orthogonal-matching-pursuit": OrthogonalMatchingPursuit,
}


class Reader(NamedTuple):
    """Reader of one format.

    Attributes
    ----------
    recognizes
        Whether contents are of the format.
    read
        SAE of contents, with what was said by hand.
    asks
        What may be said by hand, of `Unsaid`.
    """

    recognizes: Callable[[Contents], bool]
    read: Callable[[Contents, Unsaid], Given]
    asks: tuple[str, ...]


def _never(contents: Contents) -> bool:
    """Of a format that no content tells from another's."""
    return False


# In this order: of several that would read a file the first one does.
READERS: dict[str, Reader] = {
    "visae": Reader(own.recognizes, own.read, ()),
    "saev": Reader(saev.recognizes, saev.read, saev.ASKS),
    "overcomplete": Reader(overcomplete.recognizes, overcomplete.read, overcomplete.ASKS),
    "sparsify": Reader(sparsify.recognizes, sparsify.read, sparsify.ASKS),
    "prisma": Reader(prisma.recognizes, prisma.read, prisma.ASKS),
    "patchsae": Reader(patchsae.recognizes, patchsae.read, patchsae.ASKS),
    "ViSAE": Reader(
        vision_dictionaries.is_of_standardized_tokens, vision_dictionaries.read_visae, vision_dictionaries.ASKS
    ),
    "sae-for-vlm": Reader(
        vision_dictionaries.is_of_a_vlm, vision_dictionaries.read_sae_for_vlm, vision_dictionaries.ASKS
    ),
    "vision-interp": Reader(_never, vision_dictionaries.read_vision_interp, vision_dictionaries.ASKS),
    "dictionary_learning": Reader(dictionary_learning.recognizes, dictionary_learning.read, dictionary_learning.ASKS),
    "visaebench": Reader(visaebench.recognizes, visaebench.read, visaebench.ASKS),
    "saelens": Reader(saelens_reading.recognizes, saelens_reading.read, saelens_reading.ASKS),
}


class Opened(NamedTuple):
    """An SAE from elsewhere, the name of its format, and the file that it was read from."""

    given: Given
    format: str
    path: Path


def read_foreign(source: Path, unsaid: Unsaid | None = None) -> Opened:
    """Read the SAE of another project that a file or folder has.

    Parameters
    ----------
    unsaid
        What the file does not say.

    Raises
    ------
    ModelError
        If nothing is there, it is damaged, of no format that is known, or of one that needs to be told more.
    """
    unsaid = unsaid or Unsaid()
    contents = open_source(source, unsaid.member, lambda found: _format_of(found) is not None)
    name = unsaid.as_ or _format_of(contents)
    if name is None:
        names = sorted(contents.tensors)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ModelError(
            f"{contents.path}: of no format that is known: its tensors are {', '.join(names[:_NAMED])}{more}; "
            f"known are {', '.join(READERS)}, and --as says which one it is"
        )
    reader = READERS[name]
    if useless := unsaid.useless(reader.asks):
        raise ModelError(
            f"{contents.path}: {', '.join(useless)}: without effect on a file of {name}; leave it out, or say with "
            "--as whose file it is"
        )
    given = reader.read(contents, unsaid)
    _refuse_unheeded(contents, unsaid, given.sae.variant)
    given.sae.place = placed(unsaid, given.sae.place)
    return Opened(given, name, contents.path)


def _refuse_unheeded(contents: Contents, unsaid: Unsaid, variant: Variant) -> None:
    """Refuse a code rule, a k or a threshold that was said by hand where the file has another, or none.

    Raises
    ------
    ModelError
        If one was.
    """
    rule = variant.rule if isinstance(variant, Matryoshka) else variant
    k = getattr(rule, "k", None)
    for option, said, holds in (
        ("code", unsaid.code, unsaid.code is None or isinstance(rule, _CODES[unsaid.code])),
        ("k", unsaid.k, unsaid.k == k),
        ("threshold", unsaid.threshold, isinstance(rule, BatchTopK)),
    ):
        if said is not None and not holds:
            what = f"{rule.name}{'' if k is None else f', k {k}'}"
            raise ModelError(f"{contents.path}: --{option} {said}: its files say {what}; leave it out")


def _format_of(contents: Contents) -> str | None:
    """Name of the format that contents are of; None if it is none that is known."""
    return next((name for name, reader in READERS.items() if reader.recognizes(contents)), None)
