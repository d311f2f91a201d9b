"""Every kind of picture file becomes the RGB that a viewer shows."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures_for_tests import colours
from PIL import Image

from visae.data.images import image_size, open_image
from visae.errors import DataError

GRADIENT = np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)


def opened(path: Path) -> np.ndarray:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def stored(path: Path, attribute: str) -> object:
    """What Pillow itself says on a file: shows that a test's file is of the kind that it is about."""
    with Image.open(path) as image:
        return getattr(image, attribute)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_colours_are_kept(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(colours()).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(opened(path), colours())


def test_jpeg_is_close(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    assert np.abs(opened(tmp_path / "a.jpg").astype(int) - colours()).mean() < 4


def turned_back(orientation: int) -> np.ndarray:
    """What a camera stores with this EXIF orientation when the scene is `colours()`."""
    scene = colours()
    return {
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.swapaxes(0, 1),
        6: np.rot90(scene, 1),
        7: scene[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(scene, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(np.ascontiguousarray(turned_back(orientation)))
    turned.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    seen = opened(tmp_path / "a.jpg")
    assert seen.shape == (30, 40, 3)
    assert np.abs(seen.astype(int) - colours()).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_header_gives_the_size_after_rotation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours()).save(tmp_path / f"a{suffix}", exif=exif)
    expected = (30, 40) if orientation >= 5 else (40, 30)
    assert open_image(tmp_path / f"a{suffix}").size == expected
    assert image_size(tmp_path / f"a{suffix}") == expected


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp"])
def test_the_header_gives_the_size_of_every_format(tmp_path, suffix):
    frames = [Image.fromarray(colours()).convert("L" if suffix == ".pgm" else "RGB")] * 2
    animated = {"save_all": True, "append_images": frames[1:]} if suffix in (".gif", ".webp", ".tif") else {}
    frames[0].save(tmp_path / f"a{suffix}", **animated)
    assert image_size(tmp_path / f"a{suffix}") == open_image(tmp_path / f"a{suffix}").size == (40, 30)


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """Put a chunk after the pixels of a PNG, just before its end, as ExifTool does."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:-12] + chunk + png[-12:]


def test_a_rotation_after_the_pixels_of_a_png_counts_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rotation = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="8"/>'
    Image.fromarray(colours()).save(tmp_path / "plain.png")
    plain = (tmp_path / "plain.png").read_bytes()
    late = {
        "exif.png": with_chunk(plain, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        "xmp.png": with_chunk(plain, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + rotation),
        "comment.png": with_chunk(plain, b"tEXt", b"Comment\0hello"),
    }
    for name, content in late.items():
        (tmp_path / name).write_bytes(content)
        assert image_size(tmp_path / name) == open_image(tmp_path / name).size
    assert [image_size(tmp_path / name) for name in late] == [(30, 40), (30, 40), (40, 30)]


def test_the_header_is_all_that_is_read_for_the_size(tmp_path):
    for suffix in (".png", ".jpg"):
        path = tmp_path / f"cut{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48, 3), dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert image_size(path) == (48, 64)
        with pytest.raises(DataError, match=f"cut{suffix}"):
            open_image(path)


def test_grey_and_black_and_white(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(opened(tmp_path / "grey.png"), np.repeat(GRADIENT[:, :, None], 3, axis=2))
    Image.fromarray(GRADIENT > 127).save(tmp_path / "binary.png")
    np.testing.assert_array_equal(opened(tmp_path / "binary.png")[:, :, 1], (GRADIENT > 127) * 255)


def test_palette(tmp_path):
    Image.fromarray(colours()).quantize(8).save(tmp_path / "a.png")
    assert stored(tmp_path / "a.png", "mode") == "P"
    assert np.abs(opened(tmp_path / "a.png").astype(int) - colours()).max() <= 4


def test_cmyk(tmp_path):
    Image.fromarray(colours()).convert("CMYK").save(tmp_path / "a.jpg", quality=98, subsampling=0)
    assert stored(tmp_path / "a.jpg", "mode") == "CMYK"
    assert np.abs(opened(tmp_path / "a.jpg").astype(int) - colours()).mean() < 5


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_range(tmp_path, suffix):
    deep = GRADIENT.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / f"a{suffix}")
    assert str(stored(tmp_path / f"a{suffix}", "mode")).startswith("I")
    np.testing.assert_array_equal(opened(tmp_path / f"a{suffix}")[:, :, 0], GRADIENT)


def test_dark_sixteen_bits_stay_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 200, dtype=np.uint16)).save(tmp_path / "a.png")
    assert opened(tmp_path / "a.png").max() == 1


def test_thirty_two_bit_integers(tmp_path):
    Image.fromarray(GRADIENT.astype(np.int32) * 257).save(tmp_path / "a.tif")
    assert stored(tmp_path / "a.tif", "mode") == "I"
    np.testing.assert_array_equal(opened(tmp_path / "a.tif")[:, :, 0], GRADIENT)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floating_point(tmp_path, top):
    Image.fromarray((GRADIENT / 255 * top).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(opened(tmp_path / "a.tif")[:, :, 2], GRADIENT)


def test_transparency_is_laid_over_white(tmp_path):
    alpha = np.zeros((30, 40), dtype=np.uint8)
    alpha[:, :20] = 255
    alpha[:, 20:30] = 128
    Image.fromarray(np.dstack([colours(), alpha])).save(tmp_path / "a.png")
    share = alpha[:, :, None] / 255
    np.testing.assert_allclose(opened(tmp_path / "a.png"), colours() * share + 255 * (1 - share), atol=1)


def test_grey_and_palette_transparency(tmp_path):
    grey = Image.fromarray(np.full((4, 4), 60, dtype=np.uint8))
    grey.putalpha(Image.fromarray(np.array([[0] * 4, [255] * 4, [0] * 4, [255] * 4], dtype=np.uint8)))
    grey.save(tmp_path / "grey.png")
    assert opened(tmp_path / "grey.png")[:, 0, 0].tolist() == [255, 60, 255, 60]
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
    palette.putpalette([9, 9, 9, 80, 80, 80])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert opened(tmp_path / "palette.png")[0, :, 0].tolist() == [255, 80]


def test_rgb_with_a_transparent_colour(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.png", transparency=(250, 10, 10))
    seen = opened(tmp_path / "a.png")
    assert (seen[:15, :20] == 255).all()
    np.testing.assert_array_equal(seen[15:], colours()[15:])


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_gives_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], duration=50, **options)
    assert stored(tmp_path / f"a{suffix}", "n_frames") == 3
    np.testing.assert_array_equal(opened(tmp_path / f"a{suffix}"), np.full((10, 20, 3), (255, 0, 0)))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif", ".webp"])
def test_truncated_files_are_refused_by_name(tmp_path, suffix):
    generator = np.random.default_rng(0)
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"cut{suffix}"):
        open_image(path)


def test_empty_text_and_missing_files_are_refused_by_name(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("empty.jpg", "text.png", "missing.png"):
        for read in (open_image, image_size):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)
