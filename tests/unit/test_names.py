"""Names of latents: read, checked, proposed."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from tree_for_tests import make_tree

from visae.cli import main
from visae.errors import DataError
from visae.features.names import best_classes, read_names, write_names
from visae.files import write_json

SCORES = pl.DataFrame(
    {
        "class_id": [1, 1, 2, 2, 3],
        "class_name": ["sky", "sky", "road", "road", "pole"],
        "rank": [0, 1, 0, 1, 0],
        "latent": [4, 5, 4, 6, None],
        "f1": [0.5, 0.3, 0.8, 0.2, None],
        "f1_low": [0.4, 0.05, 0.7, 0.1, None],
        "f1_high": [0.6, 0.5, 0.9, 0.3, None],
        "f1_random": [0.1, 0.1, 0.1, 0.05, None],
    }
)

# Crops are told by their mean brightness: a stand-in for a captioning model that runs anywhere.
NAMER = """
def name_crops(crops):
    brightness = sum(float(crop.mean()) for crop in crops) / len(crops)
    return [("bright" if brightness > 128 else "dark", brightness), (f"{len(crops)} crops", 1)]


def silent(crops):
    return []
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent,title\n1,sky\n", "column 'name' is missing; it has latent, title"),
        ("latent,name\n1,sky\n1,road\n", "line 3: latent 1 has a name in line 2 already"),
        ("latent,name\nsky,1\n", "line 2: latent 'sky': write the latent's number"),
        ("latent,name\n-1,sky\n", "line 2: latent '-1'"),
        ("latent,name\n8,sky\n", "line 2: latent 8: this SAE has latents 0 to 7"),
        ("latent,name\n3,\n", "line 2: latent 3 has no name"),
        ("", "not a CSV file"),
    ],
)
def test_a_wrong_file_of_names_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"labels.csv: {message}"):
        read_names(path, 8)


def test_names_are_laid_beside_the_sae_in_order(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('latent,name\n5,"tree, bare"\n2,sky\n')
    write_json(tmp_path / "config.json", {"width": 8})
    write_names(tmp_path / "labels.csv", tmp_path / "config.json", tmp_path / "names.csv")
    assert read_names(tmp_path / "names.csv").rows() == [(2, "sky", None), (5, "tree, bare", None)]
    with pytest.raises(DataError, match="no such file"):
        read_names(tmp_path / "none.csv")


def test_the_class_of_a_latent_is_the_one_that_it_finds_best() -> None:
    found = best_classes(SCORES)
    assert found.select("latent", "class_name", "f1").rows() == [(4, "road", 0.8), (5, "sky", 0.3), (6, "road", 0.2)]
    assert best_classes(None).schema == found.schema


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = make_tree(tmp_path_factory.mktemp("results"))
    SCORES.cast({"latent": pl.Int32}).write_parquet(features / "scores.parquet")
    return features


def test_classes_propose_names_where_they_are_surely_above_chance(folder: Path, tmp_path: Path) -> None:
    main(["features", "names", "--features", str(folder), "--output", str(tmp_path / "proposed.csv")])
    # Latent 5's interval reaches below the latents that are as often active.
    assert pl.read_csv(tmp_path / "proposed.csv").select("latent", "name", "note").rows() == [
        (4, "road", "held-out F1 0.8 [0.7, 0.9], by chance 0.1"),
        (6, "road", "held-out F1 0.2 [0.1, 0.3], by chance 0.05"),
    ]
    assert read_names(tmp_path / "proposed.csv")["latent"].to_list() == [4, 6]


def test_a_function_of_the_users_names_crops(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crop_captions.py").write_text(NAMER)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["features", "names", "--features", str(folder), "--output", str(tmp_path / "proposed.csv")]
    main([*command, "--by", "crop_captions:name_crops", "--latents", "3,7", "--crops", "2"])
    rows = pl.read_csv(tmp_path / "proposed.csv")
    assert rows["latent"].to_list() == [3, 7]
    assert rows["note"].to_list() == ["2 crops 1"] * 2
    for name, score in rows.select("name", "score").iter_rows():
        assert name == ("bright" if score > 128 else "dark")
    main([*command, "--by", "crop_captions:silent", "--limit", "2"])
    assert pl.read_csv(tmp_path / "proposed.csv").is_empty()
    for wrong, message in (
        ("captions", "write module:function"),
        ("crop_captions:none", "has no attribute 'none'"),
        ("nowhere:f", "No module named 'nowhere'"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([*command, "--by", wrong])
