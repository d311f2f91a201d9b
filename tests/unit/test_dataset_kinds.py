"""One battery over all kinds of data sets: the same pictures, however they are kept, give the same index and pixels.

A new kind joins by one entry in `KINDS`.
"""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import polars
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from visae.config.settings import (
    DatasetSettings,
    HuggingFaceSettings,
    ImageFolderSettings,
    ListedFolderSettings,
    SegmentationFolderSettings,
    TableSettings,
    WebDatasetSettings,
)
from visae.data.images import fitted_mask, pixels
from visae.data.index import SCHEMA, build_index, read_classes, read_index, read_mask_reading
from visae.data.patch_labels import patch_labels, write_patch_labels
from visae.errors import DataError
from visae.files import file_sha256
from visae.heads.masks import Masks

CLASSES = {2: "sky", 5: "tree"}


class Card:
    image_size = (28, 28)
    fit = "crop"
    crop_share = 1.0
    interpolation = "bicubic"


@dataclass
class Sample:
    split: str
    key: str
    label: str
    picture: np.ndarray
    mask: np.ndarray
    ending: bytes = b""

    def png(self) -> bytes:
        return as_png(self.picture) + self.ending

    def mask_png(self) -> bytes:
        return as_png(self.mask)


def as_png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()


def samples() -> list[Sample]:
    """Twelve pictures of several sizes, in the order that every kind has to give them."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(12):
        split, label = ("train", "val")[number // 8], ("sky", "tree")[number // 4 % 2]
        height, width = ((30, 44), (40, 28), (28, 28))[number % 3]
        picture = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
        stripes = np.repeat(generator.choice([0, 2, 5], 5), 8)[:height]
        mask = np.repeat(stripes[:, None], width, axis=1).astype(np.uint8)
        found.append(Sample(split, f"{number:04d}", label, picture, mask))
    return found


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def in_class_folders(root: Path, content: list[Sample], **options) -> DatasetSettings:
    for sample in content:
        written(root / sample.split / sample.label / f"{sample.key}.png", sample.png())
    splits = {split: split for split in {sample.split for sample in content}}
    return ImageFolderSettings(kind="image_folder", root=str(root), splits=splits, **options)


def in_segmentation_folder(root: Path, content: list[Sample], **options) -> DatasetSettings:
    for sample in content:
        written(root / "images" / sample.split / f"{sample.key}.png", sample.png())
        written(root / "annotations" / sample.split / f"{sample.key}.png", sample.mask_png())
    class_list(root / "classes.txt")
    return SegmentationFolderSettings(kind="segmentation_folder", root=str(root), **options)


def in_listed_folder(root: Path, content: list[Sample], **options) -> DatasetSettings:
    """As CUB-200-2011 is unpacked; its lists are in no order of splits."""
    names = {name: number for number, name in CLASSES.items()}
    by_key = dict(enumerate(content, start=1))
    order = sorted(by_key, key=lambda number: (by_key[number].split != "val", number))
    lists: dict[str, dict] = {
        "images.txt": {number: f"{by_key[number].label}/{by_key[number].key}.png" for number in order},
        "image_class_labels.txt": {number: names[sample.label] for number, sample in by_key.items()},
        "train_test_split.txt": {number: int(sample.split == "train") for number, sample in by_key.items()},
        "classes.txt": CLASSES,
    }
    for number, path in lists["images.txt"].items():
        written(root / "images" / path, by_key[number].png())
    for name, lines in lists.items():
        (root / name).write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
    return ListedFolderSettings(kind="listed_folder", root=str(root), **options)


def class_list(path: Path) -> str:
    path.write_text("".join(f"{number}\t{name}\n" for number, name in CLASSES.items()))
    return str(path)


def table_of(root: Path, content: list[Sample]) -> polars.DataFrame:
    for sample in content:
        written(root / "pictures, all" / f"{sample.key}.png", sample.png())
        written(root / "masks" / f"{sample.key}.png", sample.mask_png())
    return polars.DataFrame(
        {
            "mask": [str(root / "masks" / f"{sample.key}.png") for sample in content],  # absolute
            "path": [f"pictures, all/{sample.key}.png" for sample in content],
            "split": [sample.split for sample in content],
            "label": [sample.label for sample in content],
        }
    )


def in_csv(root: Path, content: list[Sample], **options) -> DatasetSettings:
    table_of(root, content).write_csv(root / "all.csv")
    return TableSettings(kind="table", file=str(root / "all.csv"), classes=class_list(root / "c.txt"), **options)


def in_parquet(root: Path, content: list[Sample], **options) -> DatasetSettings:
    (root / "tables").mkdir(parents=True)
    file = root / "tables" / "all.parquet"
    table_of(root, content).with_columns(polars.col("label").cast(polars.Categorical)).write_parquet(file)
    return TableSettings(kind="table", file=str(file), root=str(root), classes=class_list(root / "c.txt"), **options)


def in_tars(root: Path, content: list[Sample], **options) -> DatasetSettings:
    root.mkdir(parents=True)
    for start in range(0, len(content), 4):
        with tarfile.open(root / f"{content[start].split}-{start:04d}.tar", "w") as tar:
            for sample in content[start : start + 4]:
                add_member(tar, f"./{sample.key}.png", sample.png())
                add_member(tar, f"./{sample.key}.cls", sample.label.encode() + b"\n")
                add_member(tar, f"./{sample.key}.seg.png", sample.mask_png())
    return WebDatasetSettings(
        kind="webdataset",
        root=str(root),
        splits={"train": "train-*.tar", "val": "val-{0008..0008}.tar"},
        classes=class_list(root / "c.txt"),
        **options,
    )


def in_tars_with_json(root: Path, content: list[Sample], **options) -> DatasetSettings:
    """Integer labels with names, and no masks."""
    root.mkdir(parents=True)
    numbers = {name: number for number, name in CLASSES.items()}
    for split in ("train", "val"):
        with tarfile.open(root / f"{split}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for sample in content:
                if sample.split == split:
                    said = {"label": numbers[sample.label], "label_name": sample.label, "other": [1]}
                    add_member(tar, f"{'long/' * 40}{sample.key}.json", json.dumps(said).encode())
                    add_member(tar, f"{'long/' * 40}{sample.key}.png", sample.png())
    splits = {split: f"{split}.tar" for split in ("train", "val")}
    return WebDatasetSettings(kind="webdataset", root=str(root), splits=splits, **options)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def in_shards_of_the_hub(root: Path, content: list[Sample], **options) -> DatasetSettings:
    """As the hub's own library writes them; labels are numbered by their names in the metadata."""
    root.mkdir(parents=True)
    names = sorted(CLASSES.values())
    columns = {"image": datasets.Image(), "annotation": datasets.Image(), "class": datasets.ClassLabel(names=names)}
    for start in range(0, len(content), 4):
        split, of = ("train", 2) if start < 8 else ("validation", 1)
        rows = {
            "image": [{"bytes": s.png(), "path": f"{s.key}.png"} for s in content[start : start + 4]],
            "annotation": [{"bytes": s.mask_png(), "path": None} for s in content[start : start + 4]],
            "class": [s.label for s in content[start : start + 4]],
        }
        shard = datasets.Dataset.from_dict(rows, features=datasets.Features(columns))
        shard.to_parquet(root / "data" / f"{split}-{start // 4 % 2:05d}-of-{of:05d}.parquet")
    return HuggingFaceSettings(
        kind="huggingface",
        root=str(root),
        label="class",
        mask="annotation",
        classes=class_list(root / "c.txt"),
        **options,
    )


def in_shards_with_labels(root: Path, content: list[Sample], **options) -> DatasetSettings:
    """As other programs write them: texts for classes, row groups of one row, pictures as bytes."""
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        rows = [(s.png(), f"train/{s.key}.png", s.label) for s in content if s.split == split]
        pictures = pyarrow.array([{"path": path, "bytes": picture} for picture, path, _ in rows])
        labels = pyarrow.array([label for *_, label in rows]).dictionary_encode()
        table = pyarrow.table({"label": labels, "picture": pictures})
        pyarrow.parquet.write_table(table, root / split / "0000.parquet", row_group_size=1, compression="zstd")
    return HuggingFaceSettings(kind="huggingface", root=str(root), **options)


@dataclass(frozen=True)
class Kind:
    write: Callable[..., DatasetSettings]
    labels: bool
    masks: bool


KINDS = {
    "image_folder": Kind(in_class_folders, labels=True, masks=False),
    "segmentation_folder": Kind(in_segmentation_folder, labels=False, masks=True),
    "listed_folder": Kind(in_listed_folder, labels=True, masks=False),
    "table, CSV": Kind(in_csv, labels=True, masks=True),
    "table, Parquet": Kind(in_parquet, labels=True, masks=True),
    "webdataset": Kind(in_tars, labels=True, masks=True),
    "webdataset, JSON": Kind(in_tars_with_json, labels=True, masks=False),
    "huggingface, masks": Kind(in_shards_of_the_hub, labels=True, masks=True),
    "huggingface, labels": Kind(in_shards_with_labels, labels=True, masks=False),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
every_kind_with_masks = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if kind.masks], ids=[name for name, kind in KINDS.items() if kind.masks]
)


@pytest.fixture
def index_path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "same" / "index.parquet"


def summary(index_path: Path) -> dict:
    return json.loads(index_path.with_name("summary.json").read_text())


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
        monkeypatch.setitem(globals(), "CLASSES", {0: "sky", 3: "tree"} if options else {1: "sky", 4: "tree"})
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
