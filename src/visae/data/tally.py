"""What is counted over a data set while its pictures are looked at; it grows by 12 bytes a picture."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from visae.data.checks import Checked, MaskFacts
from visae.data.mask_files import MaskReading
from visae.data.noticed import Noticed
from visae.data.pictures import Picture
from visae.errors import DataError

_NAMED = 5  # files named in an error
_NO_LABEL = -1
_UNKNOWN_FRAME = (
    "{n} pictures with masks are turned by an EXIF orientation, such as {example}; their masks are taken to be drawn "
    "on the picture as a viewer shows it. Look at one: if they were drawn on the pixels as they are stored, labels lie "
    "upside down; set mask_frame: raw, else mask_frame: turned"
)
_OWN_ORIENTATION = "{n} masks have an EXIF orientation of their own, such as {example}; they are turned by it"
_GIF = (
    "{n} masks are GIFs with colours, such as {example}; writers of GIF may leave out colours that a picture does not "
    "have and number the others anew, so that ids differ from file to file: compare some with where they were drawn"
)
_TWO_PALETTES = (
    "{n} masks have a palette in which an id has another colour than before, such as {example}; palettes made by "
    "quantizing colours number them anew in each file, so that ids mean nothing: turn colours into ids by a fixed table"
)


@dataclass
class Tally:
    """Counts over a data set, and the first few of what is wrong.

    Attributes
    ----------
    class_images
        Pictures by class and split: those that have it as label, or in their mask.
    mask_pixels
        Pixels of all masks by stored id.
    palette
        Colours of stored ids, where masks have palettes.
    copy_keys, labels
        Of each picture, in the order of ids.
    """

    reading: MaskReading
    noticed: Noticed
    n_images: Counter[str] = field(default_factory=Counter)
    n_labelled: Counter[str] = field(default_factory=Counter)
    n_masked: Counter[str] = field(default_factory=Counter)
    class_images: Counter[tuple[int, str]] = field(default_factory=Counter)
    mask_pixels: Counter[int] = field(default_factory=Counter)
    mask_modes: Counter[str] = field(default_factory=Counter)
    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    n_turned: int = 0
    n_paired: int = 0
    n_turned_masked: int = 0
    copy_keys: array = field(default_factory=lambda: array("Q"))
    labels: array = field(default_factory=lambda: array("i"))
    n_skipped: int = 0
    n_wrong_masks: int = 0
    skipped: list[str] = field(default_factory=list)
    wrong_masks: list[str] = field(default_factory=list)
    hint: str = ""

    def add(self, picture: Picture, found: Checked) -> None:
        """Count a picture that can be read."""
        self.n_images[picture.split] += 1
        self.copy_keys.append(found.copy_key)
        self.labels.append(_NO_LABEL if picture.label is None else picture.label)
        self.n_turned += found.orientation != 1
        self.n_paired += picture.pair is not None
        present = set() if picture.label is None else {picture.label}
        self.n_labelled[picture.split] += picture.label is not None
        if found.mask_problem:
            self._count_wrong_mask(found)
        elif found.mask:
            self.n_masked[picture.split] += 1
            self._count_mask(picture, found.mask, found.orientation)
            stored = (number for number in found.mask.pixels if not self.reading.is_unlabelled(number))
            present.update(number + self.reading.zero_based for number in stored)
        for number in present:
            self.class_images[number, picture.split] += 1

    def skip(self, path: str, reason: str) -> None:
        """Count an unreadable picture."""
        self.n_skipped += 1
        if self.n_skipped <= _NAMED:
            self.skipped.append(f"{path} ({reason})")

    def _count_mask(self, picture: Picture, mask: MaskFacts, orientation: int) -> None:
        self.mask_pixels.update(mask.pixels)
        self.mask_modes[mask.mode] += 1
        if orientation != 1:
            self.n_turned_masked += 1
            if self.reading.frame == "unknown":
                self.noticed.count("warning", _UNKNOWN_FRAME, picture.path)
        if mask.orientation != 1:
            self.noticed.count("warning", _OWN_ORIENTATION, str(picture.mask))
        if mask.kind == "GIF" and mask.palette:
            self.noticed.count("warning", _GIF, str(picture.mask))
        if any(self.palette.setdefault(number, colour) != colour for number, colour in mask.palette.items()):
            self.noticed.count("warning", _TWO_PALETTES, str(picture.mask))

    def _count_wrong_mask(self, found: Checked) -> None:
        self.n_wrong_masks += 1
        if self.n_wrong_masks <= _NAMED:
            self.wrong_masks.append(found.mask_problem)
        self.hint = max(self.hint, found.mask_hint, key=len)

    def refuse(self, max_unreadable: float, skipped_path: Path) -> None:
        """Raise DataError where masks are wrong or too much is unreadable."""
        if self.n_wrong_masks:
            hint = f" ({self.hint})" if self.hint else ""
            more = f" (and {self.n_wrong_masks - _NAMED} more)" if self.n_wrong_masks > _NAMED else ""
            raise DataError(f"{self.n_wrong_masks} masks are wrong: {'; '.join(self.wrong_masks)}{more}{hint}")
        n_found = self.n_images.total() + self.n_skipped
        if self.n_skipped > max_unreadable * n_found or self.n_skipped == n_found:
            raise DataError(
                f"{self.n_skipped} of {n_found} pictures are unreadable, more than max_unreadable: {max_unreadable} "
                f"allows; all are listed in {skipped_path}, first {'; '.join(self.skipped)}"
            )
        if self.mask_pixels and all(map(self.reading.is_unlabelled, self.mask_pixels)):
            ids = ", ".join(map(str, sorted(self.mask_pixels)[:_NAMED]))
            raise DataError(
                f"no mask has a pixel of any class: they hold {ids} alone, which counts as unlabelled (0, and what "
                "ignore_ids names); are these the masks, and is 0 a class (zero_based: true)?"
            )
