"""What an SAE adds, on worlds whose causes are planted: dictionaries are treated alike, and the true one is found."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tasks_for_tests import World, make_worlds

from visae.activations.store import ActivationStore
from visae.arms.dictionaries import untrained_dictionaries
from visae.arms.of_pictures import pictures_as_patches
from visae.config.settings import FigureSettings, FrozenDecoderSettings, GainSettings, TopKSettings
from visae.config.tasks import TASKS
from visae.features.codes import read_codes_manifest
from visae.features.resampling import benjamini_hochberg
from visae.figures import gain as figure_of_gain
from visae.files import read_json, write_json
from visae.gain.candidates import thinned
from visae.gain.compare import SCHEMA, run_gain
from visae.gain.headline import gain_lines
from visae.gain.kinds import FROZEN, TESTED, UNTRAINED
from visae.gain.lengths import first_halves, half_lengths
from visae.gain.ranks import goodness, over_classes, ranked
from visae.gain.train import base_settings, train_compared
from visae.sae import load_sae, save_sae
from visae.sae.initial import initial_sae

pytestmark = pytest.mark.slow

SETTINGS = GainSettings(
    untrained=39, frozen=2, images=6, bootstrap=50, batch_size=64, budget=6, budget_draws=1, budget_images=6
)
K = 2


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, World]:
    return make_worlds(tmp_path_factory.mktemp("worlds"))


def with_training(world: World, folder) -> str:
    """The world's SAE as if it had been trained here, so that others can be trained as it was."""
    settings = TopKSettings(variant="topk", k=K, steps=20, batch_size=64, encoder_start="unit")
    config = save_sae(world.sae(), folder, settings=asdict(settings))
    write_json(folder / "summary.json", {"l0": float(K), "tokens": "patches"})
    return str(config)


@pytest.fixture(scope="module")
def compared(worlds, tmp_path_factory):
    """Dictionaries to compare the planted SAE of pictures with."""
    folder = tmp_path_factory.mktemp("compared")
    config = with_training(worlds["segmentation"], folder / "sae")
    manifests = [Path(worlds["segmentation"].files.manifest)]
    train_compared(Path(config), manifests, SETTINGS, folder / "made", folder / "work", device="cpu")
    return folder / "made" / "manifest.json", config


def run(world: World, compared, output, settings: GainSettings = SETTINGS, **files: str):
    given = replace(world.files, **files)
    summary = run_gain(world.task, given, compared, settings, world.layer, output, device="cpu")
    tables = (pl.read_parquet(output / f"{name}.parquet") for name in ("gain", "gain_tests", "discoveries"))
    return summary, *tables


@pytest.fixture(scope="module", params=TASKS)
def done(request, worlds, compared, tmp_path_factory):
    world, folder = worlds[request.param], tmp_path_factory.mktemp("gain")
    made = compared[0]
    if request.param == "readout":  # its vectors are not those of pictures
        made = folder / "none.json"
        write_json(made, {"dictionaries": []})
    return world, folder, *run(world, made, folder)


def test_planted_directions_turn_half_of_the_targets_sooner_than_directions_that_learned_nothing(done):
    world, _, _, table, tests, _ = done
    rule = table["rule"][0]
    own = tests.filter(kind=UNTRAINED, measure="length_for_half", rule=rule)
    assert set(own["class_id"]) == set(world.planted)
    assert (own["tested"] < own["median"].fill_null(np.inf)).all()
    # What a readout after another block of the network reads of a class is not its planted direction alone.
    assert (own["p"] <= 0.2).all()
    if world.task == "classification":
        assert (own["p"] == 1 / 40).all()
        assert own["significant"].all()
    chosen = table.filter(kind=TESTED, rule=rule)
    assert dict(chosen.select("class_id", "latent").iter_rows()) == world.planted


def test_the_table_has_every_dictionary_in_every_class_and_lengths_in_their_intervals(done):
    world, folder, summary, table, _, discoveries = done
    assert dict(table.schema) == SCHEMA
    n_made = 4 if (folder / "gain.json").is_file() and world.task != "readout" else 0
    assert len(table) == (1 + 39 + 1 + n_made) * len(world.planted) * len(summary["rules"])
    assert table.select("class_id", "rule", "kind", "number").is_unique().all()
    tested = table.filter(kind=TESTED)
    assert (tested["length_for_half_low"] <= tested["length_for_half"] + 1e-9).all()
    assert (tested["length_for_half_high"].fill_null(np.inf) >= tested["length_for_half"] - 1e-9).all()
    # One length for all.
    assert table.group_by("class_id", "rule").agg(pl.col("equal_length").n_unique())["equal_length"].max() == 1
    assert (discoveries["replicated"] <= discoveries["verified"]).all()
    assert (discoveries["verified"] <= discoveries["proposed"]).all()
    assert gain_lines(folder / "gain.json")[0].startswith("  What the SAE adds")


def test_the_planted_sae_discovers_more_with_the_same_budget_than_one_that_learned_nothing(worlds, compared, tmp_path):
    settings = replace(SETTINGS, untrained=1, budget_images=9, budget=3)
    _, _, _, found = run(worlds["segmentation"], compared[0], tmp_path, settings)
    effects = dict(found.select("kind", "effect").iter_rows())
    assert effects[TESTED] > 2 * effects[UNTRAINED]


def test_a_tested_dictionary_is_treated_as_one_of_the_untrained(worlds, compared, tmp_path):
    """The third of the untrained ones, tested: it stands in the table twice, with the same numbers."""
    world = worlds["segmentation"]
    codes = read_codes_manifest(world.files.codes)
    k = round(codes["rows"] / (codes["n_images"] * 16))
    own = save_sae(list(untrained_dictionaries(world.sae(), k, 3, 0))[2], tmp_path / "sae")
    settings = replace(SETTINGS, untrained=5, budget=0)
    _, table, tests, _ = run(world, compared[0], tmp_path, settings, sae=str(own))
    for (_, _), rows in table.filter(rule="estimate").group_by("rule", "class_id"):
        both = [rows.filter(kind=kind, number=number) for kind, number in ((TESTED, 0), (UNTRAINED, 2))]
        told = ["latent", "length_for_half", "selectivity", "natural_selectivity", "natural_length"]
        assert both[0].select(told).equals(both[1].select(told))
    # It is no better than itself, so it never comes first.
    assert (tests.filter(kind=UNTRAINED)["p"] >= 2 / 6 - 1e-9).all()


def test_untrained_saes_are_significant_in_no_more_classes_than_the_nominal_rate(worlds, compared, tmp_path):
    """Each of 60 untrained dictionaries in turn as the tested one, beside the others: 60 studies of no effect."""
    settings = replace(SETTINGS, untrained=60, rules=["estimate"], budget=0, bootstrap=10)
    _, table, _, _ = run(worlds["segmentation"], compared[0], tmp_path, settings)
    drawn = table.filter(kind=UNTRAINED)
    found, single = [], []
    for number in range(60):
        own = pl.when(number=number).then(pl.lit(TESTED)).otherwise("kind").alias("kind")
        tests = ranked(drawn.with_columns(own)).filter(measure="length_for_half", kind=UNTRAINED)
        found.append(tests["significant"].any())
        single.append((tests["p"] <= 0.05).mean())
    assert drawn["length_for_half"].n_unique() > 60
    assert np.mean(single) <= 0.05
    # The family-wise rate of three classes under no effect is that of false discoveries.
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 60)


def test_frozen_decoders_are_trained_as_the_sae_was_and_differ_in_their_rows(compared, worlds):
    manifest, config = compared
    listed = read_json(manifest)
    assert [one["kind"] for one in listed["dictionaries"]] == [FROZEN, FROZEN, "pca", "kmeans"]
    assert not listed["left_out"]
    saes = [load_sae(manifest.parent / one["folder"]) for one in listed["dictionaries"][:2]]
    assert base_settings(Path(config)).expansion == 1  # no narrower than the activations, as the planted SAE is
    for sae in saes:
        assert sae.variant.k == K
        norms = sae.decoder_weight.norm(dim=1)
        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)
        # The encoder has left the place where it began.
        assert (sae.encoder_weight - sae.decoder_weight).abs().max() > 1e-4
    assert (saes[0].decoder_weight - saes[1].decoder_weight).abs().max() > 0.1
    told = read_json(manifest.parent / "frozen-0" / "config.json")["settings"]
    assert (told["steps"], told["batch_size"], told["encoder_start"]) == (20, 64, "unit")


def test_rows_that_are_drawn_once_stay_what_they_are():
    """Which rows a seed and a draw give is a public promise: a study that is run again compares with the same."""
    sample = torch.randn(300, 8, generator=torch.manual_seed(0))
    settings = FrozenDecoderSettings(variant="frozen_decoder", expansion=2, k=2)
    first, again, other = (initial_sae(replace(settings, drawn=drawn), sample, 0).decoder_weight for drawn in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (lambda length: length / 4, 2.0),
        (lambda length: min(1.0, length * 10), 0.05),
        (lambda length: 0.4, np.inf),
        (lambda length: float(length >= 3), 3.0),
    ],
)
def test_the_length_for_half_of_known_curves(curve, expected):
    lengths = [0.1 * 1.1**step for step in range(40)]
    found = half_lengths(lambda asked: {name: curve(length) for name, length in asked.items()}, ["a"], lengths)["a"]
    also = first_halves(lengths, np.array([[curve(length) for length in lengths]]))[0]
    assert found == pytest.approx(expected, rel=0.06)
    assert also == pytest.approx(found)


def table_of(own: float | None, others: list[float | None], kind: str = UNTRAINED) -> pl.DataFrame:
    values = [own, *others]
    about = {"rule": "labels", "class_id": 1, "class_name": "one", "selectivity": 0.0, "natural_selectivity": 0.0}
    kinds = [TESTED] + [kind] * len(others)
    return pl.DataFrame(
        [{**about, "kind": name, "length_for_half": value} for name, value in zip(kinds, values, strict=True)],
        schema_overrides={"length_for_half": pl.Float64, "class_id": pl.Int32},
    )


@pytest.mark.parametrize(
    ("own", "others", "p"),
    [
        (1.0, [2.0, 3.0, None], 1 / 4),
        (2.5, [2.0, 3.0, None], 2 / 4),
        (2.0, [2.0, 3.0, None], 2 / 4),  # as good counts against it
        (None, [2.0, None, None], 1.0),  # never is no better than never
    ],
)
def test_ranks_of_lengths(own, others, p):
    tests = ranked(table_of(own, others)).filter(measure="length_for_half")
    assert tests["p"].to_list() == [pytest.approx(p)]
    assert tests["q"].to_list() == benjamini_hochberg(tests["p"].to_numpy()).tolist()


def test_what_was_not_measured_is_the_worst_of_all():
    assert goodness(pl.Series([None, 0.2]), "selectivity").tolist() == [-np.inf, 0.2]
    assert goodness(pl.Series([None, 0.2]), "length_for_half").tolist() == [-np.inf, -0.2]


def test_the_summary_says_whether_there_were_enough_dictionaries():
    few, enough = (over_classes(ranked(table_of(1.0, [2.0] * n)))[0] for n in (18, 19))
    assert (few["survives"], enough["survives"]) == (False, True)
    assert (few["n_significant"], enough["n_significant"]) == (0, 1)


def test_thinned_patches_keep_each_class_up_to_its_number_and_whole_pictures(worlds):
    world = worlds["classification"]
    store = ActivationStore.open(world.files.manifest)
    task = world.opened()
    labels = {i: task.labels[i] for i in store.image_ids("train")}
    patches = pictures_as_patches(store, "train", labels, task.names, 0)
    few = thinned(patches, 40, 0, whole=16)
    assert np.bincount(few.numbers).tolist() == [32, 32, 32]
    assert set(np.unique(few.picture, return_counts=True)[1]) == {16}
    assert torch.equal(few.rows, torch.cat([patches.rows[patches.picture == i] for i in np.unique(few.picture)]))
    assert np.bincount(thinned(patches, 40, 0).numbers).tolist() == [40, 40, 40]


def test_the_figure_shows_every_dictionary(done):
    _, _, _, table, _, _ = done
    shown = figure_of_gain.data(table)
    assert len(shown) == len(table)
    figure = figure_of_gain.draw(shown, FigureSettings())
    points = sum(len(part.get_offsets()) for part in figure.axes[0].collections if hasattr(part, "get_offsets"))
    assert points >= len(table.filter(rule=table["rule"][0], kind=UNTRAINED))
