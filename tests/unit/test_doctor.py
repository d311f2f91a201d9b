"""The doctor: each look with a study that is as it should be and one that is not; and that it changes nothing."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from visae.activations.given import write_store
from visae.doctor.disk import Quota, of_quota, quotas_of
from visae.doctor.examine import examined
from visae.doctor.report import Finding, Section, is_wrong, lines_of
from visae.doctor.slurm import gpus_of
from visae.errors import DataError

ROOT = Path(__file__).parents[2]

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


def masked_folders(root: Path, top: int = 1) -> dict[str, Any]:
    """Pictures with masks of two classes."""
    for split in ("train", "val"):
        for number in range(12):
            picture(1000 * (split == "val") + number, root / "images" / split / f"{number}.png")
            mask = np.full((48, 64), top, np.uint8)
            mask[24:] = 2
            folder = root / "annotations" / split
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / f"{number}.png")
    (root / "classes.txt").write_text("1\tsky\n2\troad\n")
    return {"kind": "segmentation_folder", "root": str(root)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the study runs."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


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


def test_a_study_as_it_should_be_is_fine_but_for_its_random_weights(folder: Path) -> None:
    found = look(class_folders(folder / "data"))
    assert list(found) == ["configuration: study.yaml", "data set: d", "model: tiny", "disk", "this machine"]
    assert said(found, "wrong") == ""
    assert said(found, "odd").splitlines() == ["weights: random: an untrained network, for tests and baselines -> "]
    assert "train 12 pictures (12 labelled, 0 with masks), val 12" in said(found, "fine")
    assert "24 pictures looked at: all 64 x 48 pixels" in said(found, "fine")
    assert "12 blocks, 192 dimensions, 1 tokens before 4 x 4 patches" in said(found, "fine")
    assert "are needed" in said(found, "fine")


# --- configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slurm": {"minutes": 86400}}, "86400 are 60 days -> if seconds were meant: minutes: 1440"),
        ({"slurm": {"memory_gb": 64000}}, "64000 GB is more than nodes have -> if megabytes were meant: memory_gb: 64"),
        ({"slurm": {"memory_gb": 0.064}}, "memory_gb: 0.064 GB"),
        ({"slurm": {"minutes": 10, "notice": 400}}, "notice: 400 s is more than half of the time limit (600 s)"),
        ({"slurm": {"check_every": 0.1}}, "more than once a second"),
        ({"slurm": {"gather": 3600}}, "gather: 3600 s: every training waits so long"),
        ({"slurm": {"patience": 2000}}, "patience: 2000 minutes are 1.4 days"),
        ({"datasets__d__max_unreadable": 1}, "if per cent were meant: max_unreadable: 0.01"),
        ({"saes__topk__learning_rate": 3.0}, "learning_rate: 3 is far above"),
        ({"saes__other": {"variant": "relu"}}, "saes: other: no study uses it"),
        ({"models__other": {"architecture": "vit_tiny_patch16_224"}}, "models: other: no study uses it"),
    ],
)
def test_units_mixed_up_and_parts_without_use_are_odd(changes: dict[str, Any], message: str, folder: Path) -> None:
    found = look(class_folders(folder / "data"), **changes)
    assert message in said(found, "odd")
    assert said(found, "wrong") == ""


def test_sources_of_published_saes_are_looked_at(folder: Path) -> None:
    dataset = class_folders(folder / "data")
    (folder / "theirs.pt").write_bytes(b"")
    for source, more, level, message in (
        ("theirs.pt", {}, "fine", "saes: theirs: theirs.pt is there (1 file)"),
        ("gone.pt", {}, "wrong", "saes: theirs: source: gone.pt: there is no such file or folder"),
        ("hub:a/b", {}, "odd", "hub:a/b is fetched as it is on the day that its job runs"),
        ("hub:a/b", {"sha256": "0" * 64}, "fine", "read strictly"),
    ):
        theirs = {"kind": "published", "source": source, **more}
        found = look(dataset, saes={**STUDY["saes"], "theirs": theirs}, studies__s__saes=["topk", "theirs"])
        assert message in said(found, level)
        assert ("saes: theirs" in said(found, "odd")) == (level == "odd")


def test_a_mistake_in_the_configuration_ends_the_look(folder: Path) -> None:
    found = look(class_folders(folder / "data"), slurm={"minutes": "12:00"})
    assert len(found) == 1
    assert "slurm: minutes: '12:00' is 12 minutes" in said(found, "wrong")


def test_a_variable_that_is_not_set_is_named(folder: Path) -> None:
    found = look({"kind": "image_folder", "root": "${NOT_SET_ANYWHERE}/x"}, results="${NOT_SET_EITHER}/results")
    assert "root: ${NOT_SET_ANYWHERE}/x: the environment variable in it (NOT_SET_ANYWHERE) is not set" in said(
        found, "wrong"
    )
    assert "results: ${NOT_SET_EITHER}/results" in said(found, "wrong")
    assert "what is needed is not known: the pictures of 'd' are not counted" in said(found, "odd")


# --- data sets ---------------------------------------------------------------------------------------


def no_root(root: Path) -> None:
    subprocess.run(["rm", "-r", str(root)], check=True)


def no_val_class(root: Path) -> None:
    (root / "val/cat").rename(root / "val/bird")
    (root / "val/dog").rename(root / "val/cow")


def one_val_class(root: Path) -> None:
    (root / "val/cat").rename(root / "val/bird")


def one_class(root: Path) -> None:
    for split in ("train", "val"):
        for path in (root / split / "dog").iterdir():
            path.rename(root / split / "cat" / path.name)
        (root / split / "dog").rmdir()


def val_is_train(root: Path) -> None:
    subprocess.run(["rm", "-r", str(root / "val")], check=True)
    (root / "val").symlink_to("train")


def val_links_to_pictures(root: Path) -> None:
    for path in (root / "val/cat").iterdir():
        path.unlink()
        path.symlink_to(next((root / "train/cat").iterdir()))


def damaged(root: Path) -> None:
    path = next((root / "train/cat").iterdir())
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("harm", "level", "message"),
    [
        (no_root, "wrong", "there is no such folder; set root to where the pictures are"),
        (no_val_class, "wrong", "bird"),
        (one_val_class, "wrong", "bird"),
        (one_class, "wrong", "all pictures are of one class"),
        (val_is_train, "wrong", "12 files are in train and in val, links followed"),
        (val_links_to_pictures, "wrong", "files are in train and in val, links followed"),
        (damaged, "wrong", "1 of 24 pictures looked at are unreadable, such as "),
    ],
)
def test_class_folders_are_looked_at(harm: Callable[[Path], None], level: str, message: str, folder: Path) -> None:
    dataset = class_folders(folder / "data")
    harm(folder / "data")
    assert message in said(look(dataset), level)


def test_few_unreadable_pictures_are_odd_where_the_configuration_allows_them(folder: Path) -> None:
    dataset = class_folders(folder / "data")
    damaged(folder / "data")
    found = look(dataset | {"max_unreadable": 0.1})
    assert said(found, "wrong") == ""
    assert "they will be skipped" in said(found, "odd")


def test_a_task_needs_val_and_labels(folder: Path) -> None:
    dataset = class_folders(folder / "data")
    found = look(dataset | {"splits": {"train": "train"}})
    assert "no picture is in the split val, on which classification is measured" in said(found, "wrong")
    rows = "".join(f"{path},{path.parts[-3]}\n" for path in sorted((folder / "data").rglob("*.png")))
    (folder / "table.csv").write_text(f"path,split\n{rows}")
    found = look({"kind": "table", "file": str(folder / "table.csv")})
    assert "studies: s: classification: no picture of train has labels" in said(found, "wrong")


@pytest.mark.parametrize(
    ("labels", "level", "message"),
    [
        ({"train": ["cat", "dog"], "val": ["cat", "dog"]}, "odd", ""),
        ({"train": ["cat"], "val": ["cat"]}, "wrong", "of one class"),
        ({"train": ["cat", "dog"], "val": ["bird", "cow"]}, "wrong", "bird"),
        ({"train": ["cat", "dog"], "val": ["cat", "bird"]}, "wrong", "bird"),
        ({"train": ["cat", "dog"], "val": ["cat"]}, "odd", "1 classes of train are not in val: dog"),
    ],
)
def test_labels_are_compared_between_splits(
    labels: dict[str, list[str]], level: str, message: str, folder: Path
) -> None:
    rows = ["path,split,label"]
    for split, names in labels.items():
        for number in range(10):
            path = picture(100 * (split == "val") + number, folder / "data" / f"{split}-{number}.png")
            rows.append(f"{path},{split},{names[number % len(names)]}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    found = look({"kind": "table", "file": str(folder / "table.csv")})
    assert message in said(found, level)
    assert bool(said(found, "wrong")) == (level == "wrong")


def test_splits_that_are_drawn_may_leave_a_class_to_val_alone(folder: Path) -> None:
    for number in range(40):
        picture(number, folder / "data" / f"class-{number}" / "only.png")
    found = look({"kind": "image_folder", "root": str(folder / "data"), "val_share": 0.4, "test_share": 0})
    assert "classes of val are not in train: class-" in said(found, "wrong")


def test_a_data_set_that_no_study_uses_is_looked_at_and_stops_nothing(folder: Path) -> None:
    other = {"kind": "image_folder", "root": str(folder / "gone")}
    found = look(class_folders(folder / "data"), datasets__other=other)
    assert said(found, "wrong") == ""
    assert "gone: there is no such folder" in said({"": found["data set: other"]}, "odd")


def test_pictures_that_one_data_set_measures_on_and_another_trains_on_are_odd(folder: Path) -> None:
    class_folders(folder / "data")
    (folder / "again").symlink_to(folder / "data")
    whole = {"kind": "image_folder", "root": str(folder / "again"), "labels": "none", "val_share": 0, "test_share": 0}
    other = class_folders(folder / "other")
    for union, expected in (
        (
            ["whole", "other"],
            "studies: s: 12 pictures of val of d are in train of whole, on which its SAEs are trained",
        ),
        (["other"], ""),
    ):
        found = look(
            class_folders(folder / "data"),
            datasets__whole=whole,
            datasets__other=other,
            datasets__all={"kind": "union", "members": union},
            studies__s__train_on="all",
        )
        assert [finding.text.partition(": what")[0] for finding in found["data sets together"]] == (
            [expected] if expected else []
        )


def test_a_sample_shows_the_first_and_full_finds_copies_of_bytes(folder: Path) -> None:
    dataset = class_folders(folder / "data", 30)
    copied = sorted((folder / "data/train/cat").iterdir())[0]
    (folder / "data/val/dog/copy.png").write_bytes(copied.read_bytes())
    found = look(dataset, sample=12)
    assert "12 pictures looked at" in said(found, "fine")
    assert said(found, "wrong") == ""
    found = look(dataset, sample=None)
    assert "61 pictures looked at" in said(found, "fine")
    assert f"2 of 61 pictures looked at are in more than one split, such as {copied}" in said(found, "wrong")


@pytest.mark.parametrize(("top", "message"), [(1, ""), (7, "24 of 24 masks looked at are wrong")])
def test_masks_are_looked_at(top: int, message: str, folder: Path) -> None:
    study = copy.deepcopy(STUDY["studies"]["s"]) | {"classification": None, "segmentation": "d"}
    found = look(masked_folders(folder / "data", top), studies={"s": study})
    assert message in said(found, "wrong")
    assert bool(said(found, "wrong")) == bool(message)
    assert "val 12 pictures (0 labelled, 12 with masks); 2 classes" in said(found, "fine")


def in_shards(root: Path) -> dict[str, Any]:
    """The pictures of `class_folders` in Parquet files as the hub serves them."""
    class_folders(root / "files")
    (root / "hub").mkdir()
    for split, name in (("train", "train"), ("val", "validation")):
        files = sorted((root / "files" / split).glob("*/*.png"))
        pictures = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        table = pyarrow.table({"image": pictures, "label": [file.parent.name for file in files]})
        pyarrow.parquet.write_table(table, root / "hub" / f"{name}-00000-of-00001.parquet")
    return {"kind": "huggingface", "root": str(root / "hub")}


def test_parquet_files_are_looked_at(folder: Path) -> None:
    dataset = in_shards(folder / "data")
    found = look(dataset)
    assert said(found, "wrong") == ""
    assert "huggingface: train 12 pictures (12 labelled, 0 with masks), val 12 pictures" in said(found, "fine")
    assert "24 pictures looked at: all 64 x 48 pixels" in said(found, "fine")
    other = folder / "data/hub/validation-00000-of-00001.parquet"
    other.unlink()
    other.symlink_to("train-00000-of-00001.parquet")
    assert "12 files are in train and in val" in said(look(dataset), "wrong")
    other.unlink()
    assert "no picture is in the split val" in said(look(dataset), "wrong")
    other.write_bytes(b"PAR1 and not to the end")
    assert "validation-00000-of-00001.parquet: it is cut off" in said(look(dataset), "wrong")


def test_notices_of_an_earlier_index_are_said_again(folder: Path) -> None:
    dataset = class_folders(folder / "data")
    (folder / "results/datasets/d").mkdir(parents=True)
    notices = [
        {"level": "warning", "text": "3 masks are upside down"},
        {"level": "note", "text": "all pictures are red"},
    ]
    (folder / "results/datasets/d/summary.json").write_text(
        json.dumps({"notices": notices, "n_shared_between_splits": 2, "n_images": {"train": 12, "val": 12}})
    )
    found = look(dataset)
    assert "3 masks are upside down" in said(found, "odd")
    assert "2 pictures are in more than one split" in said(found, "odd")
    assert "all pictures are red" in said(found, "fine")


def test_given_activations_are_looked_at(folder: Path) -> None:
    values = np.random.default_rng(0).standard_normal((20, 5, 16)).astype(np.float32)
    write_store(folder / "store", values, [-1, *range(4)], {"train": 15, "val": 5})
    study = {"layer": 0, "train_on": "d", "saes": ["topk"], "describe": ["d"]}
    given = {"studies": {"s": study}, "models": {}}
    found = look({"kind": "activations", "root": str(folder / "store")}, **given)
    assert "a store of 20 pictures" in said(found, "fine")
    (folder / "store/manifest.json").unlink()
    found = look({"kind": "activations", "root": str(folder / "store")}, **given)
    assert "no column 'image_id'" not in said(found, "wrong")
    found = look({"kind": "activations", "root": str(folder / "nothing")}, **given)
    assert "no Parquet files and no manifest.json" in said(found, "wrong")


# --- models ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models__tiny__architecture": "vit_tiny_patch16_22"},
            "architecture: vit_tiny_patch16_22 at 64 x 64 px: Unknown",
        ),
        ({"models__tiny__weights": "/nowhere/weights.safetensors"}, "not an existing .safetensors"),
        ({"models__tiny__weights": "hub"}, "name the weights by their tag; timm"),
        (
            {"models__tiny__weights": "hub", "models__tiny__architecture": "vit_tiny_patch16_224.nobody"},
            "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        ),
        ({"models__tiny__weights": "hub", "models__tiny__architecture": "vit_teeny.x"}, "has none of that name"),
        (
            {"studies__s__layer": 11, "studies__s__head_layer": 12},
            "head_layer: 12: heads read the last layer of vit_tiny_patch16_224 -> head_layer: 11",
        ),
        ({"studies__s__layer": 12, "studies__s__head_layer": 12}, "has 12 blocks, so layers go from 0 to 11"),
    ],
)
def test_models_that_cannot_serve_are_wrong(changes: dict[str, Any], message: str, folder: Path) -> None:
    found = look(class_folders(folder / "data"), **changes)
    assert message in said(found, "wrong")


@pytest.mark.parametrize(
    ("architecture", "level", "message"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", "fine", "tag augreg_in21k: 12 blocks, 192 dimensions"),
        ("vit_base_patch16_clip_224.openai", "odd", "take architecture: vit_base_patch16_clip_quickgelu_224.openai"),
    ],
)
def test_what_is_noted_of_weights_is_said_before_they_are_downloaded(
    architecture: str, level: str, message: str, folder: Path
) -> None:
    found = look(class_folders(folder / "data"), models__tiny__architecture=architecture, models__tiny__weights="hub")
    assert message in said(found, level)


def test_a_layer_that_cannot_be_edited_is_wrong(folder: Path) -> None:
    # Its class token joins at block 10.
    changed = {"models__tiny__architecture": "convit_tiny", "models__tiny__image_size": 224, "studies__s__layer": 8}
    found = look(class_folders(folder / "data"), **changed)
    assert "studies: layer: 8: convit_tiny cannot be" in said(found, "wrong")


def test_a_file_of_weights_that_do_not_fit_is_wrong(folder: Path) -> None:
    save_file({"blocks.0.norm1.weight": torch.zeros(3)}, folder / "weights.safetensors")
    found = look(class_folders(folder / "data"), models__tiny__weights=str(folder / "weights.safetensors"))
    assert "do not fit vit_tiny_patch16_224" in said(found, "wrong")


def test_weights_that_are_nowhere_yet_are_odd_offline_and_fine_where_they_were_taken(folder: Path) -> None:
    hub = {"models__tiny__weights": "hub", "models__tiny__architecture": "vit_tiny_patch16_224.augreg_in21k"}
    dataset = class_folders(folder / "data")
    found = look(dataset, **hub)
    assert "not in this machine's cache, and the hub was not asked" in said(found, "odd")
    (folder / "results/models/tiny").mkdir(parents=True)
    (folder / "results/models/tiny/weights.safetensors").touch()
    found = look(dataset, **hub)
    assert "taken already" in said(found, "fine")


# --- disk, device ------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small disk."""
    place, mounted = tmp_path / "disk", []
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]

    def mount(options: str) -> Path:
        place.mkdir()
        command = [*as_root, "mount", "-t", "tmpfs", "-o", f"{options},mode=1777", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no small disk can be mounted here, which takes root")
        mounted.append(place)
        return place

    yield mount
    for each in mounted:
        subprocess.run([*as_root, "umount", "--lazy", str(each)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=1m", "1.05 MB are free -> results: a larger disk"),
        (
            "size=1g,nr_inodes=100",
            "more files (inodes) can be made; a study makes some 5,004 -> delete many small files",
        ),
    ],
)
def test_a_disk_that_is_too_small_is_wrong(
    options: str, message: str, disk: Callable[[str], Path], folder: Path
) -> None:
    found = look(class_folders(folder / "data"), results=str(disk(options) / "results"))
    assert message in said(found, "wrong")


def test_what_is_made_already_needs_no_room(disk: Callable[[str], Path], folder: Path) -> None:
    place = disk("size=4m")
    dataset = class_folders(folder / "data")
    assert "are needed" in said(look(dataset, results=str(place)), "wrong")
    (place / "activations").mkdir()
    with (place / "activations/shard-0.parquet").open("wb") as file:
        file.truncate(1 << 40)
    assert "are needed" in said(look(dataset, results=str(place)), "fine")


def test_results_that_cannot_be_written_are_wrong(folder: Path) -> None:
    (folder / "file").touch()
    found = look(class_folders(folder / "data"), results=str(folder / "file" / "results"))
    assert f"{folder / 'file'} is a file" in said(found, "wrong")


def test_scratch_is_looked_at(folder: Path, disk: Callable[[str], Path]) -> None:
    dataset = class_folders(folder / "data")
    assert "there is no such folder here" in said(look(dataset, scratch="$NOT_SET_ANYWHERE"), "odd")
    assert f"scratch: {folder}" in said(look(dataset, scratch=str(folder)), "fine")
    assert "not copied" in said(look(dataset, scratch=str(disk("size=16k"))), "odd")


QUOTA = """Disk quotas for user ann (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1  900000* 800000 1000000  6days    9990   10000   10000   none
"""
LUSTRE = "/scratch     52*     50  100000       -  100000*      0  100000 6d23h\n"


def test_quotas_are_read_as_their_commands_print_them() -> None:
    assert list(quotas_of(QUOTA)) == [Quota("/dev/sda1", 900000, 1000000, 9990, 10000)]
    assert list(quotas_of(LUSTRE)) == [Quota("/scratch", 52, 100000, 100000, 100000)]


@pytest.mark.parametrize(
    ("quota", "level", "message"),
    [
        (Quota("/home", 10, 0, 10, 0), None, ""),
        (Quota("/home", 10, 10**9, 10, 10**6), None, ""),
        (Quota("/home", 10**6, 10**6, 10, 0), "wrong", "its bytes are used up"),
        (Quota("/home", 10, 1000, 10, 0), "odd", "less than may be needed"),
        (Quota("/home", 10, 0, 1000, 1000), "wrong", "its files (inodes) are used up"),
        (Quota("/home", 10, 0, 10, 1000), "odd", "990 more files"),
    ],
)
def test_a_quota_without_room_is_said(quota: Quota, level: str | None, message: str) -> None:
    section = Section("disk")
    of_quota(section, quota, 5000)
    assert [each.level for each in section.findings] == ([level] if level else [])
    assert message in "".join(each.text for each in section.findings)


def test_cuda_is_wrong_where_there_is_none(folder: Path) -> None:
    found = look(class_folders(folder / "data"), device="cuda")
    assert ("sees no GPU here" in said(found, "wrong")) == (not torch.cuda.is_available())


def test_more_threads_than_cores_are_odd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert "threads wait for one another" in said(look(class_folders(folder / "data")), "odd")


@pytest.mark.parametrize(
    ("gres", "number"),
    [
        ("gpu:2", 2),
        ("gpu:a100:4(S:0-1),nvme:1", 4),
        ("gpu:a100:4(S:0),gpu:v100:2(S:1)", 6),
        ("(null)", 0),
        ("mps:100", 0),
    ],
)
def test_gpus_of_a_node(gres: str, number: int) -> None:
    assert gpus_of(gres) == number


# --- the command -------------------------------------------------------------------------------------


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    line = [sys.executable, "-m", "visae", "doctor", "--offline", *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=everything)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Paths, with sizes and times of files; of folders not, as Python tries TMPDIR with a file that it deletes."""
    stats = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path): (0, 0) if path.is_dir() else (s.st_size, s.st_mtime_ns) for path, s in stats.items()}


@pytest.mark.slow
def test_it_changes_nothing_and_exits_with_1_where_something_is_wrong(folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    kept = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "TMPDIR")}
    hub = {"models__tiny__weights": "hub", "models__tiny__architecture": "vit_tiny_patch16_224.augreg_in21k"}
    look(class_folders(folder / "data"), **hub)
    before = tree(folder)
    done = command("--configfile", "study.yaml", **kept)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("0 wrong")
    assert tree(folder) == before
    no_root(folder / "data")
    before = tree(folder)
    done = command("--configfile", "study.yaml", **kept)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].endswith("1 wrong"), done.stdout
    assert tree(folder) == before


def test_each_line_that_is_not_fine_can_have_the_line_that_mends_it() -> None:
    section = Section("disk")
    section.wrong("it is full\nreally", "make room")
    with section.looking("quota"):
        raise ValueError("strange")
    with section.looking("data"):
        raise DataError("root: gone")
    assert list(lines_of([section])) == [
        "disk",
        *["  wrong  it is full", "         really", "         -> make room"],
        "  odd    quota could not be looked at: ValueError: strange",
        *["  wrong  root: gone", "", "1 odd, 2 wrong"],
    ]
    assert is_wrong([section])
