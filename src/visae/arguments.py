"""Command lines from functions: options from a signature, their help from its NumPy docstring."""

from __future__ import annotations

import argparse
import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
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
    hint = f"The first arguments may come without their names, in this order: {names}" if first else None
    parser = argparse.ArgumentParser(prog=program, description=text.split("\n\n")[0], epilog=hint)
    hints = _hints(function)
    for options in (function, *(kind for key, kind in hints.items() if _is_group(key, kind))):
        _add_options(parser, options)
    written = vars(parser.parse_args(_with_names(command_line, first)))
    values = {}
    for parameter, kind in hints.items():
        if _is_group(parameter, kind):
            values[parameter] = kind(**{spec.name: written[spec.name] for spec in fields(kind)})
        else:
            values[parameter] = _settings_of(kind, written[parameter]) if _is_section(kind) else written[parameter]
    return values, written


def _first(function: Callable) -> list[str]:
    """Options of the parameters that are required and one word each: they may come first, without their names."""
    parameters = inspect.signature(function).parameters
    kinds = {key: kind for key, kind in _hints(function).items() if kind in (Path, str, int, float)}
    return [_option(key) for key in kinds if parameters[key].default is inspect.Parameter.empty]


def _with_names(command_line: list[str], options: list[str]) -> list[str]:
    """Put options before the arguments that come first and have none."""
    named, rest = [], list(command_line)
    for option in options:
        if not rest or rest[0].startswith("-"):
            break
        named += [option, rest.pop(0)]
    return [*named, *rest]


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
