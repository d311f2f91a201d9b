"""A study that is as it should be, and what the doctor finds in it."""

from __future__ import annotations

import copy
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from visae.doctor.examine import examined
from visae.doctor.report import Finding

STUDY: dict[str, Any] = {
    "device": "cpu",
    "cluster": "local",
    "models": {"tiny": {"architecture": "vit_tiny_patch16_224", "weights": "random", "image_size": 64, "workers": 0}},
    "saes": {"topk": {"variant": "topk", "k": 4, "auxk": 4, "expansion": 2, "steps": 10, "batch_size": 64}},
    "studies": {
        "s": {
            **{"model": "tiny", "layer": 10, "head_layer": 11, "train_on": "d", "saes": ["topk"], "describe": ["d"]},
            "classification": "d",
        }
    },
}


def picture(seed: int, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def class_folders(root: Path, n: int = 12) -> dict[str, Any]:
    """Pictures of two classes in train and val."""
    for split in ("train", "val"):
        for number in range(n):
            seed = 1000 * (split == "val") + number
            picture(seed, root / split / ("cat", "dog")[number % 2] / f"{split}-{number}.png")
    return {"kind": "image_folder", "root": str(root), "splits": {"train": "train", "val": "val"}}


def look(dataset: dict[str, Any], sample: int | None = 200, **changes: Any) -> dict[str, list[Finding]]:
    """Findings by title of a study on one data set; changes are sections, or keys of one by `section__key`."""
    study = copy.deepcopy(STUDY) | {"datasets": {"d": dataset}}
    for key, value in changes.items():
        *path, last = key.split("__")
        section = study
        for name in path:
            section = section.setdefault(name, {})
        section[last] = value
    Path("study.yaml").write_text(yaml.safe_dump(study))
    return {section.title: section.findings for section in examined(Path("study.yaml"), sample, offline=True)}


def said(found: dict[str, list[Finding]], level: str) -> str:
    return "\n".join(f"{each.text} -> {each.mend}" for part in found.values() for each in part if each.level == level)


def no_root(root: Path) -> None:
    subprocess.run(["rm", "-r", str(root)], check=True)
