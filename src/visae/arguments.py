"""Command lines from functions: options from a signature, their help from its NumPy docstring."""

from __future__ import annotations

import argparse
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from visae.config.sections import parse_section
from visae.config.strict_yaml import parse_pairs, parse_strictly
from visae.errors import ConfigError


def read_arguments(program: str, function: Callable, command_line: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parse a command line for a function.

    A parameter that groups some, such as the files that a job reads, is an option for each of them.

    Parameters
    ----------
    program
        What the help calls the command.
    command_line
        What stands after it.

    Returns
    -------
    tuple
        What to call the function with, and what was written for each option.
    """
    text = inspect.getdoc(function) or ""
    first = _first(function)
    names = " ".join(option.removeprefix("--").upper() for option in first)
    hint = f"What is required may come without names, in this order: {names}" if first else None
    parser = argparse.ArgumentParser(prog=program, description=text.split("\n\n")[0], epilog=hint)
    hints = _hints(function)
    for options in (function, *(kind for key, kind in hints.items() if _is_group(key, kind))):
        _add_options(parser, options)
    written = _parsed(parser, command_line, first)
    values = {}
    for parameter, kind in hints.items():
        if _is_group(parameter, kind):
            values[parameter] = kind(**{spec.name: _within(spec, written[spec.name]) for spec in fields(kind)})
        else:
            values[parameter] = _settings_of(kind, written[parameter]) if _is_section(kind) else written[parameter]
    return values, written


def _first(function: Callable) -> list[str]:
    """Options of the parameters that are required and one word each: they may come without their names."""
    parameters = inspect.signature(function).parameters
    kinds = {key: kind for key, kind in _hints(function).items() if kind in (Path, str, int, float)}
    return [_option(key) for key in kinds if parameters[key].default is inspect.Parameter.empty]


def _parsed(parser: argparse.ArgumentParser, command_line: list[str], first: list[str]) -> dict[str, Any]:
    """Values of all options; arguments without a name are those that are required and not given, in their order."""
    actions = [action for action in parser._actions if {*action.option_strings} & {*first}]
    if not {"-h", "--help"} & {*command_line}:  # whose usage shows them as they are
        for action in actions:
            action.required = False
    parsed, rest = parser.parse_known_args(command_line)
    for action in actions:
        if getattr(parsed, action.dest) is None and rest and not rest[0].startswith("-"):
            setattr(parsed, action.dest, _converted(parser, action, rest.pop(0)))
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if missing := [action.option_strings[0] for action in actions if getattr(parsed, action.dest) is None]:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return vars(parsed)


def _converted(parser: argparse.ArgumentParser, action: argparse.Action, text: str) -> Any:
    kind: Any = action.type
    try:
        return kind(text)
    except ValueError:
        parser.error(f"argument {action.option_strings[0]}: invalid {kind.__name__} value: {text!r}")


def _option(parameter: str) -> str:
    return f"--{parameter.strip('_').replace('_', '-')}"


def _hints(function: Callable) -> dict[str, Any]:
    """What each parameter becomes; one that cannot be written on a command line, a generator, is for Python alone."""
    from numpy.random import Generator

    hints = {key: _required_kind(kind) for key, kind in get_type_hints(function).items() if key != "return"}
    return {key: kind for key, kind in hints.items() if kind is not Generator}


def _add_options(parser: argparse.ArgumentParser, function: Callable) -> None:
    """Give a parser an option for each parameter of a function or field of a dataclass."""
    described = _described_parameters(inspect.getdoc(function) or "")
    if is_dataclass(function):
        described |= {spec.name: spec.metadata["doc"] for spec in fields(function) if "doc" in spec.metadata}
    parameters = inspect.signature(function).parameters
    for key, kind in _hints(function).items():
        if _is_group(key, kind):
            continue
        parameter = parameters[key]
        options: dict[str, Any] = {"help": described.get(key, ""), "required": parameter.default is parameter.empty}
        if not options["required"]:
            options["default"] = parameter.default
            options["help"] = f"{options['help']} (default: {parameter.default})".strip()
        if get_origin(kind) is Mapping and is_dataclass(section := get_args(kind)[1]):
            options["type"] = lambda text, section=section: _sections_by_name(section, text)
            options["help"] = f"{options['help']} As YAML: NAME: {{{', '.join(_keys(section))}}}.".strip()
        elif _is_section(kind):
            options.update(nargs="*", metavar="KEY=VALUE", default=[], required=False)
            options["help"] = f"{options['help']} See docs/config.md for the keys.".strip()
        elif kind is bool:
            options = {"help": described.get(key, ""), "action": "store_true"}
        elif get_origin(kind) is list:
            options.update(nargs="+", type=get_args(kind)[0])
            if kind == list[int]:
                options.update(type=str, action=_Numbers)
        elif get_origin(kind) is Mapping:
            options["type"] = _lists_by_name
        elif get_origin(kind) is Literal:
            options["choices"] = get_args(kind)
        else:
            options["type"] = kind
        parser.add_argument(_option(key), dest=key, **options)


def _is_group(parameter: str, kind: Any) -> bool:
    """Whether a parameter stands for several options; only `settings` is a section of the configuration."""
    return parameter != "settings" and isinstance(kind, type) and is_dataclass(kind)


def _within(spec: Field, value: Any) -> Any:
    """Value of an option, in the range that its field declares; of a section of a configuration the schema sees to it.

    Raises
    ------
    ConfigError
        If it is outside, or no number.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    low, above, high = (spec.metadata.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    sides = (("at least", low), ("above", above), ("at most", high))
    is_out = (low is not None and value < low) or (above is not None and value <= above)
    if not math.isfinite(value) or is_out or (high is not None and value > high):
        allowed = " and ".join(f"{side} {bound:g}" for side, bound in sides if bound is not None)
        raise ConfigError(f"{_option(spec.name)} {value}: allowed: a finite number{f', {allowed}' if allowed else ''}")
    return value


class _Numbers(argparse.Action):
    """Takes whole numbers with spaces or commas between them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            setattr(namespace, self.dest, [int(part) for text in values for part in text.split(",")])
        except ValueError:
            parser.error(f"argument {option_string}: {' '.join(values)!r}: write whole numbers, such as 3,4,5")


def _lists_by_name(text: str) -> dict[str, list[int]]:
    """Whole numbers by name, such as the latents of classes."""
    try:
        found = parse_strictly(text, "names")
        if all(isinstance(name, str) and [int(n) for n in numbers] == numbers for name, numbers in found.items()):
            return found
    except (ConfigError, AttributeError, TypeError, ValueError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: write lists of whole numbers by name, such as '{{sky: [12, 40]}}'")


def _sections_by_name(kind: Any, text: str) -> dict[str, Any]:
    """Sections of a kind by name, written as YAML."""
    try:
        found = parse_strictly(text, "tasks")
        if not isinstance(found, dict) or not all(isinstance(values, dict) for values in found.values()):
            raise TypeError(f"write NAME: {{{', '.join(_keys(kind))}}}")
        return {str(name): parse_section(kind, values, name) for name, values in found.items()}
    except (AttributeError, TypeError, ConfigError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _keys(kind: Any) -> list[str]:
    return [f"{field.name}: …" for field in fields(kind)]


def _required_kind(kind: Any) -> Any:
    """What a command-line argument becomes: of `X | None` X, of `str | Path` a path."""
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return Path if Path in members else members[0] if len(members) == 1 else kind
    return kind


def _is_section(kind: Any) -> bool:
    if get_origin(kind) is Mapping:
        return False
    return is_dataclass(kind) or any(is_dataclass(member) for member in get_args(kind))


def _settings_of(kind: Any, pairs: list[str]) -> Any:
    """Build a section from KEY=VALUE pairs, checked against its schema."""
    return parse_section(kind, parse_pairs(pairs, "--settings"), "--settings")


def _described_parameters(docstring: str) -> dict[str, str]:
    """Descriptions of the parameters or attributes of a NumPy docstring, by name."""
    section = re.search(r"(?:Parameters|Attributes)\n-+\n(.*?)(?:\n\n[A-Z]\w+\n-+\n|\Z)", docstring, re.DOTALL)
    entry = re.compile(r"^(\S[^\n:]*?)(?: :[^\n]*)?\n((?:[ ]+[^\n]*\n?)+)", re.MULTILINE)
    described = {}
    for match in entry.finditer(section[1] if section else ""):
        text = " ".join(match[2].split()).replace("%", "%%")
        for name in match[1].split(","):
            described[name.strip()] = text
    return described
