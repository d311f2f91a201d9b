"""Ids of masks come out as they are stored, or the file is refused by its content."""

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from visae.data.images import fitted_mask, image_size, open_image, read_mask
from visae.data.mask_files import MaskReading, stored_mask
from visae.errors import DataError

IDS = np.random.default_rng(0).integers(0, 2**16, (13, 17))


def packed(values: NDArray, bits: int, row_bytes: int = 1) -> bytes:
    """Rows of big-endian samples, each filled up to whole bytes."""
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % (8 * row_bytes))
        rows += int(text, 2).to_bytes(len(text) // 8, "big")
    return rows


def png(values: NDArray, bits: int, *, palette: bytes = b"", interlaced: bool = False, exif: bytes = b"") -> bytes:
    """Write a PNG of greys, or of palette ids, of any depth: Pillow writes 8 and 16 bits alone."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [values[top::down, left::across] for left, top, across, down in passes]
    raw = b"".join(b"\0" + packed(row[None], bits) for part in parts if part.size for row in part)
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, interlaced)
    chunks = [(b"IHDR", header), (b"PLTE", palette), (b"eXIf", exif), (b"IDAT", zlib.compress(raw))]
    written = b"".join(chunk(kind, data) for kind, data in chunks if data)
    return b"\x89PNG\r\n\x1a\n" + written + chunk(b"IEND", b"")


def tiff(values: NDArray, bits: int, *, order: str = "<", deflated: bool = False, photometric: int = 1) -> bytes:
    """Write a TIFF of one strip of greys."""
    kinds = {8: "u1", 16: f"{order}u2", 32: f"{order}u4"}
    data = packed(values, bits) if bits < 8 else values.astype(kinds[bits]).tobytes()
    data = zlib.compress(data) if deflated else data
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 8 if deflated else 1, 262: photometric}
    tags |= {273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IH", 8, len(tags)) + entries + struct.pack(f"{order}I", 0) + data


def bmp(values: NDArray, bits: int, palette: list[int]) -> bytes:
    """Write a BMP with a palette of greys."""
    rows = packed(values[::-1], bits, 4)
    colours = b"".join(bytes((grey, grey, grey, 0)) for grey in palette)
    start = 54 + len(colours)
    height, width = values.shape
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(rows), 0, 0, len(palette), 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colours + rows


def pgm(values: NDArray, largest: int, *, plain: bool) -> bytes:
    """Write greys up to any largest value."""
    height, width = values.shape
    start = f"P{2 if plain else 5}\n{width} {height}\n{largest}\n".encode()
    as_text = " ".join(map(str, values.ravel().tolist())).encode() + b"\n"
    return start + (as_text if plain else values.astype(">u2" if largest > 255 else "u1").tobytes())


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def stored(tmp_path: Path, content: bytes) -> NDArray[np.int32]:
    (tmp_path / "mask.png").write_bytes(content)
    return stored_mask(tmp_path / "mask.png").ids


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_grey_png_of_every_depth(tmp_path, bits, interlaced):
    ids = IDS % 2**bits
    np.testing.assert_array_equal(stored(tmp_path, png(ids, bits, interlaced=interlaced)), ids)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("interlaced", [False, True])
def test_palette_png_of_every_depth(tmp_path, bits, interlaced):
    ids = IDS % 2**bits
    palette = np.random.default_rng(1).integers(0, 255, 3 * 2**bits).astype(np.uint8).tobytes()
    content = png(ids, bits, palette=palette, interlaced=interlaced)
    np.testing.assert_array_equal(stored(tmp_path, content), ids)
    assert stored_mask(tmp_path / "mask.png").palette[1] == tuple(palette[3:6])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
def test_tiff_of_every_depth(tmp_path, bits, order, deflated):
    ids = IDS % 2**bits
    np.testing.assert_array_equal(stored(tmp_path, tiff(ids, bits, order=order, deflated=deflated)), ids)


@pytest.mark.parametrize("largest", [1, 3, 15, 100, 101, 254, 255, 256, 300, 4095, 65534, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_pgm_of_every_largest_value(tmp_path, largest, plain):
    ids = IDS % (largest + 1)
    np.testing.assert_array_equal(stored(tmp_path, pgm(ids, largest, plain=plain)), ids)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("palette", ["spread", "turned"])
def test_bmp_of_every_depth(tmp_path, bits, palette):
    ids = IDS % 2**bits
    greys = [number * 255 // (2**bits - 1) for number in range(2**bits)]
    content = bmp(ids, bits, greys if palette == "spread" else greys[::-1])
    np.testing.assert_array_equal(stored(tmp_path, content), ids)


@pytest.mark.parametrize(("bits", "greys"), [(4, list(range(16))), (8, [0, 255]), (4, [0, 255])])
def test_bmps_that_pillow_unpacks_wrongly_are_refused(tmp_path, bits, greys):
    """It takes the depth from the palette alone where that is one of greys."""
    ids = IDS[:, :4] % len(greys)
    content = bmp(ids, bits, greys)
    assert not np.array_equal(np.asarray(Image.open(io.BytesIO(content))), ids)
    with pytest.raises(DataError, match=r"mask\.png: Pillow does not unpack"):
        stored(tmp_path, content)


GREY = Image.fromarray((IDS % 7).astype(np.uint8))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (saved(GREY, "JPEG", quality=100), "content is JPEG"),
        (saved(GREY, "JPEG2000"), "content is JPEG2000"),
        (saved(GREY.convert("RGB"), "WEBP", quality=50), "content is WEBP"),
        (saved(GREY.convert("RGB"), "WEBP", lossless=True), "content is WEBP"),
        (saved(GREY.convert("RGB"), "AVIF"), "content is AVIF"),
        (saved(GREY, "TIFF", compression="jpeg"), "TIFF compressed as jpeg"),
        (saved(GREY, "TGA"), "masks are read from PNG, TIFF, BMP, GIF and PGM"),
        (saved(GREY, "TIFF", save_all=True, append_images=[GREY]), "holds 2 pictures"),
        (saved(GREY, "PNG", save_all=True, append_images=[GREY.rotate(90)]), "holds 2 pictures"),
        (tiff(IDS % 16, 4, photometric=0), "stores white as 0"),
        (tiff(IDS % 2, 1, photometric=0), "stores white as 0"),
        (b"P1\n2 1\n0 1\n", "stores white as 0"),
        (saved(Image.fromarray((IDS % 7 + 1).astype(np.uint8)), "GIF"), "numbered grey values anew"),
        (saved(Image.merge("LA", [GREY, GREY]), "PNG"), "mode LA"),
        (saved(GREY.convert("RGB"), "PNG"), "ids, not colours"),
        (saved(GREY.convert("F"), "TIFF"), "ids, not numbers with a point"),
    ],
)
def test_files_that_hold_no_ids_are_refused_whatever_their_name(tmp_path, content, named):
    with pytest.raises(DataError, match=rf"mask\.png.*{named}"):
        stored(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty; copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a pointer of Git LFS; run git lfs pull"),
        (b"\n<!DOCTYPE html><html>404", "a page or message of a web server"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG, which is not read"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read"),
        (b"\xff\x0a" + bytes(40), "JPEG XL, which is not read"),
        (b"\x93NUMPY\1\0", "an array of NumPy"),
        (gzip.compress(b"x", mtime=0), "compressed; run `gunzip`"),
        (bytes(4096), "zeros"),
    ],
)
def test_what_is_no_picture_is_named_by_what_it_is(tmp_path, content, named):
    with pytest.raises(DataError, match=rf"mask\.png: unreadable mask: its content is {named}"):
        stored(tmp_path, content)
    with pytest.raises(DataError, match=rf"mask\.png: unreadable picture: its content is {named}"):
        open_image(tmp_path / "mask.png")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd"])
def test_tiffs_without_loss_are_read(tmp_path, compression):
    np.testing.assert_array_equal(stored(tmp_path, saved(GREY, "TIFF", compression=compression)), IDS % 7)


def test_a_missing_mask_names_what_lies_in_its_place(tmp_path):
    GREY.save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.png: the mask is missing \(beside it: a\.jpg"):
        stored_mask(tmp_path / "a.png")


def with_orientation(image: Image.Image, kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, kind, exif=exif.tobytes())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_raw_masks_are_turned_as_their_pictures_are(tmp_path, kind, orientation):
    """Picture and mask have one corner in common, which has to stay so."""
    ids = np.zeros((24, 32), dtype=np.uint8)
    ids[:8, :16] = 7
    picture = Image.fromarray(ids * 30).convert("RGB")
    (tmp_path / "picture").write_bytes(with_orientation(picture, kind, orientation))
    Image.fromarray(ids).save(tmp_path / "mask.png")
    size = image_size(tmp_path / "picture")
    mask = read_mask(tmp_path / "mask.png", size, MaskReading(frame="raw"), tmp_path / "picture")
    seen = np.asarray(open_image(tmp_path / "picture").convert("L"))
    np.testing.assert_array_equal(mask == 7, seen > 105)
    small = fitted_mask(tmp_path / "mask.png", size, (12, 12), "squash", MaskReading(frame="raw"), tmp_path / "picture")
    assert (small == 7).sum() == 24  # a sixth


@pytest.mark.parametrize("frame", ["unknown", "turned", "raw"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_with_an_orientation_of_its_own_is_turned_by_that_alone(tmp_path, kind, orientation, frame):
    """As a viewer shows it, it lies on the picture as a viewer shows it."""
    ids = (IDS % 9).astype(np.uint8)
    (tmp_path / "picture").write_bytes(with_orientation(Image.fromarray(ids), "PNG", orientation))
    (tmp_path / "mask").write_bytes(with_orientation(Image.fromarray(ids), kind, orientation))
    mask = read_mask(
        tmp_path / "mask", image_size(tmp_path / "picture"), MaskReading(frame=frame), tmp_path / "picture"
    )
    np.testing.assert_array_equal(mask, ImageOps.exif_transpose(Image.open(tmp_path / "picture")))


def test_zero_based_ids_are_one_more_and_only_ignored_ones_are_unlabelled(tmp_path):
    ids = np.array([[0, 1, 7, 255]], dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "mask.png")
    reading = MaskReading(ignore_ids=(255,), zero_based=True)
    assert read_mask(tmp_path / "mask.png", (4, 1), reading).tolist() == [[1, 2, 8, 0]]
    assert [reading.is_unlabelled(number) for number in (0, 1, 255)] == [False, False, True]
    assert MaskReading().is_unlabelled(0)
