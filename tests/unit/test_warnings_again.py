"""What is wrong with data is said again: by jobs that read them, and by the headline."""

import json
import logging
from types import SimpleNamespace

from what_was_read_for_tests import SPLITS, class_folders, image_folder, linked, read

from visae.config.parse import load_config
from visae.data.index import build_index
from visae.headline import study_headline
from visae.notices import repeat_warnings
from visae.running import running_job


def test_jobs_that_read_activations_repeat_what_is_wrong_with_their_data(tmp_path, caplog):
    root = class_folders(tmp_path / "set", ["ant", "bee"], [])
    linked(root, "whole split")
    build_index(image_folder(root), tmp_path / "results" / "datasets" / "birds" / "index.parquet")
    caplog.clear()
    manifest = tmp_path / "results" / "activations" / "birds" / "vit" / "layer10" / "manifest.json"
    with caplog.at_level(logging.WARNING):
        repeat_warnings([manifest, tmp_path / "results" / "datasets" / "birds" / "index.parquet"])
    assert caplog.text.count("birds: warning: 12 pictures are in more than one split") == 1


def test_the_headline_begins_with_what_is_wrong(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], [])
    linked(root, "whole split")
    settings = {
        "results": str(tmp_path / "results"),
        "datasets": {
            "birds": {"kind": "image_folder", "root": str(root), "splits": SPLITS},
            "all": {"kind": "union", "members": ["birds"]},
        },
        "models": {"tiny": {"architecture": "vit_tiny_patch16_224", "weights": "random"}},
        "saes": {"topk": {"variant": "topk"}},
        "studies": {"one": {"model": "tiny", "layer": 10, "train_on": "all", "saes": ["topk"], "describe": ["birds"]}},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(settings))
    loaded = load_config(tmp_path / "study.yaml")
    build_index(loaded.datasets["birds"], tmp_path / "results" / "datasets" / "birds" / "index.parquet")
    lines = study_headline(loaded, "one", loaded.studies["one"])
    assert [line for line in lines if "12 pictures are in more than one split" in line] == [lines[3]]
    assert lines[3].startswith("  Warning, birds: ")


def test_a_job_logs_what_is_wrong_with_its_data(tmp_path):
    root = class_folders(tmp_path / "set", ["ant", "bee"], [])
    linked(root, "folder")
    read(image_folder(root), tmp_path)
    params = SimpleNamespace(spec="{}")
    job = SimpleNamespace(
        input=[str(tmp_path / "out" / "index.parquet")],
        output=[],
        wildcards={},
        resources={},
        params=params,
        log=[str(tmp_path / "logs" / "job.log")],
    )
    with running_job({"snakemake": job, "__doc__": ""}):
        pass
    assert "WARNING out: warning: 12 pictures are in more than one split" in (tmp_path / "logs" / "job.log").read_text()
