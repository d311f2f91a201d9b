"""Sweeps: their members, one reading for all, what happens when one fails or two jobs start at once, and the choice."""

import copy
import dataclasses
import json
import multiprocessing
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from sae_variants import CASES
from safetensors.torch import load_file

from visae.activations.given import write_store
from visae.activations.reader import ShuffledReader
from visae.config.members import every_sae, further_megabytes
from visae.config.parse import parse_config
from visae.config.settings import FigureSettings, SelectSettings, TopKSettings
from visae.errors import ConfigError, TrainingError
from visae.figures import pareto
from visae.files import write_json
from visae.sae import sweep as sweep_module
from visae.sae.choice import choose_member
from visae.sae.initial import empty_sae
from visae.sae.sweep import train_one_of
from visae.sae.trainer import train, train_together
from visae.work import Member

DEMO = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())
SHARED = {"expansion": 3, "steps": 24, "batch_size": 64, "checkpoint_every": 7, "log_every": 3, "seed": 2}
TOPK = TopKSettings(variant="topk", k=3, auxk=4, dead_after_tokens=256, **SHARED)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    values = np.random.default_rng(5).standard_normal((60, 17, 16)).astype(np.float32)
    return write_store(folder, values, [-1, *range(16)], {"train": 50, "val": 10}, shards=2)


def configured(sweep):
    return parse_config({**copy.deepcopy(DEMO), "sweeps": {"sizes": sweep}})


def members(sweep):
    return {name: sae for name, sae in every_sae(configured(sweep)).items() if name.startswith("sizes")}


# --- the configuration ---------------------------------------------------------------------------


def test_a_grid_is_every_combination_under_names_fit_for_paths() -> None:
    found = members({"base": "topk", "grid": {"k": [8, 16], "learning_rate": [1e-3, 1]}})
    assert [(sae.k, sae.learning_rate) for sae in found.values()] == [(8, 1e-3), (8, 1), (16, 1e-3), (16, 1)]
    assert all(re.fullmatch(r"sizes-[0-9a-f]{8}", name) for name in found)
    assert {sae.expansion for sae in found.values()} == {4}


def test_names_depend_on_a_members_own_settings_alone() -> None:
    grid = members({"base": "topk", "grid": {"k": [8, 16]}})
    listed = members({"base": "topk", "list": [{"k": 64}, {"k": 16}, {"k": 8, "seed": 0}, {"k": 8.0}]})
    assert set(grid) < set(listed)
    assert len(listed) == 3  # equal ones are one


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"base": "gone", "grid": {"k": [1]}}, r"sweeps: sizes: base: 'gone' is not in saes \(relu, topk\)"),
        ({"base": "topk", "grid": {"kk": [1]}}, r'sizes: member \{"kk": 1\}: .*unknown key \'kk\'; allowed: .*\bk\b'),
        ({"base": "topk", "grid": {"k": []}}, r"sizes: grid: k: \[\] has no values"),
        ({"base": "topk", "grid": {}}, r"sizes: give either grid or list"),
        ({"base": "topk", "grid": {"k": [1]}, "list": [{"k": 2}]}, r"sizes: give either grid or list"),
        ({"base": "topk", "grid": {"k": [8, 0]}}, r'sizes: member \{"k": 0\}: k: 0 is less than the minimum of 1'),
        ({"base": "topk", "list": [{"expansion": 0}]}, r"expansion: 0 is less than the minimum of 1"),
        ({"base": "topk", "list": [{"variant": "relu"}]}, r"variant: a sweep has one variant"),
        ({"base": "topk", "grid": {"tokens": ["class", "all"]}}, r"tokens: a sweep has one kind of tokens, its base's"),
        ({"base": "topk", "grid": {"normalization": ["batch"]}}, r"normalization: 'batch' is not one of"),
        ({"base": "topk", "grid": {"k": [1]}, "select": {"at_most": {"dead": 1}}}, r"unknown metric 'dead'; allowed"),
        ({"base": "topk", "grid": {"k": [1]}, "select": {"by": "dead"}}, r"select: by: 'dead' is not one of"),
        ({"base": "topk", "bogus": 1}, r"sweeps: sizes: unknown key 'bogus'; allowed: base"),
    ],
)
def test_a_mistake_in_a_sweep_is_named_by_its_key(sweep, message) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(sweep)


def test_a_job_of_many_members_asks_for_the_state_of_all_but_one() -> None:
    small, large = (dataclasses.replace(TOPK, expansion=expansion) for expansion in (8, 32))
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in empty_sae(small, 1024).parameters())
    # Float32 weights, gradients, and two moments.
    assert further_megabytes([small, large, small], 1024) == pytest.approx(2 * 16 * weights / 1e6, rel=1e-3)
    assert further_megabytes([large], 1024) == 0


def test_members_of_class_tokens_have_no_scores_of_patches() -> None:
    saes = {**copy.deepcopy(DEMO["saes"]), "cls": {**DEMO["saes"]["topk"], "tokens": "class"}}
    sweep = {"base": "cls", "grid": {"normalization": ["scale", "per_token"]}, "score": True}
    with pytest.raises(ConfigError, match="sweeps: kinds: score: scores are of patches, and cls is of class tokens"):
        parse_config({**copy.deepcopy(DEMO), "saes": saes, "sweeps": {"kinds": sweep}})
    parse_config({**copy.deepcopy(DEMO), "saes": saes, "sweeps": {"kinds": {**sweep, "score": False}}})


def test_a_sweep_may_not_have_the_name_of_an_sae() -> None:
    with pytest.raises(ConfigError, match="sweeps: topk: this name is in saes too"):
        parse_config({**copy.deepcopy(DEMO), "sweeps": {"topk": {"base": "relu", "grid": {"l1": [0.1]}}}})


# --- one reading for all -------------------------------------------------------------------------


def variants():
    """Of each variant one member, of unlike lengths."""
    shared = {"steps": 20, "batch_size": 64, "seed": 2, "log_every": 5, "checkpoint_every": 8}
    return {
        case.name: dataclasses.replace(case.settings, **{**shared, "steps": 14 + 2 * number})
        for number, case in enumerate(CASES)
    }


def assert_same(found, expected) -> None:
    left, right = (load_file(folder / "sae.safetensors") for folder in (found, expected))
    for name, tensor in right.items():
        assert torch.equal(left[name], tensor), name
    timed = ("tokens_per_second", "data_wait_share")
    tables = [pl.read_parquet(folder / "metrics.parquet").drop(timed) for folder in (found, expected)]
    assert tables[0].equals(tables[1])


def test_together_each_comes_out_as_if_trained_alone_and_each_batch_is_read_once(
    manifest, tmp_path, monkeypatch
) -> None:
    sections = variants()
    for name, settings in sections.items():
        train(settings, [manifest], tmp_path / "alone" / name, tmp_path / "work" / name, "cpu")
    handed_out = []
    original = ShuffledReader.batches

    def counted(self, start=0):
        for number, batch in enumerate(original(self, start), start):
            handed_out.append((self.batch_size, number))
            yield batch

    monkeypatch.setattr(ShuffledReader, "batches", counted)
    all_members = [Member(s, tmp_path / "out" / n, tmp_path / "work" / n) for n, s in sections.items()]
    summaries = train_together(all_members, [manifest], "cpu")
    assert [summary["variant"] for summary in summaries] == [settings.variant for settings in sections.values()]
    for name in sections:
        assert_same(tmp_path / "out" / name, tmp_path / "alone" / name)
    longest = max(settings.steps for settings in sections.values())
    # Once the sample (the store has 800 tokens), once the training, and once the held-out tokens.
    sample = -(-800 // 64)
    assert sorted(handed_out) == sorted(
        [(64, n) for n in range(sample)] + [(64, n) for n in range(longest)] + [(160, 0)]
    )


def test_members_that_are_ahead_wait_for_the_others(manifest, tmp_path, monkeypatch) -> None:
    """Stopped as by a kill while members have checkpoints of unlike steps: each goes on from its own."""
    sections = {"often": dataclasses.replace(TOPK, checkpoint_every=4), "rarely": dataclasses.replace(TOPK, k=2)}
    for name, settings in sections.items():
        train(settings, [manifest], tmp_path / "alone" / name, tmp_path / "w" / name, "cpu")
    all_members = [Member(s, tmp_path / "out" / n, tmp_path / "w" / n) for n, s in sections.items()]
    original = ShuffledReader.batches

    def cut(self, start=0):
        for number, batch in enumerate(original(self, start), start):
            if number == 18 and self.batch_size == 64:
                raise MemoryError
            yield batch

    with monkeypatch.context() as patched:
        patched.setattr(ShuffledReader, "batches", cut)
        with pytest.raises(MemoryError):
            train_together(all_members, [manifest], "cpu")
    newest = {n: max((tmp_path / "w" / n / "checkpoints").glob("*.json")).stem for n in sections}
    assert newest == {"often": "step-00000016", "rarely": "step-00000014"}
    train_together(all_members, [manifest], "cpu")
    for name in sections:
        assert_same(tmp_path / "out" / name, tmp_path / "alone" / name)


def test_one_that_goes_to_nan_does_not_stop_the_others(manifest, tmp_path) -> None:
    wild = dataclasses.replace(TOPK, learning_rate=1e38, gradient_clip=1e30, checkpoint_every=1)
    sections = {"wild": wild, "wide": dataclasses.replace(TOPK, k=400), "tame": TOPK}
    all_members = [Member(s, tmp_path / "out" / n, tmp_path / "w" / n) for n, s in sections.items()]
    with pytest.raises(TrainingError, match=r"(?s)wild: step \d+: the loss .* of the pictures .*wide: saes.*k: 400"):
        train_together(all_members, [manifest], "cpu")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tame"]
    assert list((tmp_path / "w/wild/checkpoints").glob("step-*.json"))


def test_members_with_other_batches_are_refused(manifest, tmp_path) -> None:
    both = [Member(dataclasses.replace(TOPK, batch_size=size), tmp_path, tmp_path) for size in (32, 64)]
    with pytest.raises(TrainingError, match=r"batch_size: .*not \[32, 64\]"):
        train_together(both, [manifest], "cpu")


# --- jobs ----------------------------------------------------------------------------------------


def jobs_of(folder):
    sections = {f"k{k}": dataclasses.replace(TOPK, k=k) for k in (2, 3, 4)}
    return {n: Member(s, folder / "out" / n, folder / "runs" / f"hash-{n}") for n, s in sections.items()}


def counting(monkeypatch):
    trained = []
    original = sweep_module.train_together

    def counted(members, *arguments):
        trained.append([member.output.name for member in members])
        return original(members, *arguments)

    monkeypatch.setattr(sweep_module, "train_together", counted)
    return trained


def test_the_first_job_trains_all_and_the_others_find_theirs(manifest, tmp_path, monkeypatch) -> None:
    trained = counting(monkeypatch)
    found = jobs_of(tmp_path)
    train_one_of("k3", found, [manifest], "cpu")
    assert trained == [["k3", "k2", "k4"]]
    # What is not asked for is not published: Snakemake would delete it before that job.
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["k3"]
    for name in ("k2", "k4"):
        assert train_one_of(name, found, [manifest], "cpu")["made_from"] == f"hash-{name}"
    more = {**found, "k5": Member(dataclasses.replace(TOPK, k=5), tmp_path / "out/k5", tmp_path / "runs/hash-k5")}
    train_one_of("k5", more, [manifest], "cpu")
    assert trained == [["k3", "k2", "k4"], ["k5"]]
    # A member that is to be made from something else is missing again.
    other = {**found, "k4": dataclasses.replace(found["k4"], work=tmp_path / "runs/hash-other")}
    train_one_of("k4", other, [manifest], "cpu")
    assert trained[2:] == [["k4"]]
    assert not list((tmp_path / "runs").iterdir())


def test_a_failing_sibling_fails_its_own_job_only(manifest, tmp_path) -> None:
    found = jobs_of(tmp_path)
    found["k4"] = dataclasses.replace(found["k4"], settings=dataclasses.replace(TOPK, k=400))
    assert train_one_of("k3", found, [manifest], "cpu")["variant"] == "topk"
    with pytest.raises(ConfigError, match="400 latents kept of only 48"):
        train_one_of("k4", found, [manifest], "cpu")


def one_job(name, folder, manifest, barrier):
    torch.set_num_threads(1)
    original = sweep_module.train_together

    def noted(members, *arguments):
        (folder / f"trained-by-{name}").write_text(" ".join(member.output.name for member in members))
        return original(members, *arguments)

    sweep_module.train_together = noted
    barrier.wait()
    train_one_of(name, jobs_of(folder), [manifest], "cpu")


@pytest.mark.slow
def test_two_jobs_that_start_at_once_do_the_work_once(manifest, tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    both = [context.Process(target=one_job, args=(name, tmp_path, manifest, barrier)) for name in ("k2", "k3")]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    (note,) = tmp_path.glob("trained-by-*")
    assert set(note.read_text().split()) == {"k2", "k3", "k4"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["k2", "k3"]


# --- the choice ----------------------------------------------------------------------------------


@pytest.fixture
def summaries(tmp_path):
    """Three members whose numbers are made up."""
    found = []
    rows = {"a": (0.30, 10, 0.00, 8), "b": (0.20, 30, 0.01, 16), "c": (0.10, 90, 0.20, 32)}
    for name, (error, l0, dead, k) in rows.items():
        folder = tmp_path / name
        metrics = {"explained_variance": 1 - error, "l1": 1.0, "dense_share": 0.0}
        write_json(folder / "summary.json", {"normalized_mse": error, "l0": l0, "dead_share": dead, **metrics})
        write_json(folder / "config.json", {"settings": {"k": k, "seed": 0}})
        for file in ("sae.safetensors", "metrics.parquet"):
            (folder / file).write_text(name)
        found.append(folder / "summary.json")
    return found


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        ({}, "c"),
        ({"at_most": {"l0": 64}}, "b"),
        ({"at_most": {"dead_share": 0.0}}, "a"),
        ({"by": "explained_variance", "at_most": {"dead_share": 0.02}}, "b"),
        ({"by": "l0"}, "a"),
    ],
)
def test_the_choice_follows_the_rule(summaries, tmp_path, rule, chosen) -> None:
    selection = choose_member(SelectSettings(**rule), summaries, tmp_path / "sweep")
    assert selection["chosen"] == chosen
    assert selection["members"][1]["settings"] == {"k": 16}
    for file in ("sae.safetensors", "metrics.parquet", "summary.json", "config.json"):
        assert (tmp_path / "sweep" / file).read_bytes() == (tmp_path / chosen / file).read_bytes()
    assert json.loads((tmp_path / "sweep/selection.json").read_text()) == selection


def test_where_none_is_within_the_limits_the_nearest_is_named(summaries, tmp_path) -> None:
    rule = SelectSettings(at_most={"l0": 8, "dead_share": 0.1})
    with pytest.raises(TrainingError, match=r"sweeps: sweep: select: at_most: none of 3 .* a with l0 10 \(at most 8\)"):
        choose_member(rule, summaries, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_the_figures_table_marks_front_and_choice(summaries, tmp_path) -> None:
    write_json(tmp_path / "d/summary.json", {**json.loads(summaries[0].read_text()), "l0": 50})
    write_json(tmp_path / "d/config.json", {"settings": {"k": 24, "seed": 0}})
    rule = SelectSettings(at_most={"l0": 64})
    table = pareto.data(choose_member(rule, [*summaries, tmp_path / "d/summary.json"], tmp_path / "sweep"))
    assert table.select("sae", "on_front", "chosen", "within_limits").rows() == [
        ("a", True, False, True),
        ("b", True, True, True),
        ("d", False, False, True),
        ("c", True, False, False),
    ]
    assert table["settings"].to_list() == ["k=8", "k=16", "k=24", "k=32"]


def test_scores_of_members_are_drawn_beside_their_error(summaries, tmp_path) -> None:
    selection = choose_member(SelectSettings(at_most={"l0": 64}), summaries, tmp_path / "sweep")
    scores = {}
    for name, best in (("a", 0.2), ("b", 0.6), ("c", 0.4)):
        # Only the best latent of a class that could be measured counts.
        rows = {"rank": [0, 1, 0, 0], "f1": [best, 0.0, best + 0.2, None], "f1_random": [0.1, 0.9, 0.1, None]}
        scores[name] = pl.DataFrame(rows)
    table = pareto.data(selection, scores)
    assert table["f1"].to_list() == pytest.approx([0.3, 0.7, 0.5])
    assert table["f1_random"].to_list() == pytest.approx([0.1, 0.1, 0.1])
    error, score = pareto.draw(table, FigureSettings()).axes[:2]
    for axes, column in ((error, "normalized_mse"), (score, "f1")):
        drawn = [tuple(place) for dots in axes.collections for place in dots.get_offsets().tolist()]
        assert set(table.select("l0", column).rows()) <= set(drawn)
    assert len(pareto.draw(pareto.data(selection), FigureSettings()).axes) == 2  # one panel and the colours
