"""The configuration of a workflow as its files and command line write it, read strictly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visae.config.strict_yaml import parse_pairs, read_strictly

_Load = Callable[[str], dict[str, Any]]


def as_written(
    config: dict[str, Any], workflow: Any, loosely: _Load, update: Callable[[dict, dict], None]
) -> dict[str, Any]:
    """Return `config` with the values that its files and `--config` have, where it is made of them.

    Parameters
    ----------
    config
        What Snakemake made of files and command line; another workflow that includes this one as a module may have
        handed on a section of it, or something of its own, which is returned as it is.
    workflow
        Snakemake's.
    loosely, update
        How Snakemake reads a file, and merges a second mapping into a first.

    Raises
    ------
    ConfigError
        If a file cannot be read strictly, whatever of it is used.
    """
    asked = workflow.config_settings
    on_top = [Path(path) for path in asked.configfiles]
    below = [Path(path) for path in workflow.configfiles if Path(path) not in on_top]

    def merged(load: _Load, last: dict[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for path in [*below, *on_top]:
            update(values, load(str(path)))
        update(values, copy.deepcopy(last))
        return values

    last = dict(asked.config)
    strict = merged(read_strictly, parse_pairs(asked.config_args, "--config") if last else {})
    loose = merged(loosely, last)
    if config == loose:
        return strict
    return next((strict[key] for key, section in loose.items() if section == config), config)
