"""What latents do together, on readouts whose answer is a known function of the latents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import planted_for_tests
import polars as pl
import pytest
import torch
from tasks_for_tests import make_worlds, save_rows

from visae.activations.given import write_store
from visae.config.interactions import InteractionSettings
from visae.config.settings import AtlasSettings, FigureSettings
from visae.discovery.atlas import run_atlas
from visae.discovery.headline import interaction_lines
from visae.discovery.interactions import (
    LESS,
    MORE,
    SCHEMA,
    InteractionFiles,
    judged,
    run_interactions,
    summary_of,
)
from visae.discovery.redundancy import alike
from visae.discovery.synergy import Resampled, beyond_sum
from visae.errors import DataError
from visae.experiments.files import ExperimentFiles
from visae.features.encoding import encode_store
from visae.figures import interactions as figure_of_interactions
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.variants.relu import Relu
from visae.tasks.readout import Readout

pytestmark = pytest.mark.slow

ATLAS = AtlasSettings(pictures=40, verified=24, images=30, bootstrap=400, doses=[-1.0])
SETTINGS = InteractionSettings(bootstrap=2000)
N_FIT, N_MEASURE = 40, 80
Logit = Callable[[torch.Tensor], torch.Tensor]


def make_files(folder: Path, rows: np.ndarray, width: int) -> ExperimentFiles:
    """Files of a readout with two outputs over rows (n, d), whose first `width` coordinates are latents."""
    folder.mkdir()
    d = rows.shape[1]
    splits = {"train": N_FIT, "val": N_MEASURE}
    manifest = write_store(folder / "store", rows[:, None].astype(np.float32), [0], splits)
    sae = SparseAutoencoder(d, width, Relu())
    state = {name: torch.zeros_like(tensor) for name, tensor in sae.state_dict().items()}
    state |= {"encoder_weight": torch.eye(d)[:width], "decoder_weight": torch.eye(d)[:width]}
    sae.load_state_dict({**state, "scale": torch.tensor(1.0)})
    config = save_sae(sae, folder / "sae")
    encode_store(manifest, config, folder / "codes", "cpu")
    readout = save_rows(folder / "readout.safetensors", "weight", torch.zeros(2, d), ["first", "second"])
    paths = {"manifest": manifest, "sae": config, "codes": folder / "codes" / "manifest.json"}
    return ExperimentFiles(**{name: str(path) for name, path in paths.items()}, index="", readout=readout, first=1)


def with_atlas(files: ExperimentFiles, folder: Path) -> InteractionFiles:
    return InteractionFiles(**vars(files), effects=str(folder / "effects.parquet"), atlas=str(folder / "atlas.json"))


def run(files: ExperimentFiles, output: Path, logit: Logit, settings: InteractionSettings = SETTINGS):
    """Atlas and interactions of a readout whose first output is a function of rows (b, d), the other one 0.

    With two outputs the log odds of the first are its logit, so that what is planted is what is measured.
    """

    def answers(self: Readout, final: torch.Tensor) -> torch.Tensor:
        first = 5 + logit(final[:, 0])
        return torch.stack([first, torch.zeros_like(first)], dim=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Readout, "answers", answers)
        run_atlas("readout", files, ATLAS, 0, output, device="cpu")
        summary = run_interactions("readout", with_atlas(files, output), settings, 0, output, device="cpu")
    table = pl.read_parquet(output / "interactions.parquet")
    return table, summary


def planted(u: torch.Tensor) -> torch.Tensor:
    """Two that add up, two of which both are needed, two of which one suffices, two that saturate, two against it."""
    added = u[:, 0] + u[:, 1]
    both, either = 2 * torch.minimum(u[:, 2], u[:, 3]), 2 * torch.maximum(u[:, 4], u[:, 5])
    saturating, against = 4 * torch.tanh((u[:, 6] + u[:, 7]) / 2), -3 * torch.tanh((u[:, 8] + u[:, 9]) / 2)
    return added + both + either + saturating + against + 0.5 * (u[:, 10] + u[:, 11])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    rows = np.ones((N_FIT + N_MEASURE, 40))
    # Latents 10 and 11 are never active in the same row; the last 28 do nothing.
    rows[:, 10], rows[:, 11] = np.arange(len(rows)) % 2, 1 - np.arange(len(rows)) % 2
    rows[:, 12:] = rng.uniform(1, 2, (len(rows), 28)) * (rng.random((len(rows), 28)) < 0.5)
    files = make_files(folder / "files", rows, 40)
    return *run(files, folder / "output", planted), folder / "output", files


def pair(table: pl.DataFrame, first: int, other: int) -> dict:
    either = pl.concat_list("latent", "other").list.sort() == [first, other]
    return table.filter(either).row(0, named=True)


@pytest.mark.parametrize(
    ("latents", "alone", "together", "than_sum"),
    [
        ((0, 1), -1.0, -2.0, None),
        ((2, 3), -2.0, -2.0, LESS),
        ((6, 7), 4 * (np.tanh(0.5) - np.tanh(1)), -4 * np.tanh(1), MORE),
        ((8, 9), -3 * (np.tanh(0.5) - np.tanh(1)), 3 * np.tanh(1), MORE),
        ((0, 2), None, -3.0, None),
    ],
)
def test_synergy_is_what_is_planted(done, latents, alone, together, than_sum):
    row = pair(done[0], *latents)
    if alone is not None:
        assert row["effect"] == pytest.approx(alone, abs=1e-5)
        assert row["effect_other"] == pytest.approx(alone, abs=1e-5)
    assert row["together"] == pytest.approx(together, abs=1e-5)
    expected = together - row["effect"] - row["effect_other"]
    assert row["synergy"] == pytest.approx(expected, abs=1e-5)
    assert (row["synergy"] != 0) == (than_sum is not None)
    assert row["significant"] == (than_sum is not None)
    assert row["than_sum"] == than_sum


def test_both_needed_is_positive_and_one_suffices_is_negative(done):
    table, summary, *_ = done
    assert pair(table, 2, 3)["synergy"] == pytest.approx(2, abs=1e-5)
    # Of the other pair neither does anything alone, so that no atlas verifies it: it is found as a group.
    assert not table.filter(pl.col("latent").is_in([4, 5]) | pl.col("other").is_in([4, 5])).height
    group = next(group for group in summary["groups"] if group["latents"] == [4, 5])
    assert group["redundant"]
    assert group["verified"]
    assert group["alone"] == [0, 0]
    assert group["together"] == pytest.approx(-2, abs=1e-5)
    assert group["beyond_sum"] == pytest.approx(-2, abs=1e-5)
    assert group["random_groups"] == pytest.approx(0, abs=1e-5)
    assert summary["n_redundant"] == 1


def test_latents_that_never_fire_together_are_not_tested(done):
    table, summary, *_ = done
    row = pair(table, 10, 11)
    assert row["n_together"] == 0
    assert row["p"] is None
    assert row["q"] is None
    assert row["synergy"] is None
    assert summary["n_tested"] == table["p"].count() == len(table) - 1


def test_random_pairs_as_long_show_nothing(done):
    _, summary, *_ = done
    assert summary["n_significant"] == 3
    assert summary["n_not_zero_at_random"] == 0
    assert summary["median_size"]["random"] == 0


def test_the_table_has_each_pair_once_and_its_figure_both_ways(done):
    table, summary, output, _ = done
    assert dict(table.schema) == SCHEMA
    n = summary["n_latents"]
    assert len(table) == n * (n - 1) / 2 == summary["n_pairs"]
    shown = figure_of_interactions.data(table)
    assert len(shown) == n * (n - 1)
    figure = figure_of_interactions.draw(shown, summary["groups"], FigureSettings())
    matrix = figure.axes[0].images[0].get_array()
    assert np.ma.allclose(matrix, matrix.T)
    # Both halves of the matrix have a dot for each significant pair.
    assert len(figure.axes[0].collections[0].get_offsets()) == 2 * summary["n_significant"]
    assert ", 3 by more than these" in interaction_lines(output / "interactions.json")[0]


def test_an_atlas_of_another_task_is_refused(done, tmp_path):
    _, _, output, files = done
    record = json.loads((output / "atlas.json").read_text()) | {"task": "segmentation"}
    (tmp_path / "atlas.json").write_text(json.dumps(record))
    (tmp_path / "effects.parquet").write_bytes((output / "effects.parquet").read_bytes())
    other = with_atlas(files, tmp_path)
    with pytest.raises(DataError, match="an atlas of segmentation"):
        run_interactions("readout", other, SETTINGS, 0, tmp_path, device="cpu")


def test_pairs_whose_synergy_has_either_sign_are_significant_at_the_nominal_rate(tmp_path):
    """Each pair's synergy is as often above 0 as below: nothing is there but chance."""
    latents = 12
    pairs = torch.triu_indices(latents, latents, 1)
    rng = np.random.default_rng(1)
    rows = rng.uniform(1, 2, (N_FIT + N_MEASURE, latents + 12 + pairs.shape[1]))
    rows[:, latents + 12 :] = rng.choice([-1, 1], (len(rows), pairs.shape[1]))
    files = make_files(tmp_path / "files", rows, latents + 12)

    def chance(u: torch.Tensor) -> torch.Tensor:
        own = u[:, :latents]
        return 2 * own.sum(dim=1) + 0.2 * (u[:, latents + 12 :] * own[:, pairs[0]] * own[:, pairs[1]]).sum(dim=1)

    table, summary = run(files, tmp_path / "output", chance)
    assert summary["n_tested"] == pairs.shape[1]
    # More than 8 of 66 at p of .05 happen in one of 200 worlds.
    assert (table["p"] <= 0.05).sum() <= 8
    assert summary["n_significant"] <= 1
    assert summary["n_redundant"] == 0


def test_signs_are_flipped_at_the_nominal_rate_and_find_what_is_there():
    rng = np.random.default_rng(2)
    resampled = Resampled.of(np.ones(20), 500, 0)
    p = [resampled.either_way(rng.standard_normal(20)) for _ in range(600)]
    assert np.mean(np.array(p) <= 0.05) < 0.08
    assert resampled.either_way(rng.standard_normal(20) - 2) < 0.01
    assert resampled.one_way(rng.standard_normal(20) - 2, -1.0) < 0.01
    assert resampled.one_way(rng.standard_normal(20) - 2, 1.0) > 0.9
    assert resampled.either_way(np.zeros(20)) == resampled.above(np.zeros(20), np.zeros(20)) == 1
    p = [resampled.above(*(rng.standard_normal((2, 20)) + rng.standard_normal())) for _ in range(600)]
    assert np.mean(np.array(p) <= 0.05) < 0.08
    assert resampled.above(rng.standard_normal(20) - 2, rng.standard_normal(20)) < 0.01
    assert resampled.above(rng.standard_normal(20), rng.standard_normal(20) + 2) > 0.9


def test_what_float32_rounds_is_no_synergy():
    alone = np.array([[1e3, 1.0], [2e3, 1.0]])
    assert beyond_sum(np.array([3e3 + 1e-3, 2.5]), alone).tolist() == [0, 0.5]


def test_latents_that_fire_together_or_point_the_same_way_are_alike():
    codes = np.zeros((6, 6))
    codes[:3, 0] = codes[:3, 1] = codes[3, 2] = codes[4, 3] = codes[5, 4] = codes[4, 5] = 1
    directions = np.eye(6)
    directions[2] = directions[4]
    nodes = alike(range(6), codes, directions, 3)
    assert {(0, 1), (2, 4), (3, 5)} <= set(nodes)
    assert max(map(len, nodes)) <= 3


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_tasks_on_pictures_have_them_too(task, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_for_tests, "N_MEASURE", 60)
        world = make_worlds(tmp_path / "worlds")[task]
    run_atlas(task, world.files, AtlasSettings(pictures=6, verified=12, bootstrap=400), world.layer, tmp_path)
    summary = run_interactions(task, with_atlas(world.files, tmp_path), SETTINGS, world.layer, tmp_path, device="cpu")
    table = pl.read_parquet(tmp_path / "interactions.parquet")
    tested = table.filter(pl.col("p").is_not_null())
    exact = tested["together"] - tested["effect"] - tested["effect_other"]
    assert np.allclose(exact, tested["synergy"], atol=1e-4)
    # A group of latents that no head reads does nothing.
    assert summary["n_redundant"] == 0


def test_an_atlas_that_verified_nothing_has_no_pairs():
    table = judged([], {})
    assert dict(table.schema) == SCHEMA
    assert summary_of(table) | {"strongest": None} == {
        **dict.fromkeys(["n_latents", "n_pairs", "n_tested", "n_significant", "n_more", "n_less"], 0),
        **{"n_not_zero": 0, "n_not_zero_at_random": 0, "smallest_pictures": 6, "strongest": None},
        "median_size": {"pairs": None, "random": None},
    }
    figure = figure_of_interactions.draw(figure_of_interactions.data(table), [], FigureSettings())
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["no pair that could be tested", "none"]
