"""What all benchmarks share, on known numbers: medians, ratios, targets, the table, the file, the exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench.disk import drop_pages
from bench.harness import Target, fastest, interleaved, measurement, median_ratio, parser, publish, repetitions, table
from bench.store.reading import BATCH, D_MODEL, ahead, raw_batches, write_data
from visae.activations.reader import ShuffledReader
from visae.activations.store import ActivationStore

AT_LEAST_DOUBLE = Target("ratio", ">=", 2)
BELOW_FIFTY = Target("value", "<", 50)


def test_contenders_take_turns_and_none_is_always_first() -> None:
    order: list[str] = []
    contenders = {name: lambda name=name: order.append(name) or float(len(order)) for name in "abc"}
    samples = interleaved(contenders, 3)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert samples == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_a_ratio_is_taken_within_a_repetition() -> None:
    # The machine was ten times slower in the last repetition: both numbers fell, the quotient did not.
    samples = {"ours": [20.0, 22.0, 2.0], "theirs": [10.0, 10.0, 1.0], "third": [15.0, 15.0, 15.0]}
    assert median_ratio(samples, "ours", "theirs") == 2.0
    assert fastest(samples, ["ours", "theirs", "third"]) == "ours"
    assert fastest(samples, ["theirs", "third"]) == "third"


@pytest.mark.parametrize(
    ("target", "value", "ratio", "holds"),
    [
        (AT_LEAST_DOUBLE, 0.0, 2.0, True),
        (AT_LEAST_DOUBLE, 9.0, 1.99, False),
        (BELOW_FIFTY, 49.9, 90.0, True),
        (BELOW_FIFTY, 50.0, 1.0, False),
    ],
)
def test_a_target_binds_the_value_or_the_ratio(target: Target, value: float, ratio: float, holds: bool) -> None:
    assert measurement("m", value, "x", ratio, target).holds is holds


def test_a_target_on_a_ratio_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="its target is ratio >= 2, and it has no ratio"):
        measurement("m", 1.0, "x", target=AT_LEAST_DOUBLE)


def test_the_table_lines_up() -> None:
    lines = table(
        [
            measurement("long name", 1234567.0, "rows/s", 2.0, AT_LEAST_DOUBLE),
            measurement("b", 0.00002, ""),
            measurement("c", 51.0, "MB", target=BELOW_FIFTY),
        ]
    ).splitlines()
    assert lines == [
        "measurement      value  unit    ratio  target      holds",
        "long name    1,234,567  rows/s   2.00  ratio >= 2  yes",
        "b                2e-05",
        "c                   51  MB             value < 50  NO",
    ]


@pytest.mark.parametrize(
    ("value", "check", "code"), [(49.0, True, 0), (51.0, True, 1), (51.0, False, 0), (49.0, False, 0)]
)
def test_check_exits_with_1_where_a_target_is_missed(
    value: float, check: bool, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results" / "bench.json"
    rows = [measurement("free", 1.0, "s"), measurement("growth", value, "MB", 1.5, BELOW_FIFTY)]
    assert publish(rows, output, check) == code
    assert ("target missed: growth: value < 50" in capsys.readouterr().out) is (value > 50)
    assert json.loads(output.read_text()) == [
        {"name": "free", "value": 1.0, "unit": "s", "ratio": None, "target": None, "holds": None},
        {"name": "growth", "value": value, "unit": "MB", "ratio": 1.5, "target": "value < 50", "holds": value < 50},
    ]
    assert [path.name for path in output.parent.iterdir()] == ["bench.json"]


def test_quick_repeats_three_times() -> None:
    line = parser("", "bench.json")
    assert [repetitions(line.parse_args(given.split())) for given in ("", "--quick", "--repetitions 2")] == [5, 3, 2]


def test_the_raw_contender_gives_the_rows_that_visae_gives(tmp_path: Path) -> None:
    data = write_data(tmp_path, 1)
    drop_pages(tmp_path)  # and the files are what they were
    ours = ShuffledReader(
        [ActivationStore.open(path) for path in data.manifests("float32")], "train", BATCH, seed=0
    ).batches()
    pairs = [(next(ours).numpy(), batch) for batch in ahead(raw_batches(data))]
    assert len(pairs) == data.rows // BATCH
    assert all(np.array_equal(one, other) for one, other in pairs)
    assert pairs[0][0].shape == (BATCH, D_MODEL)


def test_a_part_that_is_measured_again_replaces_its_own_rows_alone(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    first = ["reading, cold: a", "format, warm: a", "format, warm: b", "memory: a"]
    publish([measurement(name, 1.0, "s") for name in first], output, check=False)
    publish([measurement("format, warm: c", 2.0, "s")], output, check=False, partly=True)
    found = [(row["name"], row["value"]) for row in json.loads(output.read_text())]
    assert found == [("reading, cold: a", 1.0), ("format, warm: c", 2.0), ("memory: a", 1.0)]
