"""The stages as subcommands, for use without Snakemake.

Each subcommand is one library function: its arguments are the function's parameters, its help the
function's docstring, so that the two cannot drift apart.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import logging
import re
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from visae.config.parse import load_config
from visae.config.schema import config_documentation, json_schema
from visae.config.sections import parse_section
from visae.config.strict_yaml import parse_pairs, parse_strictly
from visae.errors import ConfigError, VisaeError
from visae.notices import repeat_warnings
from visae.space import explained_lack
from visae.version import __version__

# In the order in which data passes. Imported only when called: --help must not wait for torch.
STAGES = {
    "index": ("visae.data.index", "build_index"),
    "model": ("visae.vision.model", "prepare_model"),
    "patch-labels": ("visae.data.patch_labels", "write_patch_labels"),
    "extract": ("visae.activations.extract", "extract_shard"),
    "store": ("visae.activations.extract", "publish_store"),
    "adopt": ("visae.activations.given", "adopt_activations"),
    "train": ("visae.sae.trainer", "train"),
    "import-sae": ("visae.sae.foreign.transfer", "import_sae"),
    "sae-place": ("visae.sae.proof.command", "sae_place"),
    "export-sae": ("visae.publish.export", "export_sae"),
    "encode": ("visae.features.encoding", "encode_store"),
    "statistics": ("visae.features.statistics", "write_statistics"),
    "exemplars": ("visae.features.exemplars", "write_exemplars"),
    "scores": ("visae.features.scores", "write_scores"),
    "causes": ("visae.features.ground_truth", "write_cause_scores"),
    "ground-truth": ("visae.figures.ground_truth", "print_ground_truth"),
    "image-scores": ("visae.features.image_scores", "write_image_scores"),
    "purity": ("visae.features.purity", "write_purity"),
    "monosemanticity": ("visae.features.monosemanticity", "write_monosemanticity"),
    "probe": ("visae.heads.probe", "train_probe"),
    "segmentation-head": ("visae.heads.segmentation", "train_segmentation_head"),
    "experiment": ("visae.experiments.experiment", "run_experiment"),
    "faithfulness": ("visae.experiments.faithfulness", "measure_faithfulness"),
    "model-check": ("visae.heads.model_check", "check_model"),
    "doctor": ("visae.doctor.examine", "doctor"),
    "plan": ("visae.planning.plan", "plan"),
    "headline": ("visae.headline", "print_headline"),
}
# Commands in groups: run by hand, and no stage of the workflow.
FEATURE_COMMANDS = {
    "show": ("visae.explore.commands", "show"),
    "sheet": ("visae.explore.commands", "sheet"),
    "query": ("visae.explore.commands", "query"),
    "edit": ("visae.explore.commands", "edit"),
    "names": ("visae.explore.commands", "propose_names"),
    "probe": ("visae.features.semantic_probe", "probe_concept"),
    "stability": ("visae.features.stability", "compare_seeds"),
}
_FEATURE_SUMMARIES = {
    "show": "draw everything that is kept of a few latents",
    "sheet": "draw a contact sheet of many latents, chosen by frequency and strength",
    "query": "rank latents by their activation in a region, and draw their exemplars",
    "edit": "edit latents in a picture, and draw what the heads make of it before and after",
    "names": "propose names for latents",
    "probe": "test whether latents tell two folders of pictures apart, beside chance",
    "stability": "match the latents of SAEs that were trained with other seeds",
}
_SUMMARIES = {
    "index": "list a data set's pictures",
    "model": "get a model's weights and write its card",
    "patch-labels": "give each patch the class of most of its pixels",
    "extract": "write one shard of activations, all missing layers in one forward pass",
    "store": "publish a layer's shards as a store",
    "adopt": "make a store of activations from elsewhere",
    "train": "train a sparse autoencoder",
    "import-sae": "take in an SAE of another project: a file, a folder, or hub:owner/name",
    "sae-place": "prove where in a model an SAE belongs",
    "export-sae": "write an SAE as another project reads it, or as a folder for the hub",
    "encode": "turn a store into sparse codes",
    "statistics": "describe each latent in numbers",
    "exemplars": "find the pictures that show each latent: the strongest, and a sample of its whole range",
    "scores": "score latents against classes of patches: chosen on train, measured on val",
    "image-scores": "score latents against classes of pictures",
    "purity": "compare the labels of each latent's strongest pictures",
    "monosemanticity": "compare the pictures that activate each latent, by another model",
    "causes": "score latents against the known causes of scenes",
    "ground-truth": "print how well dictionaries tell the known causes",
    "probe": "train a linear classification probe",
    "segmentation-head": "train a segmentation head",
    "experiment": "edit latents and measure a task, beside controls",
    "faithfulness": "measure tasks with patches replaced by their reconstruction, their mean and zero",
    "model-check": "measure what a model knows of classes of pictures, beside random weights",
    "doctor": "look at a study before anything runs: what is fine, odd and wrong",
    "plan": "print the bytes, memory and hours that a configuration will need",
    "headline": "print a finished workflow's main numbers",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; an expected error is one line and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if arguments and arguments[0] in STAGES:
            _run(arguments[0], STAGES[arguments[0]], arguments[1:])
        elif arguments[:1] == ["features"] and arguments[1:2] and arguments[1] in FEATURE_COMMANDS:
            _run(" ".join(arguments[:2]), FEATURE_COMMANDS[arguments[1]], arguments[2:])
        else:
            _run_other(arguments)
    except VisaeError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except Exception as error:
        if full := explained_lack(error, Path.cwd()):
            sys.exit(full)
        raise


def _run_other(arguments: list[str]) -> None:
    lines = "\n".join(f"  {name:22}{summary}" for name, summary in _SUMMARIES.items())
    parser = argparse.ArgumentParser(
        prog="visae",
        description="Find out what a vision transformer has learned, and prove it by experiment.\n"
        "The whole workflow: snakemake --cores all --configfile config/config.yaml",
        epilog=f"stages (each has its own --help):\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"visae {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="config | activations | features | STAGE")
    config = commands.add_parser("config", help="check a configuration, or print its documentation or schema")
    actions = config.add_subparsers(dest="action", required=True)
    actions.add_parser("check", help="parse a file and name every mistake").add_argument("file", type=Path)
    actions.add_parser("docs", help="print docs/config.md")
    actions.add_parser("schema", help="print the JSON Schema")
    store = commands.add_parser("activations", help="check a store on disk")
    checks = store.add_subparsers(dest="action", required=True)
    check = checks.add_parser("check", help="read every byte; name truncated, altered, foreign and missing shards")
    check.add_argument("folder", type=Path, help="folder of a manifest.json, or one above several")
    features = commands.add_parser("features", help="look at latents and test them by hand")
    looks = features.add_subparsers(dest="action", required=True)
    for name, summary in _FEATURE_SUMMARIES.items():
        looks.add_parser(name, help=summary)
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
    elif parsed.command == "activations":
        _check_store(parsed.folder)
    elif parsed.action == "check":
        load_config(parsed.file)
        print(f"{parsed.file}: no mistakes")
    elif parsed.action == "docs":
        print(config_documentation(), end="")
    else:
        print(json.dumps(json_schema(), indent=2))


def _check_store(folder: Path) -> None:
    """Print what is wrong with a store; exit status 1 if anything is."""
    from visae.activations.check import check_store

    problems = check_store(folder)
    if problems:
        sys.exit("\n".join(problems))
    print(f"{folder}: every shard is whole and as it was written")


def _run(name: str, place: tuple[str, str], arguments: list[str]) -> None:
    """Call a library function with the arguments of a command line."""
    module, function_name = place
    function = getattr(importlib.import_module(module), function_name)
    parser, values = _parser_of(name, function), {}
    parsed = _parsed(parser, arguments, _first(function))
    for parameter, kind in _hints(function).items():
        if _is_group(parameter, kind):
            values[parameter] = kind(**{spec.name: parsed[spec.name] for spec in fields(kind)})
        else:
            values[parameter] = _settings_of(kind, parsed[parameter]) if _is_section(kind) else parsed[parameter]
    # What it is about to write says its own.
    if name != "index":
        given = (entry for value in parsed.values() for entry in (value if isinstance(value, list) else [value]))
        repeat_warnings(entry for entry in given if isinstance(entry, str | Path))
    function(**values)


def _first(function: Callable) -> list[str]:
    """Options of the parameters that are required and one word each: they may come without their names."""
    parameters = inspect.signature(function).parameters
    kinds = {key: kind for key, kind in _hints(function).items() if kind in (Path, str, int, float)}
    return [_option(key) for key in kinds if parameters[key].default is inspect.Parameter.empty]


def _parsed(parser: argparse.ArgumentParser, arguments: list[str], first: list[str]) -> dict[str, Any]:
    """Values of all options; arguments without a name are those that are required and not given, in their order."""
    actions = [action for action in parser._actions if {*action.option_strings} & {*first}]
    if not {"-h", "--help"} & {*arguments}:  # whose usage shows them as they are
        for action in actions:
            action.required = False
    parsed, rest = parser.parse_known_args(arguments)
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


def _parser_of(name: str, function: Callable) -> argparse.ArgumentParser:
    """Build a parser from a function's signature and NumPy docstring.

    A parameter that groups some, such as the files that a job reads, is an option for each of them.
    """
    text = inspect.getdoc(function) or ""
    first = " ".join(option.removeprefix("--").upper() for option in _first(function))
    hint = f"What is required may come without names, in this order: {first}" if first else None
    parser = argparse.ArgumentParser(prog=f"visae {name}", description=text.split("\n\n")[0], epilog=hint)
    _add_options(parser, function)
    for key, kind in _hints(function).items():
        if _is_group(key, kind):
            _add_options(parser, kind)
    return parser


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
