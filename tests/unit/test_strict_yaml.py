"""What a user's YAML may not turn into without a word: repeated keys, base 60, octal numbers, truth, infinity."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from visae.config.parse import load_config, parse_config
from visae.config.sections import parse_section
from visae.config.settings import TopKSettings
from visae.config.strict_yaml import parse_pairs, parse_strictly, read_strictly
from visae.config.times import slurm_minutes
from visae.errors import ConfigError

ROOT = Path(__file__).parents[2]
DEMO = (ROOT / "config/config.yaml").read_text()


def written(folder: Path, more: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(f"{DEMO}\n{more}\n")
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_say_what_they_always_said(path: Path) -> None:
    assert read_strictly(path) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("seed: 1\nseed: 2", r"study\.yaml, line (\d+): the key 'seed' stands here and in line (\d+)"),
        ("saes:\n  other: {variant: topk}", r"line (\d+): the key 'saes' stands here and in line (\d+)"),
        ("slurm:\n  gpus: 1\n  gpus: 2", r"line (\d+): slurm: the key 'gpus' stands here and in line (\d+)"),
        ("slurm: {gpus: 1, 'gpus': 2}", r"line (\d+): slurm: the key 'gpus' stands here and in line (\d+)"),
        ("figures:\n  log10_mean: [{a: 1, a: 2}]", r"figures: log10_mean: 0: the key 'a' stands here and in line"),
    ],
)
def test_a_key_that_comes_twice_is_refused_by_its_line(more: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, more)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    lines = path.read_text().splitlines()
    named = re.search(r"line (\d+): .*the key '(\w+)' stands here and in line (\d+)", str(caught.value))
    assert named
    assert all(named[2] in lines[int(named[number]) - 1] for number in (1, 3))


def test_all_repeated_keys_are_named_at_once_and_merged_ones_are_none() -> None:
    text = "base: &base {k: 1, steps: 2}\na:\n  <<: *base\n  k: 3\n"
    assert parse_strictly(text, "x")["a"] == {"k": 3, "steps": 2}
    with pytest.raises(ConfigError) as caught:
        parse_strictly(f"{text}a: 1\nb: {{c: 1, c: 2}}", "x.yaml")
    assert len(str(caught.value).splitlines()) == 2


def test_json_is_read_as_strictly(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"b": 1,\t"b": 2}}')
    with pytest.raises(ConfigError, match=r"a\.json: the key 'b' stands twice"):
        read_strictly(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"a":\t{"b": 1.5}}')
    assert read_strictly(tmp_path / "b.json") == {"a": {"b": 1.5}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("12", 12), ("-3", -3), ("1e-4", 1e-4), ("1E+3", 1000.0), (".5", 0.5), ("1.", 1.0), ("true", True)],
        *[("12:00:00", "12:00:00"), ("12:00", "12:00"), ("1:30.5", "1:30.5"), ("010", "010"), ("0x10", "0x10")],
        *[("1_000", "1_000"), ("NO", "NO"), ("off", "off"), ("y", "y"), ("2024-05-01", "2024-05-01")],
        *[(".inf", ".inf"), (".nan", ".nan"), ("~", None), ("", None)],
    ],
)
def test_numbers_are_decimal_and_all_else_stays_text(text: str, value: object) -> None:
    found = parse_strictly(f"a: {text}", "x")["a"]
    assert found == value
    assert type(found) is type(value)


def test_names_are_as_written() -> None:
    names = parse_strictly("{NO: 1, 010: 2, 2024-05-01: 3, 1.50: 4, 12:30: 5}", "x")
    assert list(names) == ["NO", "010", "2024-05-01", "1.50", "12:30"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("saes: {topk: {k: 010}}", r"saes: topk: k: '010' is not of type 'integer'; write one decimal number"),
        ("saes: {topk: {steps: 1_000}}", r"saes: topk: steps: '1_000' is not of type 'integer'; write one decimal"),
        ("saes: {topk: {learning_rate: .inf}}", r"learning_rate: '.inf' is not of type .*; write a finite"),
        ("saes: {topk: {learning_rate: 1e999}}", r"line 1: 1e999 is too large"),
        ("datasets: {scenes: {hashes: NO}}", r"datasets: scenes: hashes: 'NO' is not of type 'boolean'; write true"),
        ("results: 2024", r"results: 2024 is not of type 'string'; put it in quotes"),
        ("slurm: {notice: 2:00}", r"slurm: notice: '2:00' is not of type 'integer'; write one decimal number"),
        ("slurm: {memory_gb: 64G}", r"slurm: memory_gb: '64G' is not of type 'number'; write one decimal number"),
        ("slurm: {minutes: 12:00}", r"slurm: minutes: '12:00' is 12 minutes and 0 seconds .* write 12 .* 12:00:00"),
        ("slurm: {minutes: 1:30}", r"slurm: minutes: '1:30' is 1 minutes and 30 seconds .* write 2 .* 1:30:00"),
        ("slurm: {minutes: 12h}", r"slurm: minutes: '12h' is no time; write minutes"),
        ("slurm: {minutes: 0:00:00}", r"slurm: minutes: 0 is less than the minimum of 1"),
        ("slurm: {minutes: 2}", r"slurm: notice: 120: it is in seconds and has to be less than .* 120 s"),
        ("slurm: {minutes: 720, notice: 43200}", r"slurm: notice: 43200: it is in seconds"),
    ],
)
def test_what_is_no_value_of_its_key_is_refused_by_the_key(section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(with_section(section))


@pytest.mark.parametrize(
    ("written", "minutes"),
    [("90", 90), ("12:00:00", 720), ("1-00", 1440), ("1-12:30", 2190), ("0:01:30", 2), ("0-0:0:1", 1), ("0:90:00", 90)],
)
def test_times_are_those_of_slurm(written: str, minutes: int) -> None:
    assert slurm_minutes(written) == minutes
    assert parse_config(with_section(f"slurm: {{minutes: {written}, notice: 5}}")).slurm.minutes == minutes


def with_section(text: str) -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(yaml.safe_load(DEMO))
    for key, section in parse_strictly(text, "more").items():
        if not isinstance(section, dict):
            values[key] = section
            continue
        for name, value in section.items():
            inner = values.setdefault(key, {})
            inner[name] = {**inner.get(name, {}), **value} if isinstance(value, dict) else value
    return values


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "keys have to stand at the top level, not a list"),
        (b"a: \xff\n", "not UTF-8"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML: expected a single document"),
        (b"a: [1\n", "not valid YAML"),
        (b"? [a]\n: 1\n", "not valid YAML"),
        (b"a: !!python/object:os.system {}\n", "not valid YAML: could not determine a constructor"),
        (b"__use_yte__: true\na: 1\n", "__use_yte__: a template says nothing"),
    ],
)
def test_what_is_no_configuration_is_refused_by_its_file(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))


def test_pairs_of_a_command_line_are_read_the_same_way() -> None:
    values = parse_pairs(["variant=topk", "k=3", "learning_rate=1e-4"], "--settings")
    assert parse_section(TopKSettings, values, "--settings") == TopKSettings(variant="topk", k=3, learning_rate=1e-4)
    with pytest.raises(ConfigError, match="--settings 'k=4': k is given twice"):
        parse_pairs(["k=3", "k=4"], "--settings")
    with pytest.raises(ConfigError, match=r"--settings: k: '010' is not of type 'integer'"):
        parse_section(TopKSettings, parse_pairs(["variant=topk", "k=010"], "--settings"), "--settings")
