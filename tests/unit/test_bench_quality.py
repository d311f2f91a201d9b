"""The quality benchmark's logic, without peers: the measure, equal sparsity, kept runs, tuning, goals, planted."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from quality_protocol import NORMALIZATIONS, ShuffledBatches, Steering, largest_of_batch, quality_of
from trainee import Trainee, warm_up

from bench.quality import planted
from bench.quality.judged import rows_of
from bench.quality.runs import (
    TUNING_SEED,
    KeptRuns,
    NotSteered,
    Outcome,
    Study,
    Worker,
    at_equal_l0,
    compare,
    first_errors,
)
from bench.trainer.contenders import Contender
from visae.sae.metrics import quality
from visae.sae.run import TrainingRun

SOURCE = Path(__file__).parents[2] / "src"
D_MODEL, K = 16, 4


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Files of tokens that have a mean and a scale, as real activations do."""
    made = planted.Planted(atoms=24, d_model=D_MODEL, active=3)
    atoms = planted.dictionary(made)
    paths = {"data": tmp_path / "train.bin", "held_out": tmp_path / "held-out.bin"}
    for number, (path, count) in enumerate(zip(paths.values(), (2048, 256), strict=True)):
        (5 + 3 * planted.tokens(made, atoms, number, count)).numpy().tofile(path)
    return {name: str(path) for name, path in paths.items()}


def settings(data: dict[str, str], variant: str = "topk", **more: object) -> dict[str, object]:
    shapes = {"d_model": D_MODEL, "width": 64, "batch_size": 64, "k": K}
    return {**data, "threads": 1, "variant": variant, "normalization": None, **shapes, **more}


def outcome(name: str, nmse: float, steps: int = 100, how: str = "defaults") -> Outcome:
    return Outcome(name, how, steps, 3, nmse, 32.0, 0.0)


# --- the measure ---------------------------------------------------------------------------------


def test_the_error_is_about_the_mean_and_in_raw_units() -> None:
    rows = 7 + 3 * torch.randn(600, D_MODEL, generator=torch.Generator().manual_seed(0))
    everything = quality_of(
        lambda part: torch.cat([part, part], 1), lambda codes: codes[:, :D_MODEL], rows, 100, 2 * D_MODEL
    )
    assert everything["nmse"] == 0
    mean = quality_of(
        lambda part: torch.ones(len(part), 3), lambda codes: rows.mean(0).expand(len(codes), -1), rows, 100, 3
    )
    assert mean["nmse"] == pytest.approx(1, rel=1e-6)
    assert mean["l0"] == 3


def test_it_is_the_measure_that_visae_reports(data: dict[str, str]) -> None:
    made = planted.Planted(atoms=24, d_model=D_MODEL, active=3, expansion=4, batch_size=64, steps=20)
    sample = torch.from_numpy(np.fromfile(data["data"], np.float32)).view(-1, D_MODEL)
    run = TrainingRun(planted.settings("topk", made), planted.initial_sae(planted.settings("topk", made), sample, 0))
    ours = quality(run.sae, sample)
    found = quality_of(lambda rows: run.sae.sparse_codes(rows).dense(), run.sae.decode, sample, 64, K)
    assert found["nmse"] == pytest.approx(ours.normalized_mse, rel=1e-5)
    assert found["silent_share"] == ours.silent_share


def test_nobody_has_more_codes_than_k_a_token() -> None:
    codes = torch.tensor([[5.0, 4.0, 3.0], [2.0, 1.0, 0.5]])
    assert torch.equal(largest_of_batch(codes, 2), torch.tensor([[5.0, 4.0, 3.0], [2.0, 0.0, 0.0]]))
    assert torch.equal(largest_of_batch(codes, 3), codes)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalizations_do_what_they_are_named_for(name: str) -> None:
    sample = 2 + torch.randn(4000, D_MODEL, generator=torch.Generator().manual_seed(1))
    shift, scale = NORMALIZATIONS[name](sample)
    rows = (sample - shift) / scale
    if name == "unit square":
        assert float(rows.square().sum(1).mean()) == pytest.approx(1, rel=1e-4)
    else:
        assert float(rows.norm(dim=1).mean()) == pytest.approx(D_MODEL**0.5, rel=1e-4)
    assert (float(rows.mean().abs()) < 1e-4) is (name == "centred")


def test_batches_of_a_seed_are_the_same_for_all_and_cover_an_epoch(data: dict[str, str]) -> None:
    first, again, other = (ShuffledBatches(Path(data["data"]), D_MODEL, 64, seed) for seed in (1, 1, 2))
    assert torch.equal(first[3], again[3])
    assert not torch.equal(first[3], other[3])
    epoch = torch.cat([first[number] for number in range(first.count)])
    assert len(epoch.unique(dim=0)) == len(epoch) == 2048
    assert not torch.equal(first[0], first[first.count])


def test_steering_reaches_the_wanted_number_of_codes() -> None:
    rows = torch.randn(256, 400, generator=torch.Generator().manual_seed(2))
    state = {"threshold": 0.0, "penalty": 1.0}

    def step(rows: torch.Tensor) -> None:  # as in training, thresholds follow the penalty slowly
        state["threshold"] += 0.2 * (math.log(state["penalty"]) - state["threshold"])

    def codes(rows: torch.Tensor) -> torch.Tensor:
        return (rows - state["threshold"]).relu()

    trainee = Trainee(step, codes, penalty=1.0, set_penalty=lambda value: state.update(penalty=value))
    steering = Steering(trainee, 20)
    for _ in range(100):
        steering.look(rows)
        trainee.step(rows)
    assert float((trainee.codes(rows) > 0).sum(1).float().mean()) == pytest.approx(20, rel=0.1)


def test_a_warm_up_is_cut_to_a_tenth() -> None:
    assert [warm_up(1000, steps) for steps in (100, 3000, 100_000)] == [10, 300, 1000]


# --- runs ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["topk", "batchtopk", "relu"])
def test_visae_runs_and_what_is_kept_is_not_run_again(
    variant: str, data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    kept = KeptRuns(tmp_path / "runs.jsonl")
    given = settings(data, variant) | ({"k": 64, "options": {"l1_warmup_steps": 0}} if variant == "relu" else {})
    l0 = K if variant == "relu" else None
    worker = Worker(Contender("visae", "visae"), given, "data", kept, tmp_path / "log", l0)
    study = compare([worker], {"visae": {60: []}}, (1, 2), at_once=1)
    assert not study.missing
    (found,) = study.outcomes
    assert 0 < found.nmse < 0.8
    assert found.l0 == pytest.approx(K, rel=0.05)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    # ReLU lands beside the wanted number of codes, and is run for two others that the error is read between.
    assert len(lines) == (6 if variant == "relu" else 2)
    # Half a line, as a kill leaves it, is as if it were not there.
    (tmp_path / "runs.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    again = Worker(worker.contender, worker.settings, "data", KeptRuns(tmp_path / "runs.jsonl"), tmp_path / "log", l0)
    assert compare([again], {"visae": {60: []}}, (1, 2), at_once=1).outcomes == study.outcomes
    assert len(KeptRuns(tmp_path / "runs.jsonl")._found) == len(lines)
    # All is kept now, so nothing is started.
    last = Worker(worker.contender, worker.settings, "data", KeptRuns(tmp_path / "runs.jsonl"), tmp_path / "log", l0)
    assert compare([last], {"visae": {60: []}}, (1, 2), at_once=1).outcomes == study.outcomes
    assert last._peer is None


def test_other_data_or_options_are_another_run(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path / "runs.jsonl")
    kept.keep({"data": "a", "seed": 1}, {"nmse": 0.5})
    assert kept.get({"seed": 1, "data": "a"}) == {"nmse": 0.5}
    assert kept.get({"data": "b", "seed": 1}) is None
    assert kept.get({"data": "a", "seed": 2}) is None


def kept_worker(data: dict[str, str], tmp_path: Path, name: str, runs: list[tuple[int, float | None, float]]) -> Worker:
    """A contender whose runs of 100 steps, (seed, learning rate, error), are all there are."""
    kept = KeptRuns(tmp_path / f"{name}.jsonl")
    worker = Worker(Contender(name, "visae"), settings(data), "data", kept, tmp_path / "log", only_kept=True)
    for seed, rate, nmse in runs:
        options = {} if rate is None else {"learning_rate": rate}
        kept.keep(worker.made_by(steps=100, seed=seed, **options), {"nmse": nmse, "l0": 32.0, "silent_share": 0.0})
    return worker


def test_the_best_learning_rate_and_the_best_peers_go_on_to_the_other_seeds(
    data: dict[str, str], tmp_path: Path
) -> None:
    runs = {
        "visae": [(1, None, 0.30), (2, None, 0.5), (3, None, 0.31)],
        "good": [
            *((TUNING_SEED, 1e-3, 0.4), (TUNING_SEED, 1e-2, 0.3)),
            *((1, None, 0.9), (1, 1e-3, 0.1), (1, 1e-2, 0.20), (2, 1e-2, 0.22), (3, 1e-2, 0.3)),
        ],
        "near": [(1, None, 0.205), (2, None, 0.21), (3, None, 0.1)],
        "far": [(1, None, 0.21), (2, None, 0.1), (3, None, 0.1)],
    }
    workers = [kept_worker(data, tmp_path, name, there) for name, there in runs.items()]
    grids = {name: {100: [1e-3, 1e-2] if name == "good" else []} for name in runs}
    study = compare(workers, grids, (1, 2, 3), at_once=2)
    assert not study.missing
    assert {(found.name, found.how): (found.seeds, found.nmse) for found in study.outcomes} == {
        ("visae", "defaults"): (3, 0.31),
        ("good", "defaults"): (1, 0.9),
        ("good", "learning rate 0.01"): (3, 0.22),
        ("near", "defaults"): (3, 0.205),
        ("far", "defaults"): (1, 0.21),
    }


def test_what_is_not_kept_is_not_run_where_only_kept_runs_are_wanted(data: dict[str, str], tmp_path: Path) -> None:
    begun = kept_worker(data, tmp_path, "visae", [(1, None, 0.3)])
    absent = kept_worker(data, tmp_path, "absent", [])
    study = compare([begun, absent], {"visae": {100: []}, "absent": {100: []}}, (1, 2, 3), at_once=1)
    assert [(found.name, found.seeds) for found in study.outcomes] == [("visae", 1)]
    assert study.missing == {"100 steps: absent": "not measured yet"}
    (goal,) = (
        row for row in rows_of("topk", Study([*study.outcomes, outcome("A", 0.5)], study.missing)) if row.unit == "x"
    )
    assert (goal.name, goal.holds) == ("topk, 100 steps: visae over the best peer so far (A, defaults)", None)


def test_who_cannot_run_is_a_row_with_the_reason(data: dict[str, str], tmp_path: Path) -> None:
    worker = kept_worker(data, tmp_path, "old", [])
    worker.kept.keep(worker.made_by(steps=100, seed=1), {"cannot": "has TopK only"})
    study = compare([worker], {"old": {100: []}}, (1,), at_once=1)
    (row,) = rows_of("relu", study)
    assert (row.name, row.unit) == ("relu, 100 steps: old", "not run: has TopK only")


def test_a_rate_at_which_a_penalty_cannot_be_steered_is_left_out(data: dict[str, str], tmp_path: Path) -> None:
    worker = kept_worker(data, tmp_path, "steered", [])
    worker.l0 = 32.0

    def keep(seed: int, rate: float | None, codes: dict[float, float], nmse: float) -> None:
        for wanted, l0 in codes.items():
            given = {"steps": 100, "seed": seed, "l0": wanted, **({} if rate is None else {"learning_rate": rate})}
            worker.kept.keep(worker.made_by(**given), {"nmse": nmse, "l0": l0, "silent_share": 0.0})

    stuck = dict.fromkeys((32.0, 0.85 * 32, 1.2 * 32), 12.0)
    keep(TUNING_SEED, 3e-2, stuck, 0.1)
    keep(TUNING_SEED, 1e-2, {32.0: 32.1}, 0.4)
    keep(1, 1e-2, {32.0: 31.9}, 0.35)
    keep(1, None, stuck, 0.2)
    assert first_errors(worker, 100, [1e-2, 3e-2], 1) == {1e-2: 0.35}
    with pytest.raises(NotSteered):
        first_errors(worker, 100, [], 1)


def test_the_error_at_equal_sparsity_lies_between_that_of_fewer_and_of_more_codes() -> None:
    runs = [{"l0": l0, "nmse": 2 / l0**0.5, "silent_share": 0.1} for l0 in (40.0, 25.0)]
    assert at_equal_l0(runs, 32)["nmse"] == pytest.approx(2 / 32**0.5)
    with pytest.raises(NotSteered, match=r"steered to around 32 codes a token, it has 50.0 and 90.0"):
        at_equal_l0([{**run, "l0": run["l0"] * factor} for run, factor in zip(runs, (2.25, 2), strict=True)], 32)


# --- goals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("visae", "holds"), [(0.200, True), (0.201, False), (0.15, True)])
def test_visae_is_held_to_the_best_peer_of_the_same_steps(visae: float, holds: bool) -> None:
    others = [
        outcome("A", 0.3),
        outcome("A", 0.2, how="learning rate 0.01"),
        outcome("B", 0.25),
        outcome("B", 0.1, 500),
    ]
    rows = rows_of("topk", Study([outcome("visae", visae), *others], {}))
    (goal,) = (row for row in rows if row.target and "100 steps" in row.name)
    assert goal.name == "topk, 100 steps: visae over the best peer (A, learning rate 0.01)"
    assert goal.holds is holds
    assert goal.ratio == pytest.approx(visae / 0.2)
    assert next(row for row in rows if "500 steps: visae over" in row.name).unit == "not measured"


# --- planted -------------------------------------------------------------------------------------


def test_planted_tokens_are_what_they_are_said_to_be() -> None:
    made = planted.Planted(atoms=40, d_model=64, active=5, noise=0.05)
    atoms = planted.dictionary(made)
    batch = planted.tokens(made, atoms, 0, 500)
    assert torch.equal(batch, planted.tokens(made, atoms, 0, 500))
    assert not torch.equal(batch, planted.tokens(made, atoms, 1, 500))
    # With 40 atoms in 64 dimensions the values can be solved for.
    values = torch.linalg.lstsq(atoms.T, batch.T).solution.T
    active = values > 0.35
    assert float(active.sum(1).float().mean()) == pytest.approx(5, abs=0.05)
    assert float(values[active].min()) < 0.65
    assert 1.35 < float(values[active].max()) < 1.8
    clean = planted.tokens(planted.Planted(atoms=40, d_model=64, active=5, noise=0.0), atoms, 0, 500)
    assert torch.allclose((batch - clean).norm(dim=1) / clean.norm(dim=1), torch.full((500,), 0.05), atol=1e-4)


def test_an_atom_is_found_above_the_cosine_of_a_row_that_points_its_way() -> None:
    atoms = torch.eye(4)
    near, far = torch.tensor([[1.0, 0.4, 0, 0]]), torch.tensor([[0, 0, 1.0, 0.6]])
    assert planted.recovered(5 * near, atoms) == 0.25
    assert planted.recovered(far, atoms) == 0
    assert planted.recovered(-near, atoms) == 0
    assert planted.recovered(torch.cat([3 * atoms, far]), atoms) == 1


def test_only_a_full_run_of_topk_has_a_target() -> None:
    found = {"topk": {"found": 0.96, "l0": 20.0, "nmse": 0.1}, "PCA": {"found": 0.0}}
    rows = planted.rows_of(found, quick=False)
    assert [row.holds for row in rows] == [False, None, None]
    assert planted.rows_of(found, quick=True)[0].holds is None


@pytest.mark.slow
def test_training_finds_atoms_that_no_start_has() -> None:
    made = planted.Planted(atoms=60, d_model=24, active=3, expansion=6, batch_size=512, steps=300)
    assert planted.trained("topk", made, 0)["found"] < 0.3
    assert planted.trained("topk", made, 300)["found"] > 0.8
    assert planted.baseline("random directions", made)["found"] < 0.1
