"""The same pictures in every kind of data set. A new kind joins the battery by one entry in `KINDS`."""

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
