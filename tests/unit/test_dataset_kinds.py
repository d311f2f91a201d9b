"""One battery over all kinds of data sets: the same pictures, however they are kept, give the same index and pixels."""

import io
import json
from pathlib import Path

import dataset_kinds_for_tests
import numpy as np
import polars
import pytest
from dataset_kinds_for_tests import (
    CLASSES,
    Card,
    Kind,
    Sample,
    as_png,
    every_kind,
    every_kind_with_masks,
    in_listed_folder,
    samples,
    written,
)
from indexed_for_tests import summary
from PIL import Image

from visae.config.settings import (
    DatasetSettings,
)
from visae.data.images import fitted_mask, pixels
from visae.data.index import SCHEMA, build_index, read_classes, read_index, read_mask_reading
from visae.data.patch_labels import patch_labels, write_patch_labels
from visae.errors import DataError
from visae.files import file_sha256
from visae.heads.masks import Masks


@every_kind
def test_same_rows_and_pixels(tmp_path, index_path, kind):
    content = samples()
    settings = kind.write(tmp_path / "set", content)
    assert settings.has_masks == kind.masks
    assert settings.may_have_labels == kind.labels
    build_index(settings, index_path)
    frame = read_index(index_path)
    assert dict(frame.schema) == SCHEMA
    assert frame["image_id"].to_list() == list(range(12))
    assert frame["split"].to_list() == [sample.split for sample in content]
    assert frame.select("width", "height").rows() == [sample.picture.shape[1::-1] for sample in content]
    for sample, path, sha256 in zip(content, frame["path"], frame["sha256"], strict=True):
        assert sha256 == file_sha256(written(tmp_path / "one.png", sample.png()))
        np.testing.assert_array_equal(pixels(path, Card()), pixels(tmp_path / "one.png", Card()))
    if kind.labels:
        assert frame["label_name"].to_list() == [sample.label for sample in content]
        classes = read_classes(index_path)
        assert [classes[label] for label in frame["label"]] == [sample.label for sample in content]
        assert sorted(classes, key=classes.__getitem__) == sorted(classes)
    else:
        assert frame["label"].null_count() == frame["label_name"].null_count() == 12
    record = summary(index_path)
    assert record["n_images"] == {"train": 8, "val": 4}
    assert record["n_shared_between_splits"] == record["n_skipped"] == 0


@every_kind_with_masks
@pytest.mark.parametrize("ignore_ids", [[], [5, 255]])
def test_same_masks_patch_labels_and_channels(tmp_path, index_path, kind, ignore_ids):
    content = samples()
    if ignore_ids:
        content[3].mask[:, :4] = 255
    build_index(kind.write(tmp_path / "set", content, ignore_ids=ignore_ids), index_path)
    assert read_classes(index_path) == CLASSES
    assert read_mask_reading(index_path).ignore_ids == tuple(ignore_ids)
    seen = {"image_size": [28, 28], "fit": "crop", "crop_share": 1.0}
    (tmp_path / "model.json").write_text(json.dumps({**seen, "layers": [{"d_model": 1, "grid": [4, 4]}]}))
    write_patch_labels(index_path, tmp_path / "model.json", 0, tmp_path / "labels.parquet")
    labels = polars.read_parquet(tmp_path / "labels.parquet")
    masks = Masks(index_path, Card(), list(CLASSES))
    for image_id, sample in enumerate(content):
        ids = sample.mask.copy()
        ids[np.isin(ids, ignore_ids)] = 0
        expected = fitted_mask(written(tmp_path / "one.png", as_png(ids)), ids.shape[::-1], (28, 28), "crop")
        of_patches, purity = patch_labels(expected, (4, 4), 5)
        rows = labels.filter(image_id=image_id)
        np.testing.assert_array_equal(rows["label"], of_patches)
        np.testing.assert_array_equal(rows["purity"], purity)
        channels = np.select([expected == 2, expected == 5], [0, 1], -1)
        np.testing.assert_array_equal(masks.read(image_id), channels)
    assert set(labels["label"]) == ({0, 2} if ignore_ids else {0, 2, 5})


def same_patch_labels(
    tmp_path: Path, kind: Kind, one: tuple[list[Sample], dict], other: tuple[list[Sample], dict]
) -> bool:
    """Whether two ways to write a data set give the same masks, as patch labels and as channels."""
    card = json.dumps(
        {"image_size": [28, 28], "fit": "crop", "crop_share": 1.0, "layers": [{"d_model": 1, "grid": [4, 4]}]}
    )
    (tmp_path / "model.json").write_text(card)
    found, channels = [], []
    for name, (content, options) in (("one", one), ("other", other)):
        index_path = tmp_path / name / "results" / "index.parquet"
        build_index(kind.write(tmp_path / name / "set", content, **options), index_path)
        write_patch_labels(index_path, tmp_path / "model.json", 0, tmp_path / f"{name}.parquet")
        found.append(polars.read_parquet(tmp_path / f"{name}.parquet"))
        masks = Masks(index_path, Card(), sorted(read_classes(index_path)))
        channels.append(np.stack([masks.read(image_id) for image_id in range(len(content))]))
    assert found[0]["label"].n_unique() == 3
    return found[0].equals(found[1]) and np.array_equal(*channels)


@every_kind_with_masks
def test_masks_and_classes_numbered_from_0(tmp_path, monkeypatch, kind):
    """The same pictures with ids from 0 and 255 for unlabelled, and with ids from 1 and 0."""
    zero_based, one_based = samples(), samples()
    for sample, same in zip(zero_based, one_based, strict=True):
        sample.mask = np.select([sample.mask == 2, sample.mask == 5], [0, 3], 255).astype(np.uint8)
        same.mask = np.select([same.mask == 2, same.mask == 5], [1, 4], 0).astype(np.uint8)

    def write(root: Path, content: list[Sample], **options) -> DatasetSettings:
        monkeypatch.setattr(
            dataset_kinds_for_tests, "CLASSES", {0: "sky", 3: "tree"} if options else {1: "sky", 4: "tree"}
        )
        return kind.write(root, content, **options)

    options = {"zero_based": True, "ignore_ids": [255]}
    both = Kind(write, kind.labels, kind.masks)
    assert same_patch_labels(tmp_path, both, (zero_based, options), (one_based, {}))
    one, other = (summary(tmp_path / name / "results" / "index.parquet") for name in ("one", "other"))
    assert one["classes"] == other["classes"]
    assert one["unlabelled_share"] == other["unlabelled_share"] > 0
    assert [entry["id"] for entry in one["mask_ids"]] == [0, 3, 255]
    frames = [read_index(tmp_path / name / "results" / "index.parquet") for name in ("one", "other")]
    assert frames[0]["label"].equals(frames[1]["label"])


@every_kind_with_masks
def test_masks_of_turned_pictures_in_both_frames(tmp_path, kind):
    class Turned(Sample):
        def png(self) -> bytes:
            exif = Image.Exif()
            exif[0x0112] = 6
            buffer = io.BytesIO()
            Image.fromarray(self.picture).save(buffer, "png", exif=exif)
            return buffer.getvalue()

    raw, seen = ([Turned(**vars(sample)) for sample in samples()] for _ in range(2))
    for sample in seen:
        sample.mask = np.rot90(sample.mask, -1)
    assert same_patch_labels(tmp_path, kind, (raw, {"mask_frame": "raw"}), (seen, {}))
    record = summary(tmp_path / "other" / "results" / "index.parquet")
    assert record["n_turned"] == record["n_turned_masked"] == 12
    (notice,) = (notice for notice in record["notices"] if "mask_frame: raw" in notice["text"])
    assert notice["level"] == "warning"
    assert "12 pictures" in notice["text"]
    said = summary(tmp_path / "one" / "results" / "index.parquet")["notices"]
    assert not any("mask_frame" in notice["text"] for notice in said)
    with pytest.raises(DataError, match=r"EXIF orientation 6, the mask lies raw: set mask_frame: raw"):
        build_index(kind.write(tmp_path / "unsaid", raw), tmp_path / "third" / "index.parquet")


@every_kind_with_masks
def test_an_id_that_is_neither_listed_nor_ignored_is_refused(tmp_path, index_path, kind):
    content = samples()
    content[3].mask[0, 0] = 255
    with pytest.raises(DataError, match=r"0003.*class ids 255 are not in the list of classes.*ignore_ids"):
        build_index(kind.write(tmp_path / "set", content), index_path)
    assert not index_path.exists()


@every_kind
def test_only_headers_are_read_where_that_is_wanted(tmp_path, index_path, kind):
    content = samples()
    build_index(kind.write(tmp_path / "set", content), index_path)
    whole = read_index(index_path)
    assert summary(index_path)["n_shared_between_splits"] == 0
    build_index(kind.write(tmp_path / "other", content, check="size", hashes=False), index_path)
    headers = read_index(index_path)
    assert dict(headers.schema) == SCHEMA
    assert headers["sha256"].null_count() == 12
    compared = ["image_id", "split", "label", "label_name", "width", "height"]
    assert headers.select(compared).equals(whole.select(compared))
    assert summary(index_path)["n_shared_between_splits"] is None


@every_kind
@pytest.mark.parametrize("check", ["decode", "size"])
def test_a_damaged_picture_is_skipped_by_name(tmp_path, index_path, kind, check):
    content = samples()
    cut = {"decode": slice(0, 200), "size": slice(0, 12)}[check]

    class Cut(Sample):
        def png(self) -> bytes:
            return super().png()[cut]

    content[5] = Cut(**vars(content[5]))
    build_index(kind.write(tmp_path / "set", content, max_unreadable=0.1, check=check), index_path)
    frame = read_index(index_path)
    assert frame["image_id"].to_list() == list(range(11))
    assert frame.select("width", "height").rows() == [
        sample.picture.shape[1::-1] for sample in content if sample.key != "0005"
    ]
    skipped = polars.read_csv(index_path.with_name("skipped.csv"))
    assert ["0005" in path for path in skipped["path"]] == [True]
    assert "unreadable picture" in skipped["reason"][0]


@every_kind
def test_copies_in_two_splits_are_counted(tmp_path, index_path, kind):
    content = samples()
    content[9].picture, content[9].mask = content[2].picture, content[2].mask
    content[4].picture, content[4].mask = content[3].picture, content[3].mask  # in one split: no matter
    build_index(kind.write(tmp_path / "set", content), index_path)
    assert summary(index_path)["n_shared_between_splits"] == 2


@every_kind
def test_the_same_files_give_the_same_bytes(tmp_path, index_path, kind):
    settings = kind.write(tmp_path / "set", samples())
    build_index(settings, index_path)
    first = index_path.read_bytes()
    build_index(settings, index_path)
    assert index_path.read_bytes() == first


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        ("images.txt", "", None, r"images\.txt: there is no such file"),
        ("image_class_labels.txt", "3 2\n", "", r"image_class_labels\.txt: the picture 3 of images\.txt has no class"),
        (
            "image_class_labels.txt",
            "3 2\n",
            "3 9\n",
            r"image_class_labels\.txt: the picture 3 of images\.txt has no ",
        ),
        ("train_test_split.txt", "3 1\n", "3 2\n", r"train_test_split\.txt: the picture 3 of images\.txt must have 1 "),
        ("train_test_split.txt", "3 1\n", "4 1\n", r"train_test_split\.txt, line [34]: write a key that comes once"),
        ("classes.txt", "2 sky\n", "two sky\n", r"classes\.txt, line 1: the id of a class is a number, not two"),
    ],
)
def test_lists_that_do_not_fit_together_are_refused(tmp_path, index_path, file, before, after, message):
    settings = in_listed_folder(tmp_path / "set", samples())
    path = tmp_path / "set" / file
    if after is None:
        path.unlink()
    else:
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=message):
        build_index(settings, index_path)
