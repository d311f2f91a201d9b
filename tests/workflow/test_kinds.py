"""One run over what the other workflow does not have: given vectors, a table, tars, other hooks, other networks."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import SMALL, Workflow, checkout
from PIL import Image

from visae.activations import ActivationStore
from visae.files import read_json

pytestmark = pytest.mark.slow

TOPK = {**SMALL["saes"]["topk"], "steps": 10}
STRIPED, PLAIN = "striped", "plain"


def picture(number: int) -> Image.Image:
    """A picture with or without stripes."""
    values = np.random.default_rng(number).integers(0, 255, (72, 80, 3), dtype=np.uint8)
    if number % 2:
        values[::6] = 255
    return Image.fromarray(values)


def write_table(folder: Path) -> Path:
    rows = []
    for number in range(24):
        picture(number).save(folder / f"{number}.png")
        split = "train" if number < 16 else "val"
        rows.append({"path": f"{number}.png", "split": split, "label": STRIPED if number % 2 else PLAIN})
    pl.DataFrame(rows).write_csv(folder / "pictures.csv")
    return folder / "pictures.csv"


def write_tar(folder: Path) -> None:
    with tarfile.open(folder / "train-000.tar", "w") as tar:
        for number in range(30):
            buffer = io.BytesIO()
            picture(number).save(buffer, "PNG")
            member = tarfile.TarInfo(f"{number:04d}.png")
            member.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(member, buffer)


def write_words(folder: Path) -> None:
    """Vectors of anything: sequences of three, made of twelve directions."""
    generator = np.random.default_rng(0)
    atoms = generator.normal(size=(12, 10))
    for split, count in (("train", 400), ("val", 50)):
        codes = generator.random((count * 3, 12)) * (generator.random((count * 3, 12)) < 0.15)
        columns = {"image_id": np.repeat(np.arange(count), 3), "token": [0, 1, 2] * count}
        (folder / split).mkdir()
        values = pl.Series((codes @ atoms).astype(np.float32), dtype=pl.Array(pl.Float32, 10))
        pl.DataFrame(columns | {"activation": values}).write_parquet(folder / split / "a.parquet")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = checkout(tmp_path_factory.mktemp("kinds"))
    data = {name: workflow.folder / "data" / name for name in ("table", "tars", "words")}
    for folder in data.values():
        folder.mkdir(parents=True)
    table = write_table(data["table"])
    write_tar(data["tars"])
    write_words(data["words"])
    studies: dict[str, Any] = {
        "words": {"layer": 0, "train_on": "words", "describe": ["words"]},
        "convolutional": {
            "model": "resnet",
            "layer": 3,
            "head_layer": 4,
            "train_on": "table",
            "describe": ["table"],
        },
        "attention": {"model": "tiny", "layer": 5, "hook": "attention", "train_on": "tars", "describe": ["table"]},
        "last": {
            "model": "tall",
            "layer": 10,
            "head_layer": 11,
            "train_on": "table",
            "describe": ["table"],
            "classification": "table",
        },
    }
    workflow.configure(
        {
            **SMALL,
            "datasets": {
                "words": {"kind": "activations", "root": str(data["words"])},
                "table": {"kind": "table", "file": str(table)},
                "tars": {
                    "kind": "webdataset",
                    "root": str(data["tars"]),
                    "splits": {"train": "train-*.tar"},
                    "tokens_per_image": 3,
                },
            },
            "models": {
                "tiny": {**SMALL["models"]["tiny"], "dtype": "bfloat16"},
                "tall": {**SMALL["models"]["tiny"], "image_size": [64, 48], "fit": "squash"},
                "resnet": {"architecture": "test_resnet", "weights": "random", "image_size": 64, "workers": 0},
            },
            "saes": {"topk": TOPK},
            "studies": {name: {**study, "saes": ["topk"]} for name, study in studies.items()},
        }
    )
    ran = workflow.run("all")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return workflow


def opened(done: Workflow, path: str) -> ActivationStore:
    return ActivationStore.open(done.folder / "results/activations" / path / "manifest.json")


def test_given_vectors_go_through_to_features(done: Workflow) -> None:
    store = opened(done, "words/given/layer0")
    assert (store.d_model, store.splits) == (10, {"train": range(400), "val": range(400, 450)})
    summary = read_json(done.folder / "results/saes/words/given/layer0/topk/summary.json")
    assert (summary["d_model"], summary["measured_on"]) == (10, "val")
    features = done.folder / "results/features/words/given/layer0/topk/words"
    exemplars = pl.read_parquet(features / "exemplars.parquet")
    index = pl.read_parquet(done.folder / "results/datasets/words/index.parquet")
    assert set(exemplars["image_id"]) <= set(index["image_id"])
    assert (pl.read_parquet(features / "stats.parquet")["count"] > 0).any()
    assert not (done.folder / "results/figures/words/topk/words/exemplars.png").exists()
    assert (done.folder / "results/figures/words/topk/words/feature_map.png").exists()


def test_a_convolutional_networks_features_are_drawn(done: Workflow) -> None:
    store = opened(done, "table/resnet/layer3")
    assert store.grid == (4, 4)
    assert list(store.choice.tokens) == list(range(16))
    assert (done.folder / "results/figures/convolutional/topk/table/exemplars.png").exists()


def test_another_hook_is_stored_under_its_name(done: Workflow) -> None:
    store = opened(done, "tars/tiny/layer5-attention")
    assert (store.manifest["layer"], store.manifest["hook"], store.dtype) == (5, "attention", "bfloat16")
    assert store.n_tokens("patches") == 3
    assert opened(done, "table/tiny/layer5-attention").n_tokens("patches") == 16
    assert (done.folder / "results/figures/attention/topk/table/exemplars.png").exists()


def test_edits_work_on_pictures_that_are_not_square(done: Workflow) -> None:
    summary = read_json(done.folder / "results/interventions/last/topk/classification/summary.json")
    assert {row["name"] for row in summary["classes"]} == {STRIPED, PLAIN}


def test_nothing_is_left_to_do(done: Workflow) -> None:
    assert done.jobs("all") == {}


def test_edits_across_grids_are_refused(done: Workflow) -> None:
    text = (done.folder / "small.yaml").read_text()
    try:
        (done.folder / "small.yaml").write_text(
            text.replace("    head_layer: 4\n", "    head_layer: 4\n    classification: table\n")
        )
        ran = done.run("interventions")
        assert ran.returncode != 0
        # Before anything is extracted or trained for it.
        assert "has 4 x 4 patches there and 2 x 2 in its last layer" in ran.stdout + ran.stderr
    finally:
        (done.folder / "small.yaml").write_text(text)
