"""Folders of pictures, and what summary.json says of them."""

import json
import os
from pathlib import Path

import numpy as np
from pictures_for_tests import picture
from PIL import Image

from visae.config.settings import DatasetSettings, ImageFolderSettings, SegmentationFolderSettings
from visae.data.index import build_index

SPLITS = {"train": "train", "val": "val"}


def class_folders(root: Path, train: list[str], val: list[str]) -> Path:
    for split, names in (("train", train), ("val", val)):
        for position, name in enumerate(names):
            for number in range(3):
                picture(root / split / name / f"{number}.png", 100 * position + number + 50 * (split == "val"))
    return root


def image_folder(root: Path, **options) -> ImageFolderSettings:
    return ImageFolderSettings(kind="image_folder", root=str(root), **({"splits": SPLITS} | options))


def with_masks(root: Path, masks: list[np.ndarray | Image.Image], classes: str, **options) -> DatasetSettings:
    """One mask a split."""
    for number, (split, mask) in enumerate(zip(("train", "val"), masks, strict=True)):
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        picture(root / "images" / split / "a.jpg", number, image.size)
        (root / "annotations" / split).mkdir(parents=True, exist_ok=True)
        image.save(root / "annotations" / split / "a.png")
    (root / "classes.txt").write_text(classes)
    return SegmentationFolderSettings(kind="segmentation_folder", root=str(root), **options)


def read(settings: DatasetSettings, tmp_path: Path) -> dict:
    build_index(settings, tmp_path / "out" / "index.parquet")
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def said(record: dict, level: str) -> str:
    return "\n".join(notice["text"] for notice in record["notices"] if notice["level"] == level)


def left_out(record: dict) -> dict[str, int]:
    return {entry["what"]: entry["n_files"] for entry in record["left_out"]}


def ids(*rows: int) -> np.ndarray:
    return np.repeat(np.array(rows, dtype=np.uint8)[:, None], 4, axis=1)


def linked(root: Path, how: str) -> None:
    """Let val share pictures with train."""
    (root / "val").mkdir(exist_ok=True)
    if how == "whole split":
        (root / "val").rmdir()
        (root / "val").symlink_to(root / "train")
    for name in ("ant", "bee"):
        if how == "folder":
            (root / "val" / name).symlink_to(root / "train" / name)
        for number in range(3):
            source, target = root / "train" / name / f"{number}.png", root / "val" / name / f"other{number}.png"
            if how in ("symbolic", "hard", "saved anew"):
                target.parent.mkdir(exist_ok=True)
            if how == "symbolic":
                target.symlink_to(source)
            if how == "hard":
                os.link(source, target)
            if how == "saved anew":
                Image.open(source).save(target, compress_level=0)
