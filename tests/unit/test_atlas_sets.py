"""Sets of latents: chosen as linear algebra says, measured on fresh pictures, beside fair controls."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import planted_for_tests
import polars as pl
import pytest
import torch
from tasks_for_tests import USERS, World, make_worlds, users_world
from torch.nn.functional import normalize

from visae.arms.dictionaries import untrained_dictionaries
from visae.config.consistency import unresolved
from visae.config.discovery_sets import SetSettings
from visae.config.parse import load_config
from visae.config.settings import AtlasSettings, FigureSettings, InterventionSettings
from visae.config.tasks import TASKS
from visae.discovery.atlas import run_atlas
from visae.discovery.candidates import Candidates
from visae.discovery.choice import Proposal, Slopes, chosen_set, class_slopes, proposed
from visae.discovery.headline import sets_lines
from visae.discovery.ranks import ranked_among_untrained
from visae.discovery.sets import SetMaker, run_sets
from visae.discovery.sets_table import DIRECTION, RANDOM, SET, UNTRAINED, schema
from visae.discovery.verify import drawn_half
from visae.errors import DataError
from visae.experiments.experiment import MEASURED
from visae.experiments.opened import Opened
from visae.experiments.runner import Runner
from visae.features.encoding import encode_store
from visae.figures import sets as figure_of_sets
from visae.files import file_sha256, write_json
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.variants.relu import Relu
from visae.tasks.counts import INSERT, SUPPRESS, Target

pytestmark = pytest.mark.slow

SETS = SetSettings(sizes=[1, 3], proposed=8, images=8, untrained=3, sample=4)
SETTINGS = AtlasSettings(pictures=6, verified=12, images=12, bootstrap=200, batch_size=16, sets=SETS)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, World]:
    """Those of the battery of tasks, with enough pictures for a third part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_for_tests, "N_MEASURE", 72)
        found = make_worlds(tmp_path_factory.mktemp("worlds"))
        yield found | {"readout": users_world(tmp_path_factory.mktemp("users"), replace(USERS, val=120))}


@pytest.fixture(scope="module", params=TASKS)
def world(request, worlds) -> World:
    return worlds[request.param]


def run(world: World, output: Path, settings: AtlasSettings = SETTINGS, **more):
    files = replace(world.files, **more.pop("files", {}))
    run_atlas(world.task, files, settings, world.layer, output, device="cpu")
    summary = run_sets(world.task, files, settings, world.layer, output, device="cpu", **more)
    return pl.read_parquet(output / "sets.parquet"), summary


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return *run(world, folder, others=[world.files.sae]), folder


def dictionary(rows: torch.Tensor) -> SparseAutoencoder:
    """ReLU dictionary in raw units whose latents are the coordinates along unit rows."""
    sae = SparseAutoencoder(rows.shape[1], len(rows), Relu())
    state = {name: torch.zeros_like(tensor) for name, tensor in sae.state_dict().items()}
    rows = normalize(rows, dim=1)
    sae.load_state_dict({**state, "encoder_weight": rows, "decoder_weight": rows.clone(), "scale": torch.tensor(1.0)})
    return sae


def test_a_set_is_taken_that_lies_along_the_gradient_and_no_latent_more():
    # The gradient is the sum of the first three; the others are aside of it, the last against it.
    rows = torch.eye(8)
    gradient = rows[:3].sum(dim=0)
    rows = torch.cat([rows[:6], -gradient[None]])
    slopes = Slopes(torch.zeros(5, 8), gradient.expand(5, 8))
    sae = dictionary(rows)
    found = chosen_set(slopes, Proposal.of(sae, slopes, range(7), [1.0] * 7), 10, -1.0)
    assert sorted(found.latents) == [0, 1, 2]
    np.testing.assert_allclose(found.expected, np.sqrt([1 / 3, 2 / 3, 1]), atol=1e-6)
    np.testing.assert_allclose(found.lengths, np.sqrt([1, 2, 3]), atol=1e-6)
    assert chosen_set(slopes, Proposal.of(sae, slopes, range(7), [1.0] * 7), 2, -1.0).latents == found.latents[:2]
    # What raises the log odds where it is suppressed is no set.
    assert chosen_set(slopes, Proposal.of(sae, slopes, [6], [1.0]), 10, -1.0) is None


def test_the_expected_share_is_exact_where_log_odds_are_linear():
    generator = torch.Generator().manual_seed(3)
    tokens, gradient = torch.randn(40, 12, generator=generator), torch.randn(12, generator=generator)
    sae = dictionary(torch.randn(30, 12, generator=generator))
    slopes = Slopes(tokens, gradient.expand(40, 12))
    proposal = proposed(sae, slopes, 10)
    found = chosen_set(slopes, proposal, 4, -1.0)
    aim = -torch.tensor(found.largest) - sae.latent_values(tokens, list(found.latents))
    change = sae.change(aim, found.latents, like=tokens)
    length = change.square().sum(dim=1).mean().sqrt()
    assert float(length) == pytest.approx(found.lengths[-1], rel=1e-4)
    assert float(-(change @ gradient).mean() / (length * gradient.norm())) == pytest.approx(
        found.expected[-1], rel=1e-4
    )
    assert list(found.expected) == sorted(found.expected)
    largest = sae.encode(tokens)[:, proposal.latents].amax(dim=0)
    torch.testing.assert_close(torch.tensor(proposal.largest), largest)


def test_the_planted_latent_is_in_each_set_and_does_more_than_random_ones(world, done):
    table, summary, _ = done
    assert dict(table.schema) == schema(world.opened())
    assert summary["classes"]
    for row in summary["classes"]:
        if world.task == "zero_shot":
            continue  # class vectors of a random network are read from more than what is planted
        assert world.planted[row["class_id"]] in row["latents"]
        moved = row["moved"]
        sign = 1 if row["edit"] == INSERT or world.task in ("segmentation", "readout") else -1
        assert sign * moved[SET] >= sign * moved[RANDOM]
    assert any(row["half"] for row in summary["classes"] if row["edit"] == SUPPRESS)


def test_the_direction_is_the_whole_of_itself_and_intervals_hold_what_they_are_of(done):
    table, _, _ = done
    share = table.filter(pl.col("share").is_not_null())
    assert share.filter(arm=DIRECTION)["share"].unique().to_list() == [1.0]
    assert (share["share_low"] <= share["share"] + 1e-9).all()
    assert (share["share_high"] >= share["share"] - 1e-9).all()
    assert {SET, DIRECTION, RANDOM, UNTRAINED, "sae"} >= set(table["arm"]) > {SET, DIRECTION}
    assert table.filter(pl.col("q").is_not_null()).select(pl.col("whole").all()).item()
    # Each class is in the mean at every size that was asked for.
    means = table.filter(pl.col("class_id").is_null())
    assert set(means["n_latents"]) == set(SETS.sizes)
    for way, n_latents, share in means.filter(arm=SET, scale=-1.0).select("edit", "n_latents", "target_change").rows():
        of_class = table.filter(pl.col("class_id").is_not_null(), edit=way, arm=SET, scale=-1.0)
        of_class = of_class.filter(pl.col("n_latents") <= n_latents).sort("n_latents").group_by("class_id").last()
        assert share == pytest.approx(of_class["target_change"].mean())
    assert (table["q"].drop_nulls() >= table.filter(pl.col("q").is_not_null())["p"] - 1e-12).all()


def test_no_measured_picture_had_a_part_in_verifying(world):
    edits = InterventionSettings(batch_size=16)
    found = Opened.of(world.task, world.files, edits, world.layer, CPU, 0)
    found.task.look(found.task.store.image_ids(MEASURED))
    maker = SetMaker(found, Runner(found.task, found.sae, edits, 0), SETTINGS, Candidates({}, frozenset(), 0), {}, 0)
    class_id, latent = next(iter(world.planted.items()))
    target = Target(class_id, found.task.names[class_id], (latent,), 1.0)
    used = drawn_half(found.task, target, SETTINGS.images, 0)
    for way in (SUPPRESS, INSERT):
        fresh = maker._fresh(target, way)
        # Every planted picture has the class in its mask or in its prediction.
        assert fresh.n_target.any() or (world.task == "segmentation" and way == INSERT)
        assert not set(fresh.images.tolist()) & set(used.images.tolist())
        assert (fresh.n_target > 0).sum() <= SETS.images


def split_world(world: World, folder: Path) -> World:
    """Readout whose tastes are no latents: of three latents each, the sum is the taste."""
    sae = world.sae()
    tastes = sae.decoder_weight.detach()[: len(world.planted)]
    aside = torch.linalg.svd(tastes, full_matrices=True).Vh[len(tastes) :][:2]
    # Three vectors in a plane beside all tastes, whose sum is nothing.
    angles = torch.arange(3) * 2 * torch.pi / 3
    spokes = torch.stack([angles.cos(), angles.sin()], dim=1) @ aside
    rows = normalize((tastes[:, None] + spokes).flatten(0, 1), dim=1)
    other = SparseAutoencoder(sae.d_model, len(rows), Relu())
    state = {name: torch.zeros_like(tensor) for name, tensor in other.state_dict().items()}
    other.load_state_dict({**state, "encoder_weight": rows, "decoder_weight": rows.clone(), "scale": torch.tensor(1.0)})
    config = save_sae(other, folder / "split")
    encode_store(world.files.manifest, config, folder / "codes", "cpu")
    planted = {class_id: 3 * latent for class_id, latent in world.planted.items()}
    files = replace(world.files, sae=str(config), codes=str(folder / "codes" / "manifest.json"))
    return replace(world, files=files, planted=planted)


def test_where_a_class_is_spread_over_latents_a_set_reaches_what_one_cannot(worlds, tmp_path):
    world = split_world(worlds["readout"], tmp_path)
    table, summary = run(world, tmp_path / "sets", replace(SETTINGS, images=16, verified=75))
    for row in summary["classes"]:
        own = set(range(world.planted[row["class_id"]], world.planted[row["class_id"]] + 3))
        assert len(own & set(row["latents"])) >= 2
    means = table.filter(pl.col("class_id").is_null(), edit=INSERT, arm=SET, scale=1.0)
    one, three = (means.filter(n_latents=size)["share"].item() for size in (1, 3))
    assert three > one
    assert three > 0.5


def test_ranks_treat_all_dictionaries_alike(worlds):
    world = worlds["classification"]
    edits = InterventionSettings(batch_size=16)
    found = Opened.of(world.task, world.files, edits, world.layer, CPU, 0)
    found.task.look(found.task.store.image_ids(MEASURED))
    runner, selection = Runner(found.task, found.sae, edits, 0), found.selection
    slopes = class_slopes(selection, 0, 6)
    dictionaries = [found.sae, *untrained_dictionaries(found.sae, selection.k, 3, 0, selection.middle)]
    sets = [chosen_set(slopes, proposed(one, slopes, 8), 3, -1.0) for one in dictionaries]
    counts = found.task.pictures(Target(1, "class 1", sets[0].latents, 1.0), SUPPRESS, 8, 0)
    effects = ranked_among_untrained(runner, counts.only(np.arange(len(counts.images))), sets, -1.0)
    order = [2, 0, 3, 1]
    turned = ranked_among_untrained(
        runner, counts.only(np.arange(len(counts.images))), [sets[place] for place in order], -1.0
    )
    np.testing.assert_allclose(turned, effects[order], atol=1e-6)
    assert len(set(effects.tolist())) == 4
    # A dictionary without a set is the last.
    assert ranked_among_untrained(runner, counts.only(np.arange(4)), [*sets, None], -1.0)[-1] == -np.inf


def by_hand(world: World, folder: Path, settings: AtlasSettings, **row):
    """Sets from an atlas of one row."""
    empty = dict.fromkeys(("effect", "effect_low", "effect_high", "p", "verified"))
    rows = [{"class_id": next(iter(world.planted)), "latent": 0, "estimate": -0.1, "rank_estimate": 0, **empty, **row}]
    types = {"effect": pl.Float64, "effect_low": pl.Float64, "effect_high": pl.Float64, "p": pl.Float64}
    pl.DataFrame(rows, schema_overrides={**types, "verified": pl.Boolean}).write_parquet(folder / "effects.parquet")
    inputs = {name: file_sha256(Path(name)) for name in (world.files.sae, world.files.codes)}
    written = {"task": world.task, "layer": world.layer, "provenance": {"inputs": inputs}}
    write_json(folder / "atlas.json", written)
    return run_sets(world.task, world.files, settings, world.layer, folder, device="cpu")


def test_an_atlas_of_another_task_or_none_is_refused(worlds, tmp_path):
    world = worlds["readout"]
    with pytest.raises(DataError, match=r"effects\.parquet: no such table; make it with: visae atlas"):
        run_sets(world.task, world.files, SETTINGS, world.layer, tmp_path, device="cpu")
    with pytest.raises(DataError, match=r"effects\.parquet: it has classes \[99\]"):
        by_hand(worlds["readout"], tmp_path, SETTINGS, class_id=99)
    with pytest.raises(DataError, match=r"atlas\.json: it was not made from .*config\.json: it is of another SAE"):
        run_sets(world.task, replace(world.files, sae=worlds["segmentation"].files.sae), SETTINGS, 0, tmp_path)
    with pytest.raises(DataError, match=r"sets: sizes: it is empty"):
        by_hand(world, tmp_path, replace(SETTINGS, sets=replace(SETS, sizes=[])))


def test_classes_without_a_proven_latent_are_named_with_the_reason(worlds, tmp_path):
    summary = by_hand(worlds["readout"], tmp_path, replace(SETTINGS, sets=replace(SETS, candidates=0)))
    assert summary["classes"] == []
    assert {row["reason"] for row in summary["not_measurable"]} == {"no latent is verified that supports it"}
    assert figure_of_sets.draw(figure_of_sets.data(pl.read_parquet(tmp_path / "sets.parquet")), FigureSettings())


def test_what_the_atlas_left_out_is_verified_for_the_set(worlds, tmp_path):
    world = worlds["readout"]
    class_id, planted = next(iter(world.planted.items()))
    summary = by_hand(world, tmp_path, SETTINGS, latent=planted, estimate=-1.0, rank_estimate=None)
    assert summary["n_edited"] == 1
    assert {(row["class_id"], *row["latents"]) for row in summary["classes"]} == {(class_id, planted)}


def test_figure_and_headline_show_what_was_found(done):
    table, summary, folder = done
    figure = figure_of_sets.draw(figure_of_sets.data(table), FigureSettings())
    edits = {(row["edit"], row["scale"]) for row in summary["classes"]}
    assert len(figure.axes) == len(edits) + 1
    lines = sets_lines(folder / "sets.json")
    assert len(lines) == 1 + len(edits) + len(summary["classes"])
    assert all("of the direction's" in line for line in lines[1:])
    assert sets_lines(folder / "nothing.json") == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sizes": [0]}, r"sizes: \[0\]: each must be 1 or more"),
        ({"scales": [1.0]}, r"scales: \[1.0\]: each must be 0 or below"),
        ({"insert_scales": [0.0]}, r"insert_scales: \[0.0\]: each must be above 0"),
    ],
)
def test_doses_that_mean_nothing_are_refused_by_their_key(wrong, said):
    settings = load_config(Path(__file__).parents[2] / "config" / "config.yaml")
    assert not list(unresolved(settings))
    atlas = replace(settings.atlas, sets=replace(settings.atlas.sets, **wrong))
    (problem,) = unresolved(replace(settings, atlas=atlas))
    assert re.match(f"atlas: sets: {said}", problem)
