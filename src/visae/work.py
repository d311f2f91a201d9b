"""SAEs in the making: each trained in a work folder of its own, and published from there. Needs no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.config.settings import AnySae
from visae.files import atomic_path, read_json, write_json


@dataclass(frozen=True)
class Member:
    """One of several SAEs that are trained together.

    Parameters
    ----------
    settings
        Variant, width and how to train.
    output
        Folder of the results; summary.json is written last.
    work
        Folder of the checkpoints; they are deleted when the results are written.
    """

    settings: AnySae
    output: Path
    work: Path


def missing_of(members: Iterable[Member]) -> list[Member]:
    """Those whose results are neither made nor published by a run that made them from the very same things."""
    return [member for member in members if not is_made(member) and not _is_published(member)]


def is_made(member: Member) -> bool:
    """Whether its result is in its work folder."""
    return (member.work / member.output.name / "summary.json").is_file()


def _is_published(member: Member) -> bool:
    summary = member.output / "summary.json"
    return summary.is_file() and read_json(summary).get("made_from") == member.work.name


def publish(member: Member) -> dict[str, Any]:
    """Copy the result to where it belongs, summary.json last, then delete the work folder."""
    made = member.work / member.output.name
    summary = {**read_json(made / "summary.json"), "made_from": member.work.name}
    # Not moved: Snakemake deletes what a killed job has published.
    for file in ("sae.safetensors", "config.json", "metrics.parquet"):
        with atomic_path(member.output / file) as temporary:
            shutil.copyfile(made / file, temporary)
    write_json(member.output / "summary.json", summary)
    shutil.rmtree(member.work, ignore_errors=True)
    return summary
