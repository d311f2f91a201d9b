"""One section of a configuration: plain values to frozen settings and back, every mistake named by its key."""

from __future__ import annotations

import math
import os
import re
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jsonschema

from visae.config.schema import key_of, section_schema
from visae.config.times import SLURM_TIME, explained_time, slurm_minutes
from visae.errors import ConfigError

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def parse_section(kind: Any, values: dict[str, Any], where: str) -> Any:
    """Check one section, or a choice of several by `kind` or `variant`, and freeze it; ConfigError names mistakes."""
    expanded = _expanded(values)
    validator = jsonschema.Draft202012Validator(section_schema(kind))
    problems = [line for error in validator.iter_errors(expanded) for line in _explained(error)]
    problems += [f"{key}: it is no finite number; write one" for key in _not_finite(expanded)]
    if problems:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in dict.fromkeys(problems)))
    return from_plain(kind, expanded)


def from_plain(kind: Any, value: Any) -> Any:
    """Build settings from plain dicts and lists, such as a job's JSON spec."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        members = [member for member in get_args(kind) if member is not type(None)]
        if len(members) == 1:
            return from_plain(members[0], value)
        if not isinstance(value, dict):
            return value
        return from_plain(next(m for m in members if _tag(m) in value.items()), value)
    if origin is dict:
        return {key: from_plain(get_args(kind)[1], item) for key, item in value.items()}
    if origin is list:
        return [from_plain(get_args(kind)[0], item) for item in value]
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        times = {spec.name for spec in fields(kind) if spec.metadata.get("slurm_time")}
        names = {key_of(name): name for name in hints}
        value = {names[key]: item for key, item in value.items()}
        read = {name: slurm_minutes(item) for name, item in value.items() if name in times and isinstance(item, str)}
        return kind(**{name: from_plain(hints[name], item) for name, item in {**value, **read}.items()})
    return kind(value) if kind in (int, float) else value


def _not_finite(value: Any, key: str = "") -> Iterator[str]:
    """Keys of numbers that no bound refuses, as YAML's .nan is neither below nor above it."""
    if isinstance(value, float) and not math.isfinite(value):
        yield key
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        inner = key if isinstance(value, list) else f"{key}: {name}" if key else str(name)
        yield from _not_finite(item, inner)


def to_plain(settings: Any) -> dict[str, Any]:
    """Turn settings into plain dicts by key, defaults filled in."""
    return {key_of(spec.name): _plain(getattr(settings, spec.name)) for spec in fields(settings)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_plain(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _tag(kind: type) -> tuple[str, str]:
    """Key and value that tell the members of a union apart: ('kind', 'scenes')."""
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is Literal and len(get_args(hint)) == 1:
            return name, get_args(hint)[0]
    raise TypeError(f"{kind} has no field that names it")


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _expanded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    # A variable that is not set stays as it is: only the data set that needs it complains.
    return _VARIABLE.sub(lambda m: os.environ.get(m[1], m[0]), value) if isinstance(value, str) else value


def _explained(error: jsonschema.ValidationError) -> Iterator[str]:
    """Turn a schema violation into a line a person can act on."""
    place = ": ".join(str(part) for part in error.absolute_path) or "top level"
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema["properties"])
        for key in sorted(set(error.instance) - set(allowed)):
            yield f"{place}: unknown key {key!r}; allowed: {', '.join(allowed)}"
    elif error.validator == "required":
        for key in sorted(set(error.validator_value) - set(error.instance)):
            yield f"{place}: key {key!r} is missing"
    elif error.validator == "oneOf" and isinstance(error.instance, dict):
        yield from _explained_union(error, place)
    elif error.validator == "pattern" and error.validator_value == SLURM_TIME:
        yield f"{place}: {explained_time(error.instance)}"
    elif error.validator in ("propertyNames", "pattern"):
        yield f"{place}: the name {error.instance!r} may hold letters, digits, - and _ only"
    elif error.validator == "enum":
        # Leaving a key out is what None stands for.
        allowed = [value for value in error.validator_value if value is not None]
        yield f"{place}: {error.instance!r} is not one of {allowed}"
    else:
        yield f"{place}: {error.message}{_hint(error) if error.validator == 'type' else ''}"


def _hint(error: jsonschema.ValidationError) -> str:
    """What to write instead of a text that stands for another kind of value elsewhere, or of a value for a text."""
    value, wanted = error.instance, error.validator_value
    kinds = set(wanted if isinstance(wanted, list) else [wanted])
    if isinstance(value, str) and "boolean" in kinds and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return "; write true or false"
    if isinstance(value, str) and kinds & {"integer", "number"} and re.search(r"\d", value):
        return "; write one decimal number, without unit, colon, underscore or leading zero"
    if isinstance(value, str) and kinds & {"integer", "number"} and value.lower().endswith(("inf", "nan")):
        return "; write a finite number"
    if "string" in kinds and isinstance(value, bool | int | float):
        return "; put it in quotes"
    return ""


def _explained_union(error: jsonschema.ValidationError, place: str) -> Iterator[str]:
    """Of a choice by `kind` or `variant`, explain the member that was meant."""
    tags = [
        next((name, part["const"]) for name, part in member["properties"].items() if "const" in part)
        for member in error.validator_value
    ]
    key = next((name for name, _ in reversed(tags) if name in error.instance), tags[0][0])
    wanted = error.instance.get(key)
    for position, tag in enumerate(tags):
        if tag == (key, wanted):
            for inner in error.context or ():
                if inner.relative_schema_path[0] == position:
                    yield from _explained(inner)
            return
    named = ", ".join(value for name, value in tags if name == key)
    yield f"{place}: {key}: {wanted!r} is none of {named}"
