"""What classification experiments find where the truth is planted, and on a ViT with random weights."""

import numpy as np
import polars as pl
import pytest
import torch
from planted_for_tests import LAST, MIDDLE, N_CLASSES, SETTINGS, make_planted, run_classification

from visae.config.interventions import ARMS
from visae.config.settings import FigureSettings
from visae.figures import probabilities as figure_of_edits
from visae.figures.class_strips import class_strips
from visae.tasks.counts import ClassCounts, EditCounts, Target
from visae.tasks.pictures import PictureTask, picture_measures
from visae.tasks.task import central_quarter


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return make_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def edits(planted, tmp_path_factory):
    output = tmp_path_factory.mktemp("edits")
    summary = run_classification(planted, output)
    return output, pl.read_parquet(output / "arms.parquet"), summary


def test_suppressing_the_planted_latent_takes_the_class_from_the_probe(edits):
    _, table, summary = edits
    assert [c["latents"] for c in summary["classes"]] == [[10], [11], [12]]
    for class_id in (1, 2, 3):
        row = table.filter(edit="suppress", arm="automatic", class_id=class_id, scale=-2.0).row(0, named=True)
        assert row["probability_before"] > 0.8
        assert row["probability_change"] < -0.7
        assert (row["top1_before"], row["top1_after"]) == (1.0, 0.0)
        assert (row["n_images"], row["n_other"], row["latents"]) == (3, 6, [9 + class_id])
        assert row["mass_moved"] == pytest.approx(-row["probability_change"])
        assert row["probability_selectivity"] == pytest.approx(-row["probability_change"] - row["other_mass_moved"])
        assert 0 < row["other_mass_moved"] < 0.3  # the class is on three patches of some other pictures
        assert row["other_accuracy_after"] == row["other_accuracy_before"] == 1.0
        assert row["probability_change"] == pytest.approx(row["probability_after"] - row["probability_before"])
        random = table.filter(edit="suppress", arm="random_latent", size="natural", class_id=class_id, scale=0.0)
        random = random.row(0, named=True)
        assert abs(random["probability_change"]) < 0.05


def test_inserting_the_planted_latent_raises_its_class(edits):
    _, table, _ = edits
    for class_id in (1, 2, 3):
        inserted = table.filter(edit="insert", arm="automatic", class_id=class_id).row(0, named=True)
        control = table.filter(edit="insert", arm="random_latent", size="matched", class_id=class_id).row(0, named=True)
        assert inserted["probability_change"] > 10 * max(control["probability_change"], 1e-6)
        assert inserted["n_images"] == 6
        assert inserted["scale"] == SETTINGS.insert_scale
        assert inserted["top1_before"] == 0.0


@pytest.mark.parametrize("layer", [MIDDLE, LAST])
def test_no_edit_leaves_every_probability(planted, tmp_path, layer):
    run_classification(planted, tmp_path, layer=layer)
    none = pl.read_parquet(tmp_path / "arms.parquet").filter(arm="none")
    for column in ("probability_change", "probability_change_low", "probability_change_high", "mass_moved"):
        assert none[column].to_list() == [0.0] * len(none)


def test_every_control_is_run_where_classes_are_suppressed_and_inserted(edits):
    _, table, _ = edits
    controls = set(ARMS) - {"none", "automatic", "manual", "latent_by_auc"}
    suppressed = table.filter(edit="suppress", class_id=2, scale=-2.0)
    assert set(suppressed.select("arm", "size").rows()) == (
        {(arm, size) for arm in controls for size in ("natural", "matched")}
        | {(a, "natural") for a in ("none", "automatic")}
    )
    inserted = table.filter(edit="insert", class_id=2)
    assert set(inserted.filter(pl.col("arm").is_in(list(controls)))["size"]) == {"matched"}
    by_gradient = table.filter(edit="suppress", arm="latent_by_gradient", size="natural", scale=0.0)
    assert by_gradient.drop_nulls("class_id")["latents"].to_list() == [[10], [11], [12]]
    random = table.filter(edit="suppress", class_name="mean", arm="random_latent", size="natural", scale=-2.0)
    assert random["p"].item() <= 0.05
    tested = table.drop_nulls("q")
    assert (tested["q"] >= tested["p"] - 1e-12).all()


def test_probability_that_a_class_loses_goes_to_named_classes(edits):
    output, table, _ = edits
    moved = pl.read_parquet(output / "becomes.parquet")
    of_class = moved.filter(edit="suppress", arm="automatic", scale=-2.0, class_name="class 2")
    lost = table.filter(edit="suppress", arm="automatic", scale=-2.0, class_id=2)["probability_change"].item()
    assert of_class.filter(class_name_after="class 2")["probability_change"].item() == pytest.approx(lost)
    assert of_class["probability_change"].sum() == pytest.approx(0, abs=1e-6)
    assert of_class.sort("probability_change")["class_name_after"].to_list()[0] == "class 2"


def test_examples_of_classification_are_what_strips_show(planted, edits):
    output, _, _ = edits
    examples = pl.read_parquet(output / "examples.parquet")
    answers = [f"class {c + 1}" for c in range(N_CLASSES)]
    strips = class_strips(examples, "picture", answers, {}, {11: "the planted one"})
    assert len(strips) == N_CLASSES
    shown = {strip.latents[0]: strip for strip in strips}[11]
    assert shown.title == "class 2: latent 11 “the planted one” set to −2 × its largest value on the outlined patches"
    assert list(shown.edited) == np.flatnonzero(planted.classes[shown.image_id] == 1).tolist()
    first = shown.outcome.row(0, named=True)
    assert first["class_name"] == "class 2"
    assert first["before"] > 0.8
    assert first["after"] < 0.1
    assert abs(first["control"] - first["before"]) < 0.5


def test_the_figure_of_classification_draws_the_means(edits):
    _, table, _ = edits
    figure = figure_of_edits.draw(figure_of_edits.data(table), FigureSettings())
    assert len(figure.axes) == 2 * 3  # two scales of suppression, and insertion
    mean = table.filter(edit="suppress", scale=-2.0, class_name="mean", size="natural")
    drawn = sorted(bar.get_width() for bar in figure.axes[0].patches)
    one_before = mean.filter(arm="none")["probability_before"].to_list() * mean.height
    np.testing.assert_allclose(drawn, sorted([*one_before, *mean["probability_after"]]))
    assert "−2 × its largest value" in figure.axes[0].get_title(loc="left")


def test_measures_of_classification_are_means_over_the_right_pictures():
    rng = np.random.default_rng(0)
    before, after = rng.dirichlet(np.ones(4), 6), rng.dirichlet(np.ones(4), 6)
    truth = torch.tensor([1, 1, 0, 2, 3, -1])
    values = picture_measures(torch.from_numpy(before), torch.from_numpy(after), 1, truth)
    own, key = np.array([1, 1, 0, 0, 0, 0]), ("automatic", "natural", 0.0)
    changed = (before.argmax(axis=1) != after.argmax(axis=1)).astype(float)
    task = PictureTask.__new__(_Answers)

    def found_of(way, n_target):
        counts = ClassCounts(Target(5, "a", (0,), 1.0), way, np.arange(6), n_target, 1 - n_target, truth.numpy())
        counts.edits[key] = EditCounts(np.column_stack([values, changed]), np.zeros((2, 4)))
        return task.shares(way, task.sums(counts, key))

    found = found_of("suppress", own)
    moved = np.abs(after - before).sum(axis=1) / 2
    assert found["probability_change"] == pytest.approx((after - before)[:2, 1].mean())
    assert found["top1_after"] == pytest.approx((after[:2].argmax(axis=1) == 1).mean())
    assert found["other_mass_moved"] == pytest.approx(moved[2:].mean())
    assert found["other_accuracy_before"] == pytest.approx((before[2:].argmax(axis=1) == [0, 2, 3, -1]).mean())
    true = [after[2, 0] - before[2, 0], after[3, 2] - before[3, 2], after[4, 3] - before[4, 3], 0]
    assert found["other_probability_change"] == pytest.approx(np.mean(true))
    assert found["probability_selectivity"] == pytest.approx(-(after - before)[:2, 1].mean() - moved[2:].mean())
    assert found["target_change"] == pytest.approx(changed[:2].mean())
    assert found["selectivity"] == pytest.approx(changed[:2].mean() - changed[2:].mean())
    found = found_of("insert", np.ones(6, dtype=int))
    assert found["probability_change"] == pytest.approx((after - before)[:, 1].mean())
    assert np.isnan(found["probability_selectivity"])
    assert found["other_change"] == 0  # where a class is inserted there are no other pictures


class _Answers(PictureTask):
    """A task whose sums alone are asked for."""

    name = "test"

    def answers(self, final):
        return final


@pytest.mark.parametrize(("grid", "size"), [((16, 16), 64), ((4, 4), 4), ((1, 2), 1), ((7, 7), 9)])
def test_the_central_quarter_is_a_block_in_the_middle(grid, size):
    block = central_quarter(grid).view(grid)
    assert int(block.sum()) == size
    rows, columns = block.nonzero().T
    assert abs((rows.min() + rows.max()) / 2 - (grid[0] - 1) / 2) <= 0.5
    assert abs((columns.min() + columns.max()) / 2 - (grid[1] - 1) / 2) <= 0.5
