"""The ids that a mask's file stores, whatever Pillow makes of them; formats that hold none are refused by content."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from visae.data.locators import opened
from visae.errors import DataError

_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM")
_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF", "JXL")
_LOSSLESS_TIFF = (
    *("raw", "tiff_raw_16", "tiff_ccitt", "group3", "group4", "tiff_lzw", "packbits"),
    *("tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd"),
)
# Pillow reads rows of 4 bits as if they had 8, and of 8 as if they had 1, where the palette is one of greys.
_BMP_BITS = {"1": 1, "L": 8}
_SAVE = "save masks as PNG, from where they were drawn"
_LOSS = f"such compression may change ids, at edges most of all; {_SAVE}"


@dataclass(frozen=True)
class MaskReading:
    """How what a data set's masks store becomes ids of its classes, with 0 for unlabelled.

    Attributes
    ----------
    ignore_ids
        Stored ids that count as unlabelled.
    zero_based
        Whether 0 is stored for a class: ids of classes are then one more than what is stored.
    frame
        Frame of the masks of pictures with an EXIF orientation: `raw` ones are turned as their picture is.
    """

    ignore_ids: tuple[int, ...] = ()
    zero_based: bool = False
    frame: Literal["unknown", "turned", "raw"] = "unknown"

    def ids(self, stored: NDArray[np.int32]) -> NDArray[np.int32]:
        """Ids of classes, of the same shape."""
        ids = stored + 1 if self.zero_based else stored
        return np.where(np.isin(stored, self.ignore_ids), 0, ids) if self.ignore_ids else ids

    def is_unlabelled(self, stored: int) -> bool:
        """Whether a stored id stands for no class."""
        return stored in self.ignore_ids or (stored == 0 and not self.zero_based)


@dataclass(frozen=True)
class StoredMask:
    """What a mask's file holds.

    Attributes
    ----------
    ids
        int32 (height, width), turned by the file's own orientation where it has one.
    mode
        Pillow's mode: `L`, `P`, ...
    kind
        Pillow's name of the format.
    palette
        Colours by id, where it has a palette.
    orientation
        Its own, as EXIF counts: 1 where nothing was turned.
    """

    ids: NDArray[np.int32]
    mode: str
    kind: str
    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    orientation: int = 1


def stored_mask(path: str | Path) -> StoredMask:
    """Read what a mask's file stores.

    Raises
    ------
    DataError
        If it is missing, damaged, of a format that may change ids, holds several pictures, or colours.
    """
    try:
        with opened(path) as file, Image.open(file) as image:
            _refuse_format(path, image)
            if image.format == "BMP" and _bmp_bits(file) != _BMP_BITS.get(image.mode, _bmp_bits(file)):
                raise DataError(f"{path}: Pillow does not unpack the pixels of this kind of BMP; {_SAVE}")
            stored, shown = _scale(image)
            orientation = orientation_of(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
            image.load()
            if image.mode not in _MODES:
                raise DataError(
                    f"{path}: a mask holds one class id a pixel, but this one has mode {image.mode}; save ids, not "
                    "colours"
                )
            # Pillow turns a TIFF itself while it loads it.
            values = np.asarray(image).astype(np.int32)
            if not orientation:
                values = turned(values, orientation := orientation_of(image))
            palette, kind = _palette(image), str(image.format)
            if kind == "GIF" and _is_renumbered(values, palette):
                raise DataError(f"{path}: its writer has numbered grey values anew, as writers of GIF do; {_SAVE}")
            return StoredMask(_unscaled(values, stored, shown), image.mode, kind, palette, orientation)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: the mask is missing{_other_names(path)}; every picture needs one") from error
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise DataError(f"{path}: unreadable mask: {reason(error)}") from error


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation of an opened picture, 1 to 8; that of a PNG may be known only once it is loaded."""
    # The plain method: of PNG and TIFF, their own decode the picture, or apply the orientation half.
    found = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turned(values: NDArray[np.int32], orientation: int) -> NDArray[np.int32]:
    """Turn raw pixels (height, width) as an EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def reason(error: Exception) -> str:
    """First line of what an error says, after its kind."""
    message = str(error).split("\n", maxsplit=1)[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _refuse_format(path: str | Path, image: ImageFile.ImageFile) -> None:
    if image.format not in _FORMATS:
        why = _LOSS if image.format in _LOSSY else f"masks are read from PNG, TIFF, BMP, GIF and PGM; {_SAVE}"
        raise DataError(f"{path}: the mask's content is {image.format}, whatever its name says: {why}")
    compression = image.info.get("compression")
    if image.format == "TIFF" and compression not in _LOSSLESS_TIFF:
        raise DataError(f"{path}: the mask is a TIFF compressed as {compression}: {_LOSS}")
    # A PBM of bits, and a TIFF of WhiteIsZero.
    inverted = image.format == "PPM" and image.mode == "1"
    if inverted or (image.format == "TIFF" and image.tag_v2.get(262) == 0):  # type: ignore[attr-defined]
        raise DataError(f"{path}: the mask stores white as 0, which programs read in two ways; {_SAVE}")
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1:
        raise DataError(f"{path}: the mask's file holds {n_frames} pictures; save one, with one class id a pixel")


def _bmp_bits(file: BinaryIO) -> int:
    """Bits a pixel, as the header of a BMP says."""
    file.seek(14)
    header = file.read(16)
    return struct.unpack_from("<H", header, 10 if header[0] == 12 else 14)[0]


def _scale(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Largest value that the file can hold, and what Pillow makes of it; both 1 where it keeps what is stored."""
    arguments = image.tile[0].args if image.tile else ()
    raw = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    if image.format == "PPM" and isinstance(arguments, tuple) and image.mode in ("L", "I"):
        return int(arguments[-1]), 255 if image.mode == "L" else 65535
    if image.mode == "L" and isinstance(raw, str) and raw[:3] in ("L;2", "L;4"):
        return 2 ** int(raw[2]) - 1, 255
    return 1, 1


def _unscaled(values: NDArray[np.int32], stored: int, shown: int) -> NDArray[np.int32]:
    return values if stored == shown else (values.astype(np.int64) * stored * 2 // shown + 1).astype(np.int32) // 2


def _palette(image: Image.Image) -> dict[int, tuple[int, int, int]]:
    if image.mode != "P":
        return {}
    flat = image.getpalette() or []
    return {number: (flat[i], flat[i + 1], flat[i + 2]) for number, i in enumerate(range(0, len(flat) - 2, 3))}


def _is_renumbered(values: NDArray[np.int32], palette: dict[int, tuple[int, int, int]]) -> bool:
    """Whether all ids stand for greys, and some for another grey than their own."""
    colours = {number: palette.get(number, (number,) * 3) for number in np.unique(values).tolist()}
    greys = all(len(set(colour)) == 1 for colour in colours.values())
    return greys and any(colour[0] != number for number, colour in colours.items())


def _other_names(path: str | Path) -> str:
    """What else has the same name but for its suffix."""
    wanted = Path(path)
    if not wanted.parent.is_dir():
        return ""
    others = sorted(other.name for other in wanted.parent.iterdir() if other.stem == wanted.stem)
    return f" (beside it: {', '.join(others)}, but a mask's name ends in {wanted.suffix})" if others else ""
