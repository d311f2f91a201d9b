"""Studies of published SAEs: config/published.yaml trains none, and a small one runs with those of two packages."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from conftest import ROOT, SMALL, Workflow, checkout
from PIL import Image
from safetensors.torch import load_file, save_file

from visae.activations import ActivationStore
from visae.files import read_json
from visae.sae import load_sae

sys.path.insert(0, str(ROOT / "tests/unit"))

from peers_for_tests import run_peer

pytestmark = pytest.mark.slow

# What is described and edited, and a figure of what training leaves behind: other figures do not know where an SAE is
# from.
TARGETS = ("features", "interventions", "results/figures/of-vit/training.png")


def encoded(values: np.ndarray) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": None}


def stub_roots(folder: Path) -> None:
    """A few pictures of each data set, as the hub serves it."""
    draw = np.random.default_rng(0)
    for number in range(14):
        rows = {"image": [encoded(draw.integers(0, 255, (40, 50, 3), np.uint8)) for _ in range(2)], "label": [0, 1]}
        path = folder / f"IMAGENET/data/validation-{number:05d}-of-00014.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(rows), path)
    (folder / "ADE20K/data").mkdir(parents=True)
    for split in ("train", "validation"):
        masks = [encoded(np.tile(np.arange(50, dtype=np.uint8) % 3, (40, 1))) for _ in range(4)]
        rows = {"image": [encoded(draw.integers(0, 255, (40, 50, 3), np.uint8)) for _ in masks], "annotation": masks}
        pyarrow.parquet.write_table(pyarrow.table(rows), folder / f"ADE20K/data/{split}-00000-of-00001.parquet")
    classes = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.1\t5\t2\t1\twall", "2\t0.1\t5\t2\t1\tbuilding, edifice"]
    (folder / "ADE20K/objectInfo150.txt").write_text("\n".join(classes) + "\n")


def test_the_study_of_two_models_trains_no_sae(
    fresh: Workflow, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path_factory.mktemp("data")
    stub_roots(data)
    for root in ("IMAGENET", "ADE20K"):
        monkeypatch.setenv(root, str(data / root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (fresh.folder / "small.yaml").write_text((ROOT / "config/published.yaml").read_text())
    jobs = fresh.jobs("all")
    assert not {"train_sae", "select_sae", "probe"} & jobs.keys()
    both = ("import_sae", "experiment", "segmentation_head", "model", "index", "scores", "faithfulness")
    assert {rule: jobs[rule] for rule in both} == dict.fromkeys(both, 2)
    # Each data set at the last block of each model, in four shards.
    assert (jobs["store"], jobs["extract"], jobs["encode"]) == (4, 16, 4)
    ran = fresh.run("datasets")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counted = {
        path.parent.name: read_json(path)["n_images"]
        for path in (fresh.folder / "results/datasets").glob("*/summary.json")
    }
    assert counted == {"imagenet": {"train": 20, "val": 8}, "ade20k": {"train": 4, "val": 4}}


def study(model: str, layer: int, sae: str, task: str) -> dict[str, Any]:
    return {
        **{"model": model, "layer": layer, "head_layer": layer + 1, "train_on": "scenes", "saes": [sae]},
        **{"describe": ["scenes"], task: "scenes"},
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Two models, each with an SAE that another package has trained on its activations, and saved."""
    workflow = checkout(tmp_path_factory.mktemp("published"))
    sources = {"vit": workflow.folder / "theirs/vit", "small": workflow.folder / "theirs/small"}
    saes = {
        "vit": {
            "kind": "published",
            "source": f"{sources['vit']}/trainer_0",
            "model": "tiny",
            "layer": 10,
            "width": 384,
        },
        "small": {
            **{"kind": "published", "source": str(sources["small"]), "as": "overcomplete", "model": "other"},
            **{"code": "topk", "k": 6},
        },
    }
    models = {
        **SMALL["models"],
        "other": {"architecture": "test_vit", "weights": "random", "image_size": 64, "workers": 0},
    }
    studies = {
        "of-vit": study("tiny", 10, "vit", "segmentation"),
        "of-small": study("other", 4, "small", "classification"),
    }
    interventions = {**SMALL["interventions"], "untrained": 0}
    workflow.configure({**SMALL, "models": models, "saes": saes, "studies": studies, "interventions": interventions})
    ran = workflow.run("activations")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for peer, name, place in (
        ("dictionary_learning", "vit", "tiny/layer10"),
        ("overcomplete", "small", "other/layer4"),
    ):
        sources[name].mkdir(parents=True)
        store = ActivationStore.open(workflow.folder / "results/activations/scenes" / place / "manifest.json")
        rows = store.read(store.splits["train"], "patches").float().flatten(0, 1)
        save_file({"inputs": rows.contiguous()}, sources[name] / "inputs.safetensors")
        run_peer(peer, Path(__file__).with_name("published_for_tests.py"), peer, sources[name])
        (sources[name] / "inputs.safetensors").rename(workflow.folder / f"{name}.safetensors")
    listed = workflow.jobs("all")
    assert "train_sae" not in listed
    assert listed["import_sae"] == 2
    ran = workflow.run(*TARGETS)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return workflow


def imported(done: Workflow, name: str, place: str) -> Path:
    return done.folder / f"results/saes/scenes/{place}/{name}"


def test_they_are_described_and_edited_with(done: Workflow) -> None:
    for name, place, study_name in (("vit", "tiny/layer10", "of-vit"), ("small", "other/layer4", "of-small")):
        folder = imported(done, name, place)
        config, summary = read_json(folder / "config.json"), read_json(folder / "summary.json")
        assert config["imported"]["format"] == {"vit": "dictionary_learning", "small": "overcomplete"}[name]
        assert config["place"]["layer"] == int(place.rpartition("layer")[2])
        assert summary["measured_on"] == "val"
        assert summary["normalized_mse"] < 1
        # Its own k, on the patches that it was trained on.
        sae = load_sae(folder / "config.json")
        codes = sae.encode(load_file(done.folder / f"{name}.safetensors")["inputs"][:500])
        assert float((codes != 0).float().sum(1).mean()) == pytest.approx(6, abs=0.5)
        features = done.folder / "results/features/scenes" / place / name / "scenes"
        assert (pl.read_parquet(features / "stats.parquet")["count"] > 0).any()
        measured = done.folder / "results/interventions" / study_name / name
        task = {"of-vit": "segmentation", "of-small": "classification"}[study_name]
        assert read_json(measured / task / "summary.json")["classes"]
    assert (done.folder / "results/figures/of-vit/training.png").exists()


def test_nothing_is_left_to_do_until_a_file_changes(done: Workflow) -> None:
    assert done.jobs(*TARGETS) == {}
    source = done.folder / "theirs/small/weights.pt"
    content, before = source.read_bytes(), source.stat()
    source.write_bytes(content + b" ")
    try:
        assert done.jobs("saes") == {"import_sae": 1}
    finally:
        source.write_bytes(content)
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("vit", {"sha256": "0" * 64}, "saes: vit: .*trainer_0: sha256: its weights have {sha256}, and 0000"),
        ("small", {"source": "theirs/gone"}, "saes: small: source: theirs/gone: there is no such file or folder"),
    ],
)
def test_what_is_not_what_was_said_is_refused_by_name(done: Workflow, name, changes, said) -> None:
    text = (done.folder / "small.yaml").read_text()
    values = yaml.safe_load(text)
    for key, value in changes.items():
        values["saes"][name][key] = value
    place = {"vit": "tiny/layer10", "small": "other/layer4"}[name]
    target = f"results/saes/scenes/{place}/{name}/config.json"
    before = (done.folder / target).read_bytes()
    sha256 = hashlib.sha256((done.folder / "theirs/vit/trainer_0/ae.pt").read_bytes()).hexdigest()
    done.configure(values)
    try:
        ran = done.run(target)
        found = ran.stdout + ran.stderr
        assert ran.returncode != 0
        assert re.search(said.replace("{sha256}", sha256), found), found
    finally:
        (done.folder / "small.yaml").write_text(text)
        if not (done.folder / target).is_file():
            assert done.run(target).returncode == 0
    assert read_json(done.folder / target)["weights_sha256"] in before.decode()
