"""Patch labels against a plain loop, and through the same geometry as the pictures."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image

from visae.config.settings import ImageFolderSettings, SegmentationFolderSettings
from visae.data.images import pixels
from visae.data.index import build_index
from visae.data.patch_labels import patch_labels, write_patch_labels
from visae.errors import DataError


class Card:
    image_size = (56, 56)
    interpolation = "bicubic"

    def __init__(self, fit: str, crop_share: float) -> None:
        self.fit, self.crop_share = fit, crop_share


def write_card(path: Path, fit: str, crop_share: float) -> Path:
    layers = [{"d_model": 1, "grid": [4, 4]}]
    path.write_text(json.dumps({"image_size": [56, 56], "fit": fit, "crop_share": crop_share, "layers": layers}))
    return path


@pytest.mark.parametrize(
    ("grid", "patch", "n_classes"),
    [((3, 3), (14, 14), 5), ((4, 4), (5, 5), 150), ((1, 1), (16, 16), 1), ((4, 2), (7, 5), 3)],
)
def test_equals_a_plain_loop(grid, patch, n_classes):
    generator = np.random.default_rng(0)
    shape = grid[0] * patch[0], grid[1] * patch[1]
    mask = np.minimum(generator.integers(0, n_classes + 1, shape), generator.integers(0, n_classes + 1, shape))
    labels, purity = patch_labels(mask, grid, n_classes)
    assert labels.dtype == np.int16
    assert purity.dtype == np.float32
    expected = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            down, across = row * patch[0], column * patch[1]
            counts = Counter(mask[down : down + patch[0], across : across + patch[1]].ravel().tolist())
            label, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
            expected.append((label, count / (patch[0] * patch[1])))
    np.testing.assert_array_equal(labels, [label for label, _ in expected])
    np.testing.assert_allclose(purity, [share for _, share in expected], rtol=1e-6)


def test_row_major_and_pure():
    mask = np.kron(np.arange(12).reshape(3, 4)[:, :3], np.ones((4, 4), dtype=int))
    labels, purity = patch_labels(mask.astype(np.uint8), (3, 3), 11)
    assert labels.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert (purity == 1).all()


@pytest.mark.parametrize("wrong", [7, -1, 255])
def test_ids_out_of_range_are_refused(wrong):
    mask = np.zeros((8, 8), dtype=np.int32)
    mask[3, 3] = wrong
    with pytest.raises(DataError, match=str(wrong)):
        patch_labels(mask, (2, 2), 6)


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("crop_share", [1.0, 0.875])
def test_written_labels_follow_the_pixels_that_the_model_sees(tmp_path, fit, crop_share):
    """Pictures whose brightness is their class: the labels have to agree with the fitted pixels."""
    root = tmp_path / "set"
    generator = np.random.default_rng(1)
    for number, (height, width) in enumerate([(90, 140), (130, 70), (56, 56)]):
        coarse = generator.integers(1, 5, (2, 2)).astype(np.uint8)
        mask = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))
        for kind, image in (("images", Image.fromarray(mask * 50)), ("annotations", Image.fromarray(mask))):
            (root / kind / "train").mkdir(parents=True, exist_ok=True)
            image.save(root / kind / "train" / f"{number}.png")
    (root / "classes.txt").write_text("1\ta\n2\tb\n3\tc\n4\td\n")
    index_path = tmp_path / "index.parquet"
    build_index(
        SegmentationFolderSettings(kind="segmentation_folder", root=str(root), splits={"train": "train"}), index_path
    )
    output = tmp_path / "labels.parquet"
    write_patch_labels(index_path, write_card(tmp_path / "model.json", fit, crop_share), 0, output)
    frame = polars.read_parquet(output)
    assert dict(frame.schema) == {
        "image_id": polars.Int32,
        "token": polars.Int16,
        "label": polars.Int16,
        "purity": polars.Float32,
    }
    assert frame["image_id"].to_list() == np.repeat([0, 1, 2], 16).tolist()
    assert frame["token"].to_list() == list(range(16)) * 3
    for image_id in range(3):
        seen = pixels(root / "images" / "train" / f"{image_id}.png", Card(fit, crop_share))[0].numpy().astype(float)
        brightness = seen.reshape(4, 14, 4, 14).mean(axis=(1, 3)).ravel()
        rows = frame.filter(image_id=image_id)
        pure = rows["purity"].to_numpy() == 1
        assert pure.sum() >= 12
        np.testing.assert_allclose(brightness[pure] / 50, rows["label"].to_numpy()[pure], atol=0.06)


def test_data_without_masks_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "set" / "a.png")
    index_path = tmp_path / "index.parquet"
    settings = ImageFolderSettings(
        kind="image_folder", root=str(tmp_path / "set"), labels="none", val_share=0.0, test_share=0.0
    )
    build_index(settings, index_path)
    with pytest.raises(DataError, match="no picture has a mask"):
        write_patch_labels(index_path, write_card(tmp_path / "model.json", "crop", 1.0), 0, tmp_path / "labels.parquet")
