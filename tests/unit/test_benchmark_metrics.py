"""The metrics of the benchmark: what leaks in visaebench's, closed forms, and what cannot be measured."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmark_for_tests import write_index

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.errors import DataError
from visae.features.benchmark.absorption import absorption, read_groups
from visae.features.benchmark.localization import localization, morans
from visae.features.benchmark.measured import NotMeasured
from visae.features.benchmark.pictures import Pictures
from visae.features.benchmark.probing import sparse_probing
from visae.features.benchmark.reconstruction import Reconstruction, reconstruct
from visae.features.codes import FORMAT
from visae.files import write_json
from visae.sae import SparseAutoencoder
from visae.sae.variants.relu import Relu

SEED = 42


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
