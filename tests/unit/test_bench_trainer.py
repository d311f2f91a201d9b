"""The training benchmark's logic, on known numbers and without peers: ratios, goals, what is missing, the limits."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bench.planted import write_planted
from bench.trainer.contenders import CONTENDERS, VISAE, Contender, Found, Timing, compare, reason, worker_settings
from bench.trainer.judged import GOALS, rows_of
from bench.trainer.limits import USEFUL_GFLOP, limit_rows, real_rows

SOURCE = Path(__file__).parents[2] / "src"


def found(rates: dict[str, list[float]], l0: float = 32.0, **missing: str) -> Found:
    megabytes = {name: 500.0 + 100 * number for number, name in enumerate(rates)}
    return Found(rates, megabytes, dict.fromkeys(rates, l0), missing)


def by_name(rows: list) -> dict:
    assert len({row.name for row in rows}) == len(rows)
    return {row.name: row for row in rows}


def test_topk_is_held_to_the_faster_sparsify_and_to_each_other_peer() -> None:
    rates = {
        "visae": [80.0, 88.0, 8.0],  # the machine was ten times slower in the last repetition
        "sparsify, signum": [40.0, 40.0, 4.0],
        "sparsify, Adam": [20.0, 20.0, 2.0],
        "SAELens": [10.0, 10.0, 1.0],
        "overcomplete": [11.0, 11.0, 1.0],
    }
    rows = by_name(rows_of("topk", "as run", found(rates)))
    assert rows["topk, as run: sparsify, Adam"].value == 20
    over_sparsify = rows["topk, as run: visae over sparsify at its fastest (sparsify, signum)"]
    assert (over_sparsify.ratio, over_sparsify.target, over_sparsify.holds) == (2.0, "ratio >= 2.5", False)
    assert rows["topk, as run: visae over SAELens"].holds is True
    assert rows["topk, as run: visae over overcomplete"].ratio == 8.0
    assert rows["topk, as run: visae over dictionary_learning"].unit == "not measured"
    tuned = by_name(rows_of("topk", "tuned", found(rates)))
    assert tuned["topk, tuned: visae over sparsify at its fastest (sparsify, signum)"].holds is True


@pytest.mark.parametrize(("visae", "holds"), [(39.0, False), (40.0, True)])
def test_the_fastest_peer_is_the_one_that_counts(visae: float, holds: bool) -> None:
    rates = {"visae": [visae] * 3, "SAELens": [9.0] * 3, "dictionary_learning": [10.0] * 3}
    row = by_name(rows_of("jumprelu", "as run", found(rates)))[
        "jumprelu, as run: visae over the fastest peer (dictionary_learning)"
    ]
    assert row.holds is holds


def test_who_is_missing_is_a_row_with_the_reason() -> None:
    rows = by_name(rows_of("batchtopk", "as run", found({"SAELens": [9.0]}, visae="not there yet")))
    assert rows["batchtopk, as run: visae"].unit == "not run: not there yet"
    assert rows["batchtopk, as run: SAELens"].ratio is None
    assert rows["batchtopk, as run: visae over the fastest peer"].unit == "not measured"
    assert all(row.holds is None for row in rows.values())


@pytest.mark.parametrize(("l0", "holds"), [(99.0, True), (100.0, None)])
def test_sparse_relu_is_judged_only_where_it_is_sparse(l0: float, holds: bool | None) -> None:
    rates = {"visae": [20.0], "saev": [9.0]}
    rows = by_name(rows_of("relu", "sparse, tuned", found(rates, l0)))
    assert rows["relu, sparse, tuned: visae over the fastest peer"].holds is holds


@pytest.mark.parametrize(("peer", "holds"), [(600.0, True), (500.0, False), (400.0, False)])
def test_memory_is_below_the_smallest_peers(peer: float, holds: bool) -> None:
    given = found({"visae": [20.0], "SAELens": [9.0], "saev": [9.0]})
    given.megabytes["saev"] = peer
    rows = by_name(rows_of("relu", "as run", given))
    assert rows["relu, as run: peak memory, visae"].holds is holds
    assert rows["relu, as run: peak memory, saev"].holds is None


def test_every_goal_names_contenders() -> None:
    for variant, hows in GOALS.items():
        names = {contender.name for contender in CONTENDERS[variant]}
        assert all(set(goal.names or ()) <= names for goals in hows.values() for goal in goals)


def test_slow_contenders_do_fewer_steps() -> None:
    timing = Timing(repetitions=5, warm_up=2, seconds=4, fewest=2)
    assert [timing.steps(seconds) for seconds in (0.1, 0.5, 3.0)] == [16, 8, 2]


def test_the_bound_is_taken_within_a_repetition() -> None:
    samples = {"step": [1.0, 2.0], "matmul": [0.5, 1.0], "rest": [0.1, 0.2], "machine": [100.0, 50.0]}
    rows = by_name(limit_rows(samples))
    bound = rows["bound: step over matmul and sparse rest"]
    assert bound.ratio == pytest.approx(0.6)
    assert bound.holds is False
    assert rows["machine: useful FLOPs of a step"].ratio == pytest.approx(USEFUL_GFLOP / 100)


@pytest.mark.parametrize(("real", "holds"), [(90.0, True), (80.0, False)])
def test_a_real_run_costs_little_more_than_bare_steps(real: float, holds: bool) -> None:
    rows = by_name(real_rows({"bare": [100.0, 10.0], "real": [real, real / 10]}, 0.25))
    assert rows["real: cost over the bare step"].holds is holds


def test_a_reason_fits_the_table() -> None:
    log = "saev stopped; the end of x.log:\nTraceback\n  File 'x'\nModuleNotFoundError: No module named 'wandb'\n"
    assert reason(RuntimeError(log)) == "ModuleNotFoundError: No module named 'wandb'"
    assert reason(subprocess.CalledProcessError(1, "pip")) == "its environment could not be installed"


def test_planted_rows_need_no_normalization(tmp_path: Path) -> None:
    path = write_planted(tmp_path / "planted.bin", 4096, 64)
    rows = np.fromfile(path, np.float32).reshape(4096, 64)
    assert abs(float(np.square(rows).mean()) - 1.01) < 1e-3  # 1, and the noise's variance
    assert float(np.square(rows.mean(0)).mean()) < 0.1
    assert write_planted(tmp_path / "again.bin", 4096, 64).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_visae_runs_as_a_contender_and_an_unknown_variant_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    d_model, batch = 16, 64
    data = write_planted(tmp_path / "planted.bin", 4 * batch, d_model)
    small = {"d_model": d_model, "width": 64, "batch_size": batch, "k": 4}
    settings = {**worker_settings(data, 1, variant="topk"), **small}
    timing = Timing(repetitions=2, warm_up=1, seconds=0.001, fewest=1)
    broken = Contender("broken", "visae", {"options": {"no_such": 1}})
    unknown = Contender("unknown", "visae", {"variant": "no such"})
    given = compare([VISAE, broken, unknown], settings, timing, tmp_path / "logs")
    assert len(given.rates["visae"]) == 2
    assert 0 < given.l0["visae"] <= 4
    assert given.megabytes["visae"] > 10
    assert given.missing["unknown"] == "not there yet"
    assert "no_such" in given.missing["broken"]
    assert json.dumps(given.missing)
