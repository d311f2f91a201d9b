"""Sweeps: one reading for all members, and what happens when one fails or two jobs start at once."""

import dataclasses
import multiprocessing

import numpy as np
import polars as pl
import pytest
import torch
from sae_variants import CASES
from safetensors.torch import load_file

from visae.activations.given import write_store
from visae.activations.reader import ShuffledReader
from visae.config.members import further_megabytes
from visae.config.settings import TopKSettings
from visae.errors import ConfigError, TrainingError
from visae.sae import sweep as sweep_module
from visae.sae.initial import empty_sae
from visae.sae.sweep import train_one_of
from visae.sae.trainer import train, train_together
from visae.work import Member

SHARED = {"expansion": 3, "steps": 24, "batch_size": 64, "checkpoint_every": 7, "log_every": 3, "seed": 2}
TOPK = TopKSettings(variant="topk", k=3, auxk=4, dead_after_tokens=256, **SHARED)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    values = np.random.default_rng(5).standard_normal((60, 17, 16)).astype(np.float32)
    return write_store(folder, values, [-1, *range(16)], {"train": 50, "val": 10}, shards=2)


def test_a_job_of_many_members_asks_for_the_state_of_all_but_one() -> None:
    small, large = (dataclasses.replace(TOPK, expansion=expansion) for expansion in (8, 32))
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in empty_sae(small, 1024).parameters())
    # Float32 weights, gradients, and two moments.
    assert further_megabytes([small, large, small], 1024) == pytest.approx(2 * 16 * weights / 1e6, rel=1e-3)
    assert further_megabytes([large], 1024) == 0


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
