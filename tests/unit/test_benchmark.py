"""The benchmark of SAEs: equal to visaebench itself, right where that is wrong, and closed forms."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmark_for_tests import GRID, make_dataset, make_patches, make_planted, planted_sae, write_index
from peers_for_tests import run_peer

from visae import cli
from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.config.benchmark import BenchmarkSettings
from visae.errors import DataError, StoreError
from visae.features.benchmark.absorption import absorption, read_groups
from visae.features.benchmark.localization import localization, morans
from visae.features.benchmark.measured import NotMeasured
from visae.features.benchmark.pictures import Pictures
from visae.features.benchmark.probing import sparse_probing
from visae.features.benchmark.reconstruction import Reconstruction, reconstruct
from visae.features.benchmark.table import BenchmarkFiles, write_benchmark
from visae.features.codes import FORMAT
from visae.features.encoding import encode_store
from visae.files import write_json
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.place import Place
from visae.sae.variants.relu import Relu

SEVEN = (
    *("feature_localization", "fvu", "downstream_preservation", "sparse_probing_auc", "monosemanticity"),
    *("cross_domain", "absorption_rate"),
)
SEED = 42
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


def written_codes(folder: Path, dense: np.ndarray, labels: list[int | None], splits: dict[str, int]) -> Pictures:
    """Codes (n_pictures, patches, width) and an index, as the pictures of their first split."""
    image, token, latent = np.nonzero(dense)
    columns = {"image_id": image, "token": token, "latent": latent, "value": dense[image, token, latent]}
    kinds = {"image_id": pl.Int32, "token": pl.Int16, "latent": pl.Int32, "value": pl.Float32}
    pl.DataFrame(columns).cast(kinds).write_parquet(folder / "shard.parquet")
    shard = {"file": "shard.parquet", "rows": len(image), "bytes": (folder / "shard.parquet").stat().st_size}
    ends = np.cumsum([0, *splits.values()]).tolist()
    manifest = {"format": FORMAT, "n_images": len(dense), "n_tokens": dense.shape[0] * dense.shape[1]}
    manifest |= {"width": dense.shape[2], "splits": dict(zip(splits, pairwise(ends), strict=True))}
    write_json(folder / "manifest.json", {**manifest, "shards": [shard]})
    write_index(folder / "index.parquet", labels, splits)
    return Pictures.read(folder / "manifest.json", folder / "index.parquet", next(iter(splits)))


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


# --- leaks ---


def noise(seed: int, n: int, width: int) -> np.ndarray:
    """(n, 1, width) codes that know nothing."""
    random = np.random.default_rng(seed)
    return (random.random((n, 1, width)) * (random.random((n, 1, width)) < 0.3)).astype(np.float32)


def test_ranking_on_tested_pictures_finds_classes_in_noise(tmp_path: Path) -> None:
    value, corrected = [], []
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        labels = (np.random.default_rng(seed).permutation(120) % 2).tolist()
        found = sparse_probing(written_codes(folder, noise(seed, 120, 3000), labels, {"val": 120}), 0, SEED)
        value.append(found.value.value)
        corrected.append(found.corrected.value)
    # 24 tested pictures each: a standard error of 0.05 about 0.5.
    assert np.mean(value) > 0.75
    assert np.mean(corrected) < 0.65


def test_scoring_on_learned_pictures_takes_own_latents_for_absorbed(tmp_path: Path) -> None:
    value, corrected = [], []
    for seed in range(3):
        folder, random = tmp_path / str(seed), np.random.default_rng(seed)
        folder.mkdir()
        labels = random.permutation(60) % 3
        codes = noise(seed + 10, 60, 3000)
        for number in range(3):  # each class has one latent, which tells it but for a quarter of the pictures
            codes[:, 0, number] = np.where(random.random(60) < 0.75, labels == number, labels != number)
        pictures = written_codes(folder, codes, labels.tolist(), {"val": 60})
        found = absorption(pictures, {"all": [0, 1, 2]}, SEED)
        value.append(found.value.value)
        corrected.append(found.corrected.value)
    assert np.mean(value) > 0.6
    assert np.mean(corrected) < 0.4


# --- closed forms ---


def brute_morans(values: np.ndarray) -> float:
    """Moran's I of a grid by all pairs of neighbours."""
    centred, above, pairs = values - values.mean(), 0.0, 0
    rows, columns = values.shape
    for i in range(rows):
        for j in range(columns):
            for k in range(max(0, i - 1), min(rows, i + 2)):
                for m in range(max(0, j - 1), min(columns, j + 2)):
                    if (k, m) != (i, j):
                        above += centred[i, j] * centred[k, m]
                        pairs += 1
    return values.size / pairs * above / (centred**2).sum()


def test_morans_i_is_that_of_all_pairs(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grid = (4, 6)
    dense = (random.random((7, 24, 5)) * (random.random((7, 24, 5)) < 0.4)).astype(np.float32)
    dense[3, :, 2] = 1  # everywhere alike: no score
    pictures = written_codes(tmp_path, dense, [0] * 7, {"val": 7})
    latent, picture, found = morans(pl.scan_parquet(tmp_path / "shard.parquet"), range(5), range(7), grid)
    places = set(zip(latent.tolist(), picture.tolist(), strict=True))
    for number in range(5):
        for image in range(7):
            active = (dense[image, :, number] > 0).sum()
            assert ((number, image) in places) == (5 <= active <= 21)
    for number, image, score in zip(latent, picture, found, strict=True):
        assert score == pytest.approx(brute_morans(dense[image, :, number].reshape(grid)), abs=1e-5)
    with pytest.raises(NotMeasured, match="24 of the 5 x 5 patches"):
        localization(pictures, (5, 5), 24, SEED)


def test_halves_are_local_and_checkerboards_are_not(tmp_path: Path) -> None:
    row, column = np.divmod(np.arange(64), 8)
    dense = np.zeros((60, 64, 2), dtype=np.float32)
    dense[:, :, 0], dense[:, :, 1] = row < 4, (row + column) % 2
    pictures = written_codes(tmp_path, dense, [0] * 60, {"val": 60})
    score = {kind: brute_morans(dense[0, :, kind].reshape(8, 8)) for kind in (0, 1)}
    assert score[0] > 0.75
    assert score[1] < 0
    found = localization(pictures, (8, 8), 64, SEED)
    assert found.value.value == found.corrected.value == pytest.approx((score[0] + score[1]) / 2)
    # All pictures are alike.
    assert found.value.high - found.value.low == pytest.approx(0, abs=1e-6)


def test_too_few_pictures_are_0_for_visaebench_and_nothing_here(tmp_path: Path) -> None:
    dense = np.zeros((9, 64, 1), dtype=np.float32)
    dense[:, :20, 0] = 1
    found = localization(written_codes(tmp_path, dense, [0] * 9, {"val": 9}), (8, 8), 64, SEED)
    assert found.value.value == 0
    assert np.isnan(found.corrected.value)


def sums_of(patches: np.ndarray, rebuilt: np.ndarray) -> Reconstruction:
    error = patches - rebuilt
    sums = [part.sum(axis=(1, 2)) for values in (patches, error) for part in (values, values**2)]
    active = np.ones(len(patches), dtype=np.int64)
    return Reconstruction(patches.shape[1], *sums, active, patches.mean(axis=1), rebuilt.mean(axis=1))


def test_unexplained_variance_in_closed_form() -> None:
    random = np.random.default_rng(0)
    patches = random.normal(size=(50, 4, 6)) + np.arange(6)
    once = np.ones((1, 50))
    mean = np.broadcast_to(patches.mean(axis=(0, 1)), patches.shape)
    assert sums_of(patches, mean).unexplained(once)[0] == pytest.approx(1)
    assert sums_of(patches, patches).unexplained(once)[0] == 0
    # An error of 1 in every value, against what the mean leaves.
    shifted = sums_of(patches, patches - 1)
    assert shifted.unexplained(once)[0] == pytest.approx(patches.size / ((patches - mean) ** 2).sum())
    # About one scalar for the mean of six dimensions the same error is less than none.
    centred = random.normal(size=(50, 4, 6))
    centred -= centred.mean()
    assert sums_of(centred, centred - 1).unexplained_by_package(once)[0] < 0
    # Without a mean, and without one of the error, the package is right.
    halved = sums_of(centred - centred.mean(axis=(0, 1)), (centred - centred.mean(axis=(0, 1))) / 2)
    assert halved.unexplained_by_package(once)[0] == pytest.approx(halved.unexplained(once)[0]) == pytest.approx(0.25)
    assert sums_of(patches + 40, patches + 40).unexplained_by_package(once)[0] == np.inf


def test_resampled_pictures_are_those_that_count_twice() -> None:
    random = np.random.default_rng(1)
    patches = random.normal(size=(5, 4, 6))
    rebuilt = patches + 0.3 * random.normal(size=patches.shape)
    weights = np.array([[2.0, 0, 1, 1, 1]])
    drawn = [0, 0, 2, 3, 4]
    again = sums_of(patches[drawn], rebuilt[drawn])
    for name in ("unexplained", "unexplained_by_package"):
        whole = getattr(sums_of(patches, rebuilt), name)(weights)
        assert whole == pytest.approx(getattr(again, name)(np.ones((1, 5))), abs=1e-6)


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


def test_pictures_that_are_too_few_to_split_say_so(tmp_path: Path) -> None:
    labels = [0, 0, 1, 1, 2, 2]
    pictures = written_codes(tmp_path, noise(0, 6, 5), labels, {"val": 6})
    with pytest.raises(NotMeasured, match="too few pictures to split: The test_size = 2"):
        sparse_probing(pictures, 0, SEED)


def test_pictures_without_a_label_take_no_part(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels: list[int | None] = [*(random.permutation(60) % 2).tolist(), *[None] * 30]
    codes = noise(0, 90, 20)
    codes[:, 0, 3] = [2.0 if label == 1 else 0 for label in labels]
    (tmp_path / "few").mkdir()
    found = sparse_probing(written_codes(tmp_path, codes, labels, {"val": 90}), 0, SEED)
    known = sparse_probing(written_codes(tmp_path / "few", codes[:60], labels[:60], {"val": 60}), 0, SEED)
    assert found.value == known.value
    assert found.value.value > 0.9


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


def test_groups_are_lists_of_names_or_ids_or_visaebenchs_own_file(tmp_path: Path) -> None:
    path, classes = tmp_path / "groups.json", {3: "pug", 5: "beagle", 9: "tabby"}
    for text in (
        '{"dogs": ["beagle", "pug", "poodle"], "cats": ["tabby"]}',
        '{"dogs": [5, 3], "cats": [9, 77]}',
        '{"num_pairs": 2, "sibling_groups": {"dogs": {"class_indices": [3, 5]}, "cats": {"class_indices": [9]}}}',
    ):
        path.write_text(text)
        assert read_groups(path, classes) == {"dogs": [3, 5], "cats": [9]}
    for text, said in {
        "[3, 5]": "not a JSON file of lists",
        '{"dogs": "pug"}': "is no list of class ids or names",
        '{"dogs": [["pug"]]}': "is no list of class ids or names",
        "{": "not a JSON file of lists",
    }.items():
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            read_groups(path, classes)
    with pytest.raises(DataError, match="not a JSON file of lists"):
        read_groups(tmp_path / "missing.json", classes)
    path.write_text('{"dogs": ["poodle"]}')  # as it may be of one data set of a study and not of another
    with pytest.raises(
        NotMeasured, match="no group has a class of this data set, whose classes are pug, beagle, tabby"
    ):
        read_groups(path, classes)


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


def test_per_token_normalization_is_undone_token_by_token(tmp_path: Path) -> None:
    sae = SparseAutoencoder(6, 12, Relu(), normalization="per_token")
    torch.manual_seed(0)
    for parameter in sae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    values = np.random.default_rng(0).normal(2, 3, (20, 4, 6)).astype(np.float32)
    store = ActivationStore.open(write_store(tmp_path, values, list(range(4)), {"val": 20}, grid=(2, 2)))
    found = reconstruct(store, sae, range(5, 20))
    with torch.no_grad():
        error = sae(torch.from_numpy(values[5:])).numpy() - values[5:]
    assert found.error_squares == pytest.approx((error**2).sum(axis=(1, 2)), rel=1e-4)
    assert found.rebuilt == pytest.approx((values[5:] + error).mean(axis=1), abs=1e-4)


def test_a_transcoder_reconstructs_nothing(tmp_path: Path) -> None:
    store = ActivationStore.open(write_store(tmp_path, np.ones((3, 4, 6), np.float32), list(range(4)), {"val": 3}))
    with pytest.raises(NotMeasured, match="a transcoder gives another layer"):
        reconstruct(store, SparseAutoencoder(6, 12, Relu(), 5), range(3))


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
