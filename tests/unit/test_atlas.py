"""The atlas on worlds whose causes are planted: it finds them in every task, and little where there is nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import planted_for_tests
import polars as pl
import pytest
import torch
from tasks_for_tests import World, make_worlds

from visae.arms.members import selection_of
from visae.arms.targets import latent_activity
from visae.config.settings import AtlasSettings, FigureSettings, InterventionSettings
from visae.config.tasks import TASKS
from visae.discovery.atlas import SCHEMA, run_atlas, verified_latents
from visae.discovery.estimate import estimated_effects
from visae.discovery.judge import judged
from visae.discovery.pairs import AT_RANDOM, BY_ESTIMATE, BY_LABELS, ranked
from visae.discovery.verify import Verifier
from visae.experiments.experiment import FIT, MEASURED
from visae.experiments.runner import Runner
from visae.figures import atlas as figure_of_atlas
from visae.sae import save_sae

SETTINGS = AtlasSettings(pictures=6, verified=12, images=16, bootstrap=400, batch_size=16)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, World]:
    """Those of the battery of tasks, with more pictures to measure on: a paired test of three can never be sure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_for_tests, "N_MEASURE", 60)
        yield make_worlds(tmp_path_factory.mktemp("worlds"))


@pytest.fixture(scope="module", params=TASKS)
def world(request, worlds) -> World:
    return worlds[request.param]


def run(world: World, output: Path, settings: AtlasSettings = SETTINGS, seed: int = 0, **files: str):
    summary = run_atlas(
        world.task, replace(world.files, **files), settings, world.layer, output, device="cpu", seed=seed
    )
    return pl.read_parquet(output / "effects.parquet"), summary


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    return run(world, tmp_path_factory.mktemp("atlas"))


def test_the_planted_latent_of_each_class_comes_first_and_is_proven_twice(world, done):
    table, _ = done
    for class_id, planted in world.planted.items():
        of_class = table.filter(pl.col("class_id") == class_id, pl.col("estimate") < 0).sort("estimate")
        assert of_class["latent"][0] == planted
        # Signs of five pictures can be flipped in 32 ways: too few to be sure among so many pairs.
        if of_class["n_images"][0] > 5:
            assert verified_latents(table, class_id)[0] == planted


def test_what_it_estimates_is_what_edits_measure(done):
    _, summary = done
    # Most pairs do next to nothing, and these have no order.
    assert summary["rank_correlation"]["edited"] > 0.5


def test_its_ranking_is_right_more_often_than_a_random_one(done):
    _, summary = done
    found = {(row["ranking"], row["at"]): row for row in summary["precision"]}
    assert found[BY_ESTIMATE, 20]["precision"] > found[AT_RANDOM, 20]["precision"]
    assert found[BY_ESTIMATE, 20]["low"] <= found[BY_ESTIMATE, 20]["precision"] <= found[BY_ESTIMATE, 20]["high"]


def test_the_table_has_every_active_pair_once_and_intervals_hold_their_effect(world, done):
    table, summary = done
    assert dict(table.schema) == SCHEMA
    assert table.select("class_id", "latent").is_unique().all()
    active = latent_activity(world.files.codes, world.opened().store.image_ids(FIT)).count
    assert set(table["latent"]) == set(active)
    assert len(table) == summary["n_pairs"]
    measured = table.filter(pl.col("effect").is_not_null())
    assert len(measured) == summary["n_measured"] > 0
    assert (measured["effect_low"] <= measured["effect"] + 1e-9).all()
    assert (measured["effect"] <= measured["effect_high"] + 1e-9).all()
    assert (measured["q"] >= measured["p"] - 1e-12).all()
    # Nothing replicates that was not verified first.
    assert table.filter(pl.col("replicates") & ~pl.col("verified").fill_null(False)).is_empty()


def test_the_two_halves_have_no_picture_in_common(world):
    task = world.opened()
    task.look(task.store.image_ids(MEASURED))
    activity = latent_activity(world.files.codes, task.store.image_ids(FIT))
    runner = Runner(task, world.sae(), InterventionSettings(batch_size=16), 0)
    verifier = Verifier(runner, activity, SETTINGS, frozenset(), 0)
    for pair in world.planted.items():
        first, second = (verifier._pictures(pair, -1.0, again).images for again in (False, True))
        assert len(first) > 0
        assert len(second) > 0
        assert not set(first.tolist()) & set(second.tolist())


def test_the_estimate_of_a_linear_readout_is_exact(worlds):
    """Log odds of a linear readout are no linear function, but slopes along the way make up for that."""
    world = worlds["readout"]
    task = world.opened()
    activity = latent_activity(world.files.codes, task.store.image_ids(FIT))
    selection = selection_of(
        task, "", 0.9, FIT, settings=InterventionSettings(), sae=world.sae(), codes_manifest=world.files.codes,
        activity=activity, seed=0,
    )  # fmt: skip
    tokens = torch.cat([tokens for tokens, _ in selection.units(0)])
    codes = selection.sae.encode(tokens.flatten(0, 1)).view(len(tokens), -1, selection.sae.width)
    for latent in list(world.planted.values())[:2]:
        without = tokens - codes[..., latent : latent + 1] * selection.sae.directions()[latent]
        exact = (task.log_odds(task.logits(without), 0) - task.log_odds(task.logits(tokens), 0)).mean()
        near = [abs(estimated_effects(selection, len(tokens), points)[0, latent] - float(exact)) for points in (1, 8)]
        assert near[0] < 0.5 * abs(float(exact))


def test_nothing_is_proven_of_directions_that_are_not_read(worlds, tmp_path):
    world = worlds["readout"]
    sae, task = world.sae(), world.opened()
    # A readout does not see what is orthogonal to all of its rows.
    unread = torch.linalg.svd(task.weight.double(), full_matrices=True).Vh[torch.linalg.matrix_rank(task.weight) :]
    mixed = torch.randn(sae.width, len(unread), generator=torch.manual_seed(5), dtype=torch.float64)
    state = sae.state_dict()
    state["decoder_weight"] = torch.nn.functional.normalize(mixed @ unread, dim=1).float()
    sae.load_state_dict(state)
    _, summary = run(world, tmp_path / "atlas", sae=str(save_sae(sae, tmp_path / "sae")))
    assert summary["n_measured"] > 0
    assert summary["n_replicated"] == 0


def test_the_same_seed_gives_the_same_table(worlds, tmp_path):
    first, second = (run(worlds["classification"], tmp_path / name)[0] for name in ("a", "b"))
    assert first.equals(second)


def test_rankings_are_in_their_order_and_leave_out_classes_without_estimate():
    effects = np.array([[-3.0, 0.5, 0.0, 1.0], [np.nan] * 4, [0.1, -0.2, 0.0, 0.0]])
    found = ranked(effects, [7, 8, 9], [0, 1, 3], [(9, 3, 0.9), (8, 0, 0.8), (7, 2, 0.7), (7, 1, 0.6)], 4, 0)
    assert found.first[BY_ESTIMATE] == [(7, 0), (7, 3), (7, 1), (9, 1)]
    assert found.first[BY_LABELS] == [(9, 3), (7, 1)]
    assert len(found.first[AT_RANDOM]) == 4
    assert {class_id for class_id, _ in found.estimates} == {7, 9}


def test_a_pair_whose_effect_goes_against_its_estimate_is_not_verified():
    rows = {
        (1, 1): {"p": 0.001, "effect_low": -2.0, "effect_high": -1.0},
        (1, 2): {"p": 0.001, "effect_low": -2.0, "effect_high": -1.0},
        (1, 3): {"p": 0.9, "effect_low": -2.0, "effect_high": -1.0},
    }
    judged(rows, {(1, 1): -1.0, (1, 2): 1.0, (1, 3): -1.0})
    assert [rows[pair]["verified"] for pair in rows] == [True, False, False]


def test_the_figure_shows_every_edited_pair(done, tmp_path):
    table, summary = done
    shown = figure_of_atlas.data(table)
    assert len(shown) == summary["n_measured"]
    figure = figure_of_atlas.draw(shown, summary["precision"], FigureSettings())
    points = sum(len(part.get_offsets()) for part in figure.axes[0].collections)
    assert points == len(shown)
