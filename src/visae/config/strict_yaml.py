"""Reading YAML so that nothing is lost or turned into something else without a word.

YAML 1.1, which PyYAML reads, takes the last of two equal keys, `12:00:00` for 43,200 (base 60), `010` for 8, `NO` for
false and `1e-4` for a text. Here a key that comes twice is refused by its line; numbers are decimal, truth is `true` or
`false`, and whatever else stands there stays text, which the schema then takes or refuses by its key.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from visae.errors import ConfigError

_TEXT = "tag:yaml.org,2002:str"
# Snakemake reads a file that says so as a template, whose values exist in Snakemake alone.
_TEMPLATE = "__use_yte__"


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with plain scalars of JSON's kinds only, whose keys are names as written; notes those that repeat."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[str] = []
        self._place: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # PyYAML composes a value with its key as index, an item of a list with its number, and a key with none.
        name = index.value if isinstance(index, yaml.ScalarNode) else index
        if name is None:
            return super().compose_node(parent, index)
        self._place.append(str(name))
        try:
            return super().compose_node(parent, index)
        finally:
            self._place.pop()

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            # A list or a section as a key is refused by PyYAML.
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                key.tag = _TEXT
                if key.value in seen:
                    self.problems.append(
                        f"line {line}: {self._at()}the key {key.value!r} stands here and in line {seen[key.value]}; "
                        "only the last would count: leave one"
                    )
                seen.setdefault(key.value, line)
        return node

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = float(node.value)
        if not math.isfinite(value):
            self.problems.append(f"line {node.start_mark.line + 1}: {node.value} is too large for a number")
        return value

    def _at(self) -> str:
        return "".join(f"{name}: " for name in self._place)


_StrictLoader.yaml_implicit_resolvers = {}  # none of SafeLoader's
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.construct_yaml_float)


def read_strictly(path: str | Path) -> dict[str, Any]:
    """Read a file of YAML or JSON whose top level is a section.

    Raises
    ------
    ConfigError
        If there is no such file, it is neither, or it has a key twice; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
    values = parse_strictly(text, str(path))
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: keys have to stand at the top level, not a {type(values).__name__}")
    if _TEMPLATE in values:
        raise ConfigError(
            f"{path}: {_TEMPLATE}: a template says nothing before Snakemake has filled it in; write its values out"
        )
    return values


def parse_strictly(text: str, where: str) -> Any:
    """Parse YAML or JSON; raises as read_strictly does, naming `where`."""
    try:
        return json.loads(
            text,
            object_pairs_hook=lambda pairs: _without_repeats(pairs, where),
            parse_constant=_finite,
            parse_float=_finite,
        )
    except ValueError:
        pass  # no JSON, or with numbers that YAML's reader explains
    loader = _StrictLoader(text)
    try:
        values = loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from error
    finally:
        loader.dispose()
    if loader.problems:
        raise ConfigError("\n".join(f"{where}, {problem}" for problem in loader.problems))
    return values


def parse_pairs(pairs: Iterable[str], where: str) -> dict[str, Any]:
    """Parse KEY=VALUE texts of a command line, whose values are YAML; raises as read_strictly does."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"{where} {pair!r}: write KEY=VALUE, such as k=32")
        if key in found:
            raise ConfigError(f"{where} {pair!r}: {key} is given twice; leave one")
        found[key] = parse_strictly(text, f"{where} {key}")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _without_repeats(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    repeated = [key for key, number in Counter(key for key, _ in pairs).items() if number > 1]
    if repeated:
        raise ConfigError(f"{where}: the key {repeated[0]!r} stands twice in a section of JSON; leave one")
    return dict(pairs)
