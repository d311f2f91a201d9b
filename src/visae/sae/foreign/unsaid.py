"""What is said by hand of files of other projects; a study's section has the same keys."""

from __future__ import annotations

from dataclasses import replace

from visae.config.unsaid import PLACE, CodeRule, DecoderBias, Format, Rows, Unsaid
from visae.sae.place import Place

__all__ = ["CodeRule", "DecoderBias", "Format", "Rows", "Unsaid", "placed"]


def placed(unsaid: Unsaid, place: Place) -> Place:
    """Place of a file with what was said of it by hand."""
    said = {name: getattr(unsaid, name) for name in PLACE}
    return replace(place, **{name: value for name, value in said.items() if value is not None})
