"""The stages as subcommands, for use without Snakemake.

Each subcommand is one library function: its arguments are the function's parameters, its help the
function's docstring, so that the two cannot drift apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visae.arguments import read_arguments
from visae.config.parse import load_config
from visae.config.schema import config_documentation, json_schema
from visae.errors import DataError, VisaeError
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
    "sae-benchmark": ("visae.features.benchmark.table", "write_benchmark"),
    "attribution": ("visae.attribution.exemplars", "attribute_exemplars"),
    "attribution-of-pairs": ("visae.attribution.of_pairs", "attribute_pairs"),
    "probe": ("visae.heads.probe", "train_probe"),
    "segmentation-head": ("visae.heads.segmentation", "train_segmentation_head"),
    "experiment": ("visae.experiments.experiment", "run_experiment"),
    "atlas": ("visae.discovery.atlas", "run_atlas"),
    "counterfactuals": ("visae.counterfactual.experiment", "run_counterfactuals"),
    "groups": ("visae.groups.experiment", "run_groups"),
    "interactions": ("visae.discovery.interactions", "run_interactions"),
    "audit": ("visae.audit.audit", "run_audit"),
    "atlas-sets": ("visae.discovery.sets", "run_sets"),
    "compared": ("visae.gain.train", "train_compared"),
    "gain": ("visae.gain.compare", "run_gain"),
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
    "sae-benchmark": "measure an SAE by the metrics of visaebench and saev",
    "attribution": "find where in their pictures latents look, and check it by covering places",
    "attribution-of-pairs": "measure whether latents look where pairs of pictures differ",
    "causes": "score latents against the known causes of scenes",
    "ground-truth": "print how well dictionaries tell the known causes",
    "probe": "train a linear classification probe",
    "segmentation-head": "train a segmentation head",
    "experiment": "edit latents and measure a task, beside controls",
    "atlas": "find which latents a task uses, and prove them by edits",
    "counterfactuals": "measure latents on pairs of pictures that differ in one cause",
    "interactions": "edit latents of an atlas together: pairs, and groups that stand in for each other",
    "audit": "test proposed meanings of latents on other pictures",
    "atlas-sets": "find sets of proven latents that move a class together",
    "compared": "train the dictionaries that an SAE is compared with",
    "gain": "measure what an SAE adds to dictionaries that learned less",
    "groups": "find the latents that serve a shortcut, and suppress them beside controls and retraining",
    "faithfulness": "measure tasks with patches replaced by their reconstruction, their mean and zero",
    "model-check": "measure what a model knows of classes of pictures, beside random weights",
    "doctor": "look at a study before anything runs: what is fine, odd and wrong",
    "plan": "print the bytes, memory and hours that a configuration will need",
    "headline": "print a finished workflow's main numbers",
}


# Of a path that was named: nothing is wrong with the program.
_NOT_TO_BE_WRITTEN = (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


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
        if isinstance(error, _NOT_TO_BE_WRITTEN) and error.filename:
            sys.exit(f"{error.filename2 or error.filename}: {error.strerror}; name a place that can be written to")
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


def _run(name: str, place: tuple[str, str], command_line: list[str]) -> None:
    """Call a library function with the arguments of a command line."""
    module, function_name = place
    function = getattr(importlib.import_module(module), function_name)
    values, written = read_arguments(f"visae {name}", function, command_line)
    # What it is about to write says its own.
    if name != "index":
        given = (entry for value in written.values() for entry in (value if isinstance(value, list) else [value]))
        repeat_warnings(entry for entry in given if isinstance(entry, str | Path))
    try:
        function(**values)
    except FileNotFoundError as error:
        if missing := _missing(written, str(error)):
            raise DataError(f"{missing}: no such file or folder") from error
        raise


def _missing(written: Mapping[str, Any], text: str) -> str | None:
    """Option whose file is not there, of those that an error names."""
    for key, value in written.items():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str | Path) and str(entry) in text and not Path(entry).exists():
                return f"--{key.strip('_').replace('_', '-')} {entry}"
    return None
