"""One battery over all tasks, and a toy that is added as CONTRIBUTING says: its module, and an entry."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from planted_for_tests import SETTINGS
from tasks_for_tests import CPU, FIRST, TOY, World, make_worlds

from visae.arms.changes import SetLatents
from visae.config.interventions import ARMS
from visae.config.parse import parse_config
from visae.config.settings import FaithfulnessSettings, FigureSettings
from visae.config.tasks import TASKS
from visae.edits.edit import with_rows
from visae.errors import ConfigError
from visae.experiments.experiment import FIT, MEASURED
from visae.experiments.faithfulness import measure_faithfulness
from visae.experiments.runner import Runner
from visae.experiments.tables import ABOUT, measured_columns
from visae.figures import arms as figure_of_arms
from visae.figures import doses as figure_of_doses
from visae.figures import faithfulness as figure_of_faithfulness
from visae.heads.bootstrap import class_mean
from visae.layout import StudyPaths
from visae.tasks.counts import COMMON, INSERT, SUPPRESS, Target
from visae.tasks.members import open_task
from visae.vision.model import HookPoint

ALL = (*TASKS, "threshold")
TABLES = ("arms", "becomes", "doses", "untrained", "examples")


@pytest.fixture(scope="module", autouse=True)
def toy():
    """Add the toy: all that it takes beside its module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "threshold", TOY)
        yield


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, World]:
    return make_worlds(tmp_path_factory.mktemp("worlds"))


@pytest.fixture(scope="module", params=ALL)
def world(request, worlds) -> World:
    return worlds[request.param]


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    """Tables of the world's experiment by name, and its summary."""
    output = tmp_path_factory.mktemp("done")
    summary = world.run(output)
    return {name: pl.read_parquet(output / f"{name}.parquet") for name in TABLES}, summary


def counted(world: World, way):
    """The task after it looked, and the pictures of one class that has some, edited by its latent and by nothing."""
    task = world.opened()
    task.look(task.store.image_ids(MEASURED))
    runner = Runner(task, world.sae(), SETTINGS, 0)
    for class_id, latent in world.planted.items():
        counts = runner.pictures(Target(class_id, task.names[class_id], (latent,), 1.0), way)
        if len(counts.images):
            break
    draws = {"automatic": [SetLatents((latent,), (4.0,))], "random_latent": [SetLatents((2,), (4.0,))]}
    runner.run(counts, draws, (-1.0,))
    return task, counts


def test_the_battery_runs_over_every_task_there_is(worlds):
    assert set(worlds) == set(TASKS)


def test_answers_to_resumed_tokens_are_those_of_the_uninterrupted_network(world):
    if world.model() is None:
        tokens = world.opened().store.read(range(3), "all")
        expected = tokens.mean(dim=1) @ world.opened().weight.T
        assert torch.allclose(world.opened().logits(tokens), expected)
        return
    model, task = world.model(), world.opened()
    pixels = torch.randint(0, 256, (2, 3, *model.card.image_size), dtype=torch.uint8, generator=torch.manual_seed(0))
    point = HookPoint(world.layer)
    tokens = model.read(pixels, [point])[point]
    assert torch.equal(task.logits(tokens), task.answers(model(pixels)))


def test_slopes_are_finite_differences_of_log_odds(world):
    task = world.opened()
    tokens = task.store.read(range(3), "all")
    for number in range(len(task.classes)):
        rows, slopes = task.slopes(tokens.clone(), number)
        assert torch.equal(rows, tokens[:, task.n_prefix :])
        along = slopes / slopes.norm()
        step = 1e-2
        # float32 keeps seven digits of odds of some tens, of which a step changes the third.
        odds = [
            task.log_odds(
                task.logits(torch.cat([tokens[:, : task.n_prefix], rows + sign * step * along], dim=1)).double(), number
            ).sum()
            for sign in (1, -1)
        ]
        assert float((odds[0] - odds[1]) / (2 * step)) == pytest.approx(float(slopes.norm()), rel=0.02)


@pytest.mark.parametrize("way", [SUPPRESS, INSERT])
def test_no_edit_changes_exactly_nothing_in_every_measure(world, way):
    task, counts = counted(world, way)
    none = next(key for key in counts.edits if key[0] == "none")
    shares = task.shares(way, task.sums(counts, none))
    assert list(shares) == list(task.measures)
    for measure in (*COMMON, *(m for m in task.measures if m.endswith(("_change", "mass_moved", "selectivity")))):
        assert np.isnan(shares[measure]) or shares[measure] == 0, measure
    assert "kept" not in shares or shares["kept"] == 1
    for measure in (m for m in task.measures if m.endswith("_before")):
        assert shares[measure] == shares[measure.replace("_before", "_after")]


@pytest.mark.parametrize("way", [SUPPRESS, INSERT])
def test_shares_with_weights_of_one_are_those_without(world, way):
    task, counts = counted(world, way)
    for key in counts.edits:
        plain = task.shares(way, task.sums(counts, key))
        weighted = task.shares(way, task.sums(counts, key, np.ones((2, len(task.measured)))))
        for measure, value in plain.items():
            # Sums of the same numbers in another order.
            np.testing.assert_allclose(weighted[measure], [value] * 2, rtol=1e-12, atol=1e-12)


def test_a_picture_that_counts_twice_counts_as_two(world):
    task, counts = counted(world, SUPPRESS)
    key = ("automatic", "natural", -1.0)
    weights = np.ones((1, len(task.measured)))
    weights[0, counts.images[0]] = 0
    once = task.sums(counts, key)
    without, twice = task.sums(counts, key, weights), task.sums(counts, key, 2 - weights)
    for name, value in once.items():
        np.testing.assert_allclose(twice[name][0] - value, value - without[name][0], atol=1e-9)


def test_pooled_shares_are_those_of_classes_weighted_by_their_units(done):
    table = done[0]["arms"].filter(edit="suppress")
    for key, rows in table.group_by("arm", "size", "scale"):
        each = rows.drop_nulls("class_id")
        pooled = rows.filter(class_name="pooled").row(0, named=True)
        expected = (each["target_change"] * each["n_target"]).sum() / each["n_target"].sum()
        assert pooled["target_change"] == pytest.approx(expected), key
        mean = rows.filter(class_name="mean").row(0, named=True)
        assert mean["target_change"] == pytest.approx(class_mean(each["target_change"].to_numpy()))


def test_every_task_has_the_common_columns_first_and_its_own_last(world, done):
    common = [*ABOUT, "latents", *measured_columns(COMMON), "p", "q", "n_target", "n_other", "n_images"]
    added = list(measured_columns(world.opened().added))
    arms, doses = done[0]["arms"].columns, done[0]["doses"].columns
    assert arms == [*common, *added]
    assert set(doses[: len(doses) - len(added)]).isdisjoint(added)
    assert doses[len(doses) - len(added) :] == added
    assert done[0]["becomes"].columns == [*ABOUT, "class_name_after", "share", "probability_change"]


def test_suppressing_and_inserting_the_planted_latents_beats_the_controls(world, done):
    arms, summary = done[0]["arms"], done[1]
    assert {c["id"]: c["latents"] for c in summary["classes"]} == {k: [v] for k, v in world.planted.items()}
    mean = arms.filter(class_name="mean")
    assert set(mean["edit"]) == {"suppress", "insert"}
    assert set(mean["arm"]) >= set(ARMS) - {"manual", "latent_by_auc", "latent_by_gradient"}
    for edit, scale in (("suppress", -2.0), ("insert", SETTINGS.insert_scale)):
        of_edit = mean.filter(edit=edit, scale=scale)
        effect = world.opened().effect[edit]
        own = of_edit.filter(arm="automatic")[effect].item()
        random = of_edit.filter(arm="random_vector", size="matched")[effect].item()
        assert own > random, edit


def test_doses_untrained_dictionaries_and_examples_are_there(world, done):
    tables, summary = done
    assert set(tables["doses"]["arm"]) >= {"random_vector", "random_latent", "automatic"}
    at_rest = tables["doses"].filter(arm="automatic", class_name="mean", unit="largest")
    assert at_rest["dose"].to_list() == SETTINGS.doses
    assert set(tables["untrained"]["class_id"]) == {c["id"] for c in summary["classes"] if c["pictures"]}
    assert set(tables["untrained"]["dictionary"]) == set(range(SETTINGS.untrained + 1))
    assert all(0 < c["p_untrained"] <= 1 for c in summary["classes"] if c["pictures"])
    examples = tables["examples"]
    assert set(examples["edit"]) == {"suppress", "insert"}
    assert (examples["before"].list.len() == examples["after"].list.len()).all()
    task = world.opened()
    rows = examples.filter(edit="suppress", arm="automatic", scale=-2.0)
    for row in rows.head(3).iter_rows(named=True):
        tokens = task.store.read(range(row["image_id"], row["image_id"] + 1), "all")
        assert row["before"] == pytest.approx(task.example(task.read(tokens)[0]), rel=1e-5)
        assert row["edited"]


def test_figures_draw_every_task(world, done):
    tables, settings = done[0], FigureSettings()
    arms = figure_of_arms.draw(figure_of_arms.data(tables["arms"]), settings, world.task)
    doses = figure_of_doses.draw(figure_of_doses.data(tables["doses"]), settings, world.task)
    for figure in (arms, doses):
        said = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert {TASKS[world.task].target, TASKS[world.task].other} <= set(said)


def test_faithfulness_is_measured_for_every_task(world, tmp_path):
    found = measure_faithfulness(
        {world.task: world.files},
        world.files.sae,
        FaithfulnessSettings(bootstrap=20),
        world.layer,
        tmp_path,
        device="cpu",
    )
    for name, quantities in found["measures"].items():
        assert quantities["as_is"]["value"] is not None, name
        assert name.startswith(world.task) == (world.task not in ("segmentation", "classification"))
    table = pl.read_parquet(tmp_path / "faithfulness.parquet")
    assert set(table["measure"]) == set(found["measures"])
    figure = figure_of_faithfulness.draw(figure_of_faithfulness.data(table), FigureSettings())
    assert len(figure.axes) == len(found["measures"])


def test_a_run_repeats_to_the_bit_and_depends_on_its_seed(world, done, tmp_path):
    settings = dataclasses.replace(SETTINGS, untrained=2)
    for name, seed in (("same", 0), ("other", 1)):
        world.run(tmp_path / name, settings, seed)
    for name in ("arms", "becomes", "examples", "doses"):
        assert pl.read_parquet(tmp_path / "same" / f"{name}.parquet").equals(done[0][name]), name
    other = pl.read_parquet(tmp_path / "other" / "arms.parquet")
    assert not other.equals(done[0]["arms"])
    # What nothing random decides stays.
    columns = ["class_id", "scale", "target_change", "other_change"]
    kept = [t.filter(arm="automatic").drop_nulls("class_id").select(columns) for t in (other, done[0]["arms"])]
    assert kept[0].equals(kept[1])


def test_a_class_that_no_unit_is_predicted_as_is_not_measurable(world, done, monkeypatch):
    """In segmentation no patch, of a readout no list; pictures are edited whatever they are taken for."""
    task = world.opened()
    class_id, latent = next(iter(world.planted.items()))
    original = type(task).answers

    def never(self, final):
        logits = original(self, final)
        own = self.of_class == self.numbers[class_id] if world.task == "readout" else self.numbers[class_id]
        logits = logits.clone()
        logits[:, own] = logits[:, own] - 1e4
        return logits

    monkeypatch.setattr(type(task), "answers", never)
    task.look(task.store.image_ids(MEASURED))
    target = Target(class_id, task.names[class_id], (latent,), 1.0)
    counts = task.pictures(target, SUPPRESS, None, 0)
    if task.unit == "picture":
        assert counts.n_target.sum() == (task.known == class_id).sum() > 0
    else:
        assert len(counts.images) == 0
        assert "none of" in task.why_not(target, class_id)


def test_one_patch_that_is_edited_is_the_only_one_that_changes(world):
    """Tokens that a task reads are the store's, prefix first; edited rows are patches."""
    task = world.opened()
    ids, tokens = next(task.batches([1, 2, 0]))
    assert ids.tolist() == [1, 2, 0]
    assert torch.equal(tokens, torch.cat([task.store.read(range(i, i + 1), "all") for i in (1, 2, 0)]))
    patches = torch.zeros(3, tokens.shape[1] - task.n_prefix, dtype=torch.bool)
    patches[0, -1] = True
    changed = with_rows(tokens, patches, torch.zeros(1, tokens.shape[2]))
    assert (changed != tokens).any(dim=2).nonzero().tolist() == [[0, tokens.shape[1] - 1]]


def test_tasks_that_are_not_there_and_models_that_are_missing_are_refused(world):
    with pytest.raises(ConfigError, match="'depth' is none of segmentation, classification, zero_shot, readout"):
        open_task("depth", world.files, None, 0, CPU)
    if world.model() is not None:
        with pytest.raises(ConfigError, match=f"{world.task}: it needs a model"):
            open_task(world.task, world.files, None, 0, CPU)


def test_the_planted_users_are_what_their_truth_says(worlds):
    task = worlds["readout"].opened()
    task.look(task.store.image_ids(MEASURED))
    assert task.lists.shape == (40, FIRST)
    assert len(task.store.image_ids(FIT)) == 120


def configured(**study):
    values = {
        "datasets": {"scenes": {"kind": "scenes"}, "words": {"kind": "activations", "root": "words"}},
        "models": {"tiny": {"architecture": "test_vit", "weights": "random", "image_size": 64}},
        "saes": {"topk": {"variant": "topk", "k": 4}},
    }
    study = {"layer": 4, "train_on": "scenes", "saes": ["topk"], "describe": ["scenes"], "model": "tiny", **study}
    return parse_config({**values, "studies": {"mine": study}}).studies["mine"]


def test_a_study_names_an_added_task_and_where_its_readout_lies():
    study = configured(added_tasks={"threshold": {"dataset": "scenes", "file": "mine.safetensors"}})
    assert study.tasks == {"threshold": "scenes"}
    paths = StudyPaths(Path("results"), "mine", study)
    assert paths.task("threshold")["readout"] == "mine.safetensors"
    assert "scores" not in paths.experiment("threshold", "topk")


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"added_tasks": {"depth": {"dataset": "scenes", "file": "a"}}}, "added_tasks: 'depth' is not in TASKS"),
        ({"added_tasks": {"readout": {"dataset": "scenes", "file": "a"}}}, "added_tasks: 'readout' is .* a key of its"),
        ({"added_tasks": {"threshold": {"dataset": "gone"}}}, "threshold: 'gone' is not in datasets"),
        ({"added_tasks": {"threshold": {"dataset": "scenes"}}}, "threshold: key 'file' is missing"),
        ({"readout": {"dataset": "scenes"}}, "readout: 'scenes' is of kind scenes; it reads kinds activations and"),
        (
            {"train_on": "words", "describe": ["words"], "readout": {"dataset": "words"}},
            "readout: key 'weights' is missing",
        ),
        (
            {"describe": ["words", "scenes"], "zero_shot": {"dataset": "words", "vectors": "a"}},
            "zero_shot: 'words' is of kind activations, which has no labels",
        ),
    ],
)
def test_tasks_that_a_study_cannot_have_are_refused_by_name(study, message):
    with pytest.raises(ConfigError, match=message):
        configured(**study)
