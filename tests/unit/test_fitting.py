"""How pictures become as large as a model sees them: as timm and torchvision do it, and masks with them."""

import numpy as np
import pytest
import torch
from pictures_for_tests import colours
from PIL import Image

from visae.data.images import fitted, fitted_mask, pixels, read_mask
from visae.data.mask_files import MaskReading
from visae.errors import DataError
from visae.vision.timm_import import import_timm


class Card:
    image_size = (28, 28)
    fit = "crop"
    crop_share = 1.0
    interpolation = "bicubic"


@pytest.mark.parametrize(("mode", "fit"), [("center", "crop"), ("squash", "squash")])
@pytest.mark.parametrize("crop_share", [1.0, 0.95, 0.9, 0.875])
@pytest.mark.parametrize("seen", [(56, 56), (42, 70), (70, 28)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_are_timms_pixel_for_pixel(mode, fit, crop_share, seen, interpolation):
    """Noise of even, odd, small and long shapes through timm's own transform."""
    import_timm()
    from timm.data.transforms_factory import transforms_imagenet_eval

    options = {"crop_pct": crop_share, "crop_mode": mode, "interpolation": interpolation, "normalize": False}
    theirs, generator = transforms_imagenet_eval(seen, **options), np.random.default_rng(0)
    for width, height in [(200, 100), (101, 203), (56, 56), (61, 87), (31, 110), (110, 33)]:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        ours = np.asarray(fitted(image, seen, fit, interpolation, crop_share))
        np.testing.assert_array_equal(ours, theirs(image).permute(1, 2, 0).numpy())


def test_a_panorama_is_timms_but_for_rounding():
    """It is cut before it is scaled; Pillow then rounds in between in another order, which smooth pictures hide."""
    import_timm()
    from timm.data.transforms_factory import transforms_imagenet_eval

    columns, rows = np.meshgrid(np.linspace(0, 60, 4000), np.linspace(0, 4, 40))
    waves = np.stack([np.sin(columns), np.cos(rows), np.sin(columns + rows)], axis=2)
    image = Image.fromarray((127 + 120 * waves).astype(np.uint8))
    theirs = transforms_imagenet_eval((56, 56), crop_pct=0.9, interpolation="bicubic", normalize=False)(image)
    ours = np.asarray(fitted(image, (56, 56), "crop", "bicubic", 0.9)).astype(int)
    assert np.abs(ours - theirs.permute(1, 2, 0).numpy()).max() <= 2


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (150, 150), (50, 100)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_is_torchvisions_where_nothing_is_rounded(size, interpolation):
    """Resize of the shorter side and centre crop, away from the crop's own border."""
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    scaled = image.resize(tuple(round(side * 50 / min(size)) for side in size), Image.Resampling[interpolation.upper()])
    left, upper = (scaled.width - 50) // 2, (scaled.height - 50) // 2
    expected = np.asarray(scaled.crop((left, upper, left + 50, upper + 50)), dtype=int)
    seen = np.asarray(fitted(image, (50, 50), "crop", interpolation), dtype=int)
    assert seen.shape == (50, 50, 3)
    assert np.abs(seen - expected)[3:-3, 3:-3].max() <= 1


def test_squash_uses_the_whole_picture():
    image = Image.fromarray(colours())
    expected = np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(np.asarray(fitted(image, (24, 24), "squash")), expected)


def test_extreme_shapes_stay_cheap():
    assert fitted(Image.new("RGB", (30_000, 1)), (224, 224), "crop").size == (224, 224)


def test_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="stretch"):
        fitted(Image.new("RGB", (4, 4)), (4, 4), "stretch")


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(90, 60), (60, 90), (61, 87), (300, 41), (224, 224)])
@pytest.mark.parametrize("seen", [(56, 56), (42, 70), (70, 28)])
@pytest.mark.parametrize("crop_share", [1.0, 0.9])
def test_mask_goes_through_the_geometry_of_its_picture(tmp_path, fit, size, seen, crop_share):
    """A disc drawn in both: picture and mask agree but for the pixels on its edge."""
    rows, columns = np.mgrid[: size[1], : size[0]] + 0.5
    inside = np.hypot((columns - size[0] * 0.45) / size[0], (rows - size[1] * 0.55) / size[1]) < 0.3
    Image.fromarray(inside.astype(np.uint8) * 3).save(tmp_path / "mask.png")
    mask = fitted_mask(tmp_path / "mask.png", size, seen, fit, crop_share=crop_share)
    picture = np.asarray(fitted(Image.fromarray(inside).convert("RGB"), seen, fit, "bilinear", crop_share))[:, :, 0]
    assert mask.shape == seen
    assert set(np.unique(mask)) <= {0, 3}
    assert mask.max() == 3
    assert ((mask == 3) != (picture > 127)).mean() < 0.02
    clear = (picture < 5) | (picture > 250)
    assert ((mask == 3) != (picture > 127))[clear].mean() < 0.002


def test_mask_of_the_same_size_is_unchanged(tmp_path):
    ids = np.random.default_rng(0).integers(0, 200, (40, 40)).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(fitted_mask(tmp_path / "mask.png", (40, 40), (40, 40), "crop"), ids)


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_ignored_ids_become_unlabelled(tmp_path, fit):
    ids = np.random.default_rng(0).choice([0, 1, 7, 255], (40, 30)).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "mask.png")
    whole = fitted_mask(tmp_path / "mask.png", (30, 40), (20, 20), fit)
    assert set(np.unique(whole)) == {0, 1, 7, 255}
    expected = np.where(np.isin(whole, [7, 255]), 0, whole)
    reading = MaskReading(ignore_ids=(255, 7, 99))
    np.testing.assert_array_equal(fitted_mask(tmp_path / "mask.png", (30, 40), (20, 20), fit, reading), expected)
    deep = np.array([[65535, 3]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_mask(tmp_path / "deep.png", (2, 1), MaskReading((65535, -1))).tolist() == [[0, 3]]


def test_masks_of_every_mode(tmp_path):
    ids = np.arange(24).reshape(4, 6).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(np.random.default_rng(0).integers(0, 255, 768).tolist())
    palette.putdata(ids.ravel().tolist())
    palette.save(tmp_path / "palette.png")
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "deep.png")
    for name in ("grey.png", "palette.png", "deep.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, (6, 4)), ids)
    many = ids.astype(np.uint16) * 1000
    Image.fromarray(many).save(tmp_path / "many.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "many.png", (6, 4)), many)


def test_wrong_masks_are_refused_by_name(tmp_path):
    Image.new("L", (6, 4)).save(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"mask\.png.*6 x 4.*4 x 6"):
        read_mask(tmp_path / "mask.png", (4, 6))
    Image.new("RGB", (6, 4)).save(tmp_path / "coloured.png")
    with pytest.raises(DataError, match=r"coloured\.png.*ids, not colours"):
        read_mask(tmp_path / "coloured.png", (6, 4))
    with pytest.raises(DataError, match=r"missing\.png.*missing"):
        read_mask(tmp_path / "missing.png", (6, 4))
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"damaged\.png"):
        read_mask(tmp_path / "damaged.png", (6, 4))


def test_pixels_are_the_fitted_picture_channels_first(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.png")
    seen = pixels(tmp_path / "a.png", Card())
    assert seen.dtype == torch.uint8
    assert seen.shape == (3, 28, 28)
    assert seen.is_contiguous()
    expected = np.asarray(fitted(Image.fromarray(colours()), (28, 28), "crop", "bicubic")).transpose(2, 0, 1)
    np.testing.assert_array_equal(seen.numpy(), expected)
    assert seen[:, 2, 2].tolist() == [250, 10, 10]
