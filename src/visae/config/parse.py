"""Reading a configuration: YAML to frozen settings, every mistake named by its key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from visae.config.consistency import unresolved
from visae.config.members import sweep_problems, transcoder_problems
from visae.config.published import published_problems
from visae.config.sections import parse_section
from visae.config.settings import Settings
from visae.config.strict_yaml import read_strictly
from visae.errors import ConfigError


def load_config(path: str | Path) -> Settings:
    """Read and check a YAML file; raises as parse_config does, and for what read_strictly refuses."""
    return parse_config(read_strictly(path), where=str(path))


def parse_config(values: dict[str, Any], where: str = "config") -> Settings:
    """Check nested settings against the schema, fill in defaults, and freeze them.

    Parameters
    ----------
    values
        What the YAML says; `${NAME}` in a text is replaced by the environment variable.
    where
        Named in errors.

    Raises
    ------
    ConfigError
        For an unknown key, a value out of range, or a name that is not defined; all mistakes are listed.
    """
    # A job looks `scratch` up where it runs: another machine has its own TMPDIR, or none.
    settings = replace(parse_section(Settings, values, where), scratch=values.get("scratch"))
    problems = [*sweep_problems(settings), *unresolved(settings), *published_problems(settings)] or list(
        transcoder_problems(settings)
    )
    if problems:
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in problems))
    return settings
