"""Open any picture as RGB, and bring picture and mask to the size of the model by the same geometry."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, features

from visae.data.locators import opened
from visae.data.mask_files import MaskReading, StoredMask, orientation_of, reason, stored_mask, turned
from visae.errors import DataError

if TYPE_CHECKING:
    import torch

_LONGEST = 16  # a scaled picture of more times the pixels of what is cut out of it is never made whole
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")
_OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
# What the Pillow that is installed reads as one still picture: no documents, icons, arrays of numbers, films.
SUFFIXES = frozenset(
    suffix
    for suffix, kind in Image.registered_extensions().items()
    if kind in _FORMATS and (kind not in _OPTIONAL or features.check(_OPTIONAL[kind]))
)
_PLAIN = MaskReading()


class Preprocessing(Protocol):
    """What of a model's card decides its input; `visae.vision.model.ModelCard` has it."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def fit(self) -> str:
        """`crop` or `squash`."""

    @property
    def crop_share(self) -> float:
        """Share of the scaled picture's side that is kept, from its centre."""

    @property
    def interpolation(self) -> str:
        """`bicubic`, `bilinear`, ..."""


def open_image(path: str | Path) -> Image.Image:
    """Decode a picture whole and turn it into RGB as a viewer would show it.

    EXIF rotation is applied, transparency is laid over white, 16-bit grey keeps its upper 8 bits, floating
    point is taken as 0 to 1 (0 to 255 where it goes above 1), and of an animation the first frame is taken.

    Raises
    ------
    DataError
        If the file cannot be read or is damaged, truncated ones included.
    """
    return open_picture(path)[0]


def open_picture(path: str | Path) -> tuple[Image.Image, int]:
    """As `open_image`, with the EXIF orientation that was applied, 1 to 8; raises as that does."""
    try:
        with opened(path) as file, Image.open(file) as image:
            # Pillow turns a TIFF itself while it loads it, and a PNG may tell its orientation only then.
            orientation = orientation_of(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
            image.load()
            return _rgb(ImageOps.exif_transpose(image)), orientation or orientation_of(image)
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files
        raise DataError(f"{path}: unreadable picture: {reason(error)}") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture after EXIF rotation, from its header.

    Raises
    ------
    DataError
        If there is no file, or not a picture's header in it.
    """
    return picture_size(path)[:2]


def picture_size(path: str | Path) -> tuple[int, int, int]:
    """As `image_size`, with the EXIF orientation as a third number; raises as that does."""
    try:
        with opened(path) as file, Image.open(file) as image:
            if image.format == "PNG" and _has_late_text(file):
                image.load()
            width, height = image.size
            orientation = orientation_of(image)
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                width, height = (int(image.tag_v2[tag]) for tag in (256, 257))
            return (height, width, orientation) if orientation >= 5 else (width, height, orientation)
    except Exception as error:  # as in open_image
        raise DataError(f"{path}: unreadable picture: {reason(error)}") from error


def fitted(
    image: Image.Image, size: tuple[int, int], fit: str, interpolation: str = "bicubic", crop_share: float = 1.0
) -> Image.Image:
    """Scale a picture and cut out its centre, with antialiasing, as timm's transform does.

    Parameters
    ----------
    image
        RGB picture.
    size
        Height and width in pixels.
    fit
        What is scaled to `size` / `crop_share`: the shorter side (`crop`), or each side by itself (`squash`).
    interpolation
        Name of a Pillow filter, in lower case.
    crop_share
        Above 0, at most 1.
    """
    resample = Image.Resampling[interpolation.upper()]
    height, width = _scaled(image.width, image.height, size, fit, crop_share)
    if height * width > _LONGEST * size[0] * size[1]:
        return image.resize(size[::-1], resample, box=_used_box(image.width, image.height, size, fit, crop_share))
    # Not by a box too: Pillow then takes rows and columns in another order, and rounds in between.
    upper, left = _centre((height, width), size)
    return image.resize((width, height), resample).crop((left, upper, left + size[1], upper + size[0]))


def read_mask(
    mask_path: str | Path,
    image_size_wh: tuple[int, int],
    reading: MaskReading = _PLAIN,
    picture_path: str | Path | None = None,
) -> NDArray[np.int32]:
    """Read class ids, int32 (height, width), 0 = unlabelled.

    Parameters
    ----------
    mask_path
        Picture of class ids.
    image_size_wh
        Width and height of the picture that it belongs to, after EXIF rotation.
    reading
        What stored ids mean: `visae.data.index.read_mask_reading` tells a data set's own.
    picture_path
        The picture: its orientation turns a mask in the `raw` frame, and is of no matter elsewhere.

    Raises
    ------
    DataError
        If the mask is missing, damaged, of a lossy format, has colours instead of ids, or another size than its
        picture.
    """
    orientation = picture_size(picture_path)[2] if reading.frame == "raw" and picture_path is not None else 1
    return reading.ids(placed(stored_mask(mask_path), mask_path, image_size_wh, reading, orientation))


def placed(
    mask: StoredMask, mask_path: str | Path, image_size_wh: tuple[int, int], reading: MaskReading, orientation: int
) -> NDArray[np.int32]:
    """Stored ids in the frame of the picture as it is seen; raises DataError where the sizes differ.

    Parameters
    ----------
    orientation
        The picture's own.
    """
    # One with an orientation of its own was turned by that: it is in its picture's frame as it is seen.
    raw = reading.frame == "raw" and mask.orientation == 1
    ids = turned(mask.ids, orientation) if raw else mask.ids
    size = ids.shape[::-1]
    if size != tuple(image_size_wh):
        other_frame = orientation >= 5 and size[::-1] == tuple(image_size_wh)
        other = "turned" if reading.frame == "raw" else "raw"
        hint = (
            f"; its picture is turned by EXIF orientation {orientation}, the mask lies {other}: set mask_frame: {other}"
        )
        raise DataError(
            f"{mask_path}: the mask has {size[0]} x {size[1]} pixels, its picture {image_size_wh[0]} x "
            f"{image_size_wh[1]} (after EXIF rotation); they have to be the same{hint if other_frame else ''}"
        )
    return ids


def fitted_mask(
    mask_path: str | Path,
    image_size_wh: tuple[int, int],
    size: tuple[int, int],
    fit: str,
    reading: MaskReading = _PLAIN,
    picture_path: str | Path | None = None,
    crop_share: float = 1.0,
) -> NDArray[np.int32]:
    """Read a mask and scale it as `fitted` scales its picture, by nearest neighbour.

    Parameters
    ----------
    mask_path, image_size_wh, reading, picture_path
        As for `read_mask`.
    size, fit, crop_share
        As for `fitted`.

    Returns
    -------
    numpy.ndarray
        int32 (height, width).
    """
    mask = read_mask(mask_path, image_size_wh, reading, picture_path)
    height, width = mask.shape
    left, upper, right, lower = _used_box(width, height, size, fit, crop_share)
    down, across = ((np.arange(side) + 0.5) / side for side in size)
    rows = np.clip((upper + down * (lower - upper)).astype(np.intp), 0, height - 1)
    columns = np.clip((left + across * (right - left)).astype(np.intp), 0, width - 1)
    return mask[rows[:, None], columns]


def pixels(path: str | Path, card: Preprocessing) -> torch.Tensor:
    """Read a picture as a model with this card sees it: uint8 (3, height, width)."""
    import torch  # here, as most jobs that open pictures do without, and save seconds

    image = fitted(open_image(path), card.image_size, card.fit, card.interpolation, card.crop_share)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _used_box(
    width: int, height: int, size: tuple[int, int], fit: str, crop_share: float
) -> tuple[float, float, float, float]:
    """Left, upper, right, lower edge of what is kept of a picture that is to fill `size` (height, width).

    It lies where timm and torchvision cut, which scale the picture to whole pixels before.
    """
    scaled = _scaled(width, height, size, fit, crop_share)
    upper, left = _centre(scaled, size)
    lower, right = upper + size[0], left + size[1]
    return left * width / scaled[1], upper * height / scaled[0], right * width / scaled[1], lower * height / scaled[0]


def _centre(scaled: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Upper and left edge of the centre that is cut out of a scaled picture."""
    return round((scaled[0] - size[0]) / 2), round((scaled[1] - size[1]) / 2)


def _scaled(width: int, height: int, size: tuple[int, int], fit: str, crop_share: float) -> tuple[int, int]:
    """Height and width of the whole picture before its centre is cut out, as timm's transform scales it."""
    rows, columns = (math.floor(side / crop_share + 1e-9) for side in size)  # a share such as 384 / 438 is rounded
    if fit == "squash":
        return rows, columns
    if fit != "crop":
        raise ValueError(f"fit is crop or squash, not {fit}")
    if rows != columns:
        ratio = min(height / rows, width / columns)
        return round(height / ratio), round(width / ratio)
    return (rows, int(rows * width / height)) if height <= width else (int(rows * height / width), rows)


def _rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode.startswith("I;16"):
        return _from_grey(np.asarray(image).astype(np.float32) / 257)
    if mode == "I":  # 16 bits in all files that Pillow opens so, 8 in a few
        values = np.asarray(image).astype(np.float32)
        return _from_grey(values / 257 if values.max() > 255 else values)
    if mode == "F":
        values = np.nan_to_num(np.asarray(image))
        return _from_grey(values * 255 if values.max() <= 1 else values)
    if mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _from_grey(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8)).convert("RGB")


def _has_late_text(file: BinaryIO) -> bool:
    """Whether a PNG has metadata after its pixels: an orientation may be among it, which only decoding reads."""
    file.seek(8)
    after_pixels = False
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        after_pixels = after_pixels or kind == b"IDAT"
        if after_pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            return True
        file.seek(length + 4, 1)
    return False
