"""The benchmark of SAEs: equal to visaebench itself, right where that is wrong, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmark_for_tests import GRID, make_dataset, make_patches, make_planted, planted_sae, write_index
from peers_for_tests import run_peer

from visae import cli
from visae.activations.given import write_store
from visae.config.benchmark import BenchmarkSettings
from visae.errors import DataError, StoreError
from visae.features.benchmark.table import BenchmarkFiles, write_benchmark
from visae.features.encoding import encode_store
from visae.sae import save_sae
from visae.sae.place import Place

SEVEN = (
    *("feature_localization", "fvu", "downstream_preservation", "sparse_probing_auc", "monosemanticity"),
    *("cross_domain", "absorption_rate"),
)
ROOT = Path(__file__).parent


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, dict[str, dict]]:
    """Folder of a planted data set, its files, and its table by metric."""
    folder = tmp_path_factory.mktemp("planted")
    files, others = make_planted(folder)
    settings = BenchmarkSettings(groups=str(folder / "groups.json"), fit_split="val")
    write_benchmark(files, folder / "table.parquet", settings, others)
    rows = pl.read_parquet(folder / "table.parquet").iter_rows(named=True)
    return folder, vars(files), {row["metric"]: row for row in rows}


# --- beside the real package ---


@pytest.fixture(scope="module")
def package(planted: tuple[Path, dict, dict[str, dict]]) -> dict[str, dict[str, float]]:
    """What visaebench's own `evaluate` gives of the same SAE, activations and labels."""
    folder, _, _ = planted
    save_sae(planted_sae(more=1300), folder / "wide")
    run_peer("visaebench", ROOT / "visaebench_for_tests.py", folder)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
def test_visaebench_runs_all_its_metrics_on_an_sae_of_visae(package: dict[str, dict[str, float]]) -> None:
    # On files of activations, as it writes them itself, and on a tensor, of which it hands on three dimensions.
    assert set(package["files"]) == set(package["tensor"]) == set(SEVEN)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVEN)
def test_values_are_those_of_visaebench(planted, package: dict[str, dict[str, float]], name: str) -> None:
    assert planted[2][name]["value"] == pytest.approx(package["files"][name], abs=1e-4)


@pytest.mark.slow
def test_latents_are_drawn_as_visaebench_draws_them(planted, package: dict[str, dict[str, float]], tmp_path) -> None:
    folder, files, _ = planted
    wide = str(folder / "wide/config.json")
    encode_store(Path(files["store"]), Path(wide), tmp_path / "codes", "cpu")
    codes = {"codes": str(tmp_path / "codes/manifest.json"), "sae": wide}
    write_benchmark(BenchmarkFiles(**{**files, **codes}), tmp_path / "table.parquet")
    rows = {row["metric"]: row for row in pl.read_parquet(tmp_path / "table.parquet").iter_rows(named=True)}
    for name, drawn in (("feature_localization", 500), ("monosemanticity", 1000)):
        assert rows[name]["value"] == pytest.approx(package["wide"][name], abs=1e-4)
        assert rows[name]["n"] == drawn
        assert rows[name]["value"] != rows[name]["corrected"]
    assert rows["probe_r"]["value"] is None
    assert "there is no split train to choose latents on, only val" in rows["probe_r"]["note"]


@pytest.mark.slow
def test_visaebench_explains_more_than_everything_and_the_corrected_column_does_not(planted, package) -> None:
    assert package["files"]["fvu"] < 0
    assert 0 < planted[2]["fvu"]["corrected"] < 1.1
    # The same activations in one tensor: it takes pictures for tokens.
    assert package["tensor"]["fvu"] == np.inf


def test_what_is_not_wrong_is_not_corrected(planted) -> None:
    row = planted[2]["downstream_preservation"]
    assert (row["value"], row["value_low"], row["value_high"]) == (
        row["corrected"],
        row["corrected_low"],
        row["corrected_high"],
    )
    assert row["correction"] == ""


def test_every_value_lies_in_its_interval(planted) -> None:
    for row in planted[2].values():
        for kind in ("value", "corrected"):
            assert row[f"{kind}_low"] <= row[kind] <= row[f"{kind}_high"], row


def test_saevs_metrics_know_what_was_planted(planted) -> None:
    rows = planted[2]
    # Of eight classes, each with an eighth of the pictures, chance is an average precision of about 0.125.
    assert rows["mean_average_precision"]["value_low"] > 0.3
    assert rows["purity_at_16"]["value"] > 0.4
    assert rows["coverage_at_0.3"]["value"] == 1
    assert 0.1 < rows["probe_r"]["value"] < 1
    assert rows["normalized_mse"]["value"] == rows["fvu"]["corrected"]


# --- what cannot be measured, and what does not belong together ---


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    sae = save_sae(planted_sae(), tmp_path / "sae")
    labels = np.zeros(12, dtype=np.int64)
    own = make_dataset(tmp_path, "", labels, make_patches(1, labels), sae, {"train": 6, "val": 6})
    write_benchmark(BenchmarkFiles(**vars(own), sae=str(sae)), tmp_path / "table.parquet")
    rows = {row["metric"]: row for row in pl.read_parquet(tmp_path / "table.parquet").iter_rows(named=True)}
    for name, reason in {
        "downstream_preservation": "labels of fewer than two classes",
        "sparse_probing_auc": "labels of fewer than two classes",
        "monosemanticity": "features: similarity",
        "cross_domain": "benchmark: others",
        "absorption_rate": "benchmark: groups",
        "probe_r": "no class has units",
        "coverage_at_0.3": "no class has units",
    }.items():
        assert rows[name]["value"] is rows[name]["corrected"] is None
        assert reason in rows[name]["note"]
    assert rows["fvu"]["value_low"] <= rows["fvu"]["value"] <= rows["fvu"]["value_high"]
    assert rows["fvu"]["corrected"] is not None
    assert rows["l0"]["value"] > 0


def test_pictures_without_any_label_have_what_needs_none(tmp_path: Path) -> None:
    sae, labels = save_sae(planted_sae(), tmp_path / "sae"), np.arange(60) % 3
    splits = {"train": 20, "val": 40}
    own = make_dataset(tmp_path, "", labels, make_patches(1, labels), sae, splits)
    write_index(tmp_path / "index.parquet", [None] * 60, splits)
    (tmp_path / "groups.json").write_text('{"all": [0, 1, 2]}')
    settings = BenchmarkSettings(groups=str(tmp_path / "groups.json"))
    write_benchmark(BenchmarkFiles(**vars(own), sae=str(sae)), tmp_path / "table.parquet", settings, {"it": own})
    rows = {row["metric"]: row for row in pl.read_parquet(tmp_path / "table.parquet").iter_rows(named=True)}
    measured = {name for name, row in rows.items() if row["value"] is not None}
    assert measured == {"feature_localization", "fvu", "normalized_mse", "l0"}
    assert rows["cross_domain"]["note"].startswith("it: the pictures have labels of fewer than two classes")
    assert "the pictures have no labels" in rows["probe_r"]["note"]
    assert "no group has a class of this data set" in rows["absorption_rate"]["note"]


def test_files_of_other_data_sets_and_saes_are_refused(tmp_path: Path, planted) -> None:
    folder, files, _ = planted
    other = {"index": str(folder / "other.parquet")}
    with pytest.raises(StoreError, match="describes 480 pictures"):
        write_benchmark(BenchmarkFiles(**{**files, **other}), tmp_path / "table.parquet")
    with pytest.raises(StoreError, match="holds 90 pictures"):
        write_benchmark(
            BenchmarkFiles(**{**files, "store": str(folder / "other_store/manifest.json")}), tmp_path / "table.parquet"
        )
    wide = write_store(tmp_path / "wide", np.zeros((480, 25, 7), np.float32), list(range(25)), {"val": 480}, grid=GRID)
    with pytest.raises(StoreError, match="7 dimensions, the SAE takes 24"):
        write_benchmark(BenchmarkFiles(**{**files, "store": str(wide)}), tmp_path / "table.parquet")
    with pytest.raises(DataError, match="has no split test"):
        write_benchmark(BenchmarkFiles(**files), tmp_path / "table.parquet", BenchmarkSettings(split="test"))
    assert not (tmp_path / "table.parquet").exists()


def test_one_command_writes_and_prints_the_table(planted, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, files, rows = planted
    options = [text for name in ("codes", "store", "index", "sae", "judge") for text in (f"--{name}", files[name])]
    there = json.dumps(
        {
            "other": {"codes": f"{folder}/other_codes/manifest.json", "store": f"{folder}/other_store/manifest.json"}
            | {"index": f"{folder}/other.parquet"}
        }
    )
    caplog.set_level("INFO")
    cli.main(
        [
            *("sae-benchmark", *options, "--others", there, "--output", str(tmp_path / "table.parquet")),
            *("--settings", "fit_split=val", f"groups={folder}/groups.json"),
        ]
    )
    table = pl.read_parquet(tmp_path / "table.parquet")
    assert dict(zip(table["metric"], table["value"], strict=True)) == {name: row["value"] for name, row in rows.items()}
    assert "| `fvu` | -" in caplog.text
    assert "| `coverage_at_0.3` | 1.000 [" in caplog.text


def test_an_sae_of_class_tokens_is_measured_on_class_tokens(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).permutation(np.arange(90) % 3)
    sae = planted_sae()
    sae.place = Place(tokens="class")
    config = save_sae(sae, tmp_path / "sae")
    patches = make_patches(1, labels)
    values = np.concatenate([patches.max(axis=1, keepdims=True), patches], axis=1)
    splits = {"train": 30, "val": 60}
    store = write_store(tmp_path / "store", values, [-1, *range(25)], splits, grid=GRID)
    write_index(tmp_path / "index.parquet", labels.tolist(), splits)
    encode_store(store, config, tmp_path / "codes", "cpu")
    files = {"codes": f"{tmp_path}/codes/manifest.json", "store": str(store), "index": f"{tmp_path}/index.parquet"}
    write_benchmark(BenchmarkFiles(**files, sae=str(config)), tmp_path / "table.parquet")
    rows = {row["metric"]: row for row in pl.read_parquet(tmp_path / "table.parquet").iter_rows(named=True)}
    assert rows["feature_localization"]["value"] is None
    assert "0 of the 5 x 5 patches" in rows["feature_localization"]["note"]
    assert rows["fvu"]["n"] == 60
    rebuilt = sae(torch.from_numpy(values[30:, 0])).detach().numpy()
    error = ((rebuilt - values[30:, 0]) ** 2).sum() / ((values[30:, 0] - values[30:, 0].mean(axis=0)) ** 2).sum()
    assert rows["fvu"]["corrected"] == pytest.approx(error, rel=1e-4)
    assert rows["sparse_probing_auc"]["value"] is not None
    assert rows["mean_average_precision"]["n"] == 3


def test_a_store_or_an_sae_that_the_codes_are_not_of_is_refused(tmp_path: Path) -> None:
    labels, splits = np.arange(40) % 3, {"train": 20, "val": 20}
    config = save_sae(planted_sae(), tmp_path / "sae")
    files = make_dataset(tmp_path, "", labels, make_patches(1, labels), config, splits)
    other = make_dataset(tmp_path, "other_", labels, make_patches(2, labels), config, splits)
    of_other_store = BenchmarkFiles(codes=files.codes, store=other.store, index=files.index, sae=str(config))
    with pytest.raises(StoreError, match=r"was made from another manifest\.json; give that one, or encode again"):
        write_benchmark(of_other_store, tmp_path / "table.parquet")
    sae = planted_sae()
    with torch.no_grad():
        sae.encoder_bias += 0.1
    second = save_sae(sae, tmp_path / "second")
    with pytest.raises(StoreError, match=r"was made from another config\.json; give that one, or encode again"):
        write_benchmark(
            BenchmarkFiles(codes=files.codes, store=files.store, index=files.index, sae=str(second)),
            tmp_path / "table.parquet",
        )


@pytest.mark.parametrize("option", ["index", "labels", "judge", "store"])
def test_a_file_that_is_not_there_is_named_by_its_option(option: str, tmp_path: Path) -> None:
    labels, splits = np.arange(40) % 3, {"train": 20, "val": 20}
    config = save_sae(planted_sae(), tmp_path / "sae")
    files = make_dataset(tmp_path, "", labels, make_patches(1, labels), config, splits)
    said = {"codes": files.codes, "store": files.store, "index": files.index, "sae": str(config)}
    said[option] = f"{tmp_path}/not-there.json"
    with pytest.raises(SystemExit, match=r"not-there\.json: no such"):
        cli.main(
            [
                "sae-benchmark",
                "--output",
                f"{tmp_path}/t.parquet",
                *(word for name, value in said.items() for word in (f"--{name}", value)),
            ]
        )


@pytest.mark.parametrize("text", ["nope", "a: nope", "[1]"])
def test_other_data_sets_that_are_no_files_by_name_are_told_how_they_are_written(text: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["sae-benchmark", "--others", text])
    assert "write NAME: {codes: …, store: …, index: …" in capsys.readouterr().err
