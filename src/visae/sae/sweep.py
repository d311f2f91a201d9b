"""One SAE of several that are trained on one reading: the first that is asked for trains all that are missing."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from visae.errors import VisaeError
from visae.files import atomic_path, locked, read_json, text_sha256, write_json
from visae.sae.trainee import Member
from visae.sae.trainer import train_together

logger = logging.getLogger(__name__)


def train_one_of(
    name: str,
    members: dict[str, Member],
    manifests: list[Path],
    device: str = "auto",
    seed: int = 0,
    target_manifests: list[Path] | None = None,
    loggers: list[str] | None = None,
    scratch: str | None = None,
) -> dict[str, Any]:
    """Publish one SAE's results, training it and all others that are missing where it is not made yet.

    The others' results wait in their work folders until they are asked for themselves. A lock keeps two processes from
    doing the same work: the second waits, and then finds its result made.

    Parameters
    ----------
    name
        Which of the members is asked for.
    members
        All that share a reading of the data, by name. The name of a member's work folder must be a hash of all that
        decides its result; `output` is where that is published.
    manifests, device, seed, target_manifests, loggers, scratch
        As of `train`.

    Returns
    -------
    dict
        The SAE's summary.

    Raises
    ------
    VisaeError
        If this SAE could not be trained. That another could not is logged, and raised when that one is asked for.
    """
    own = members[name]
    shared = [str(own.output.parent), str(own.settings.batch_size), str(own.settings.seed), *map(str, manifests)]
    with locked(own.work.parent / f"{text_sha256(' '.join([*shared, *map(str, target_manifests or [])]))[:16]}.lock"):
        if not _made(own):
            missing = [name, *(other for other in members if other != name and not _is_there(members[other]))]
            logger.info("to be trained on one reading: %s", ", ".join(missing))
            chosen = [Member(m.settings, m.work / name, m.work) for name, m in ((n, members[n]) for n in missing)]
            try:
                train_together(chosen, manifests, device, seed, target_manifests, loggers, scratch)
            except VisaeError as error:
                if not _made(own):
                    raise
                logger.warning("%s is trained; of the others: %s", name, error)
        return _published(own)


def _made(member: Member) -> bool:
    """Whether its result is in its work folder."""
    return (member.work / member.output.name / "summary.json").is_file()


def _is_there(member: Member) -> bool:
    """Whether its result is made, or published by a run that made it from the very same things."""
    summary = member.output / "summary.json"
    return _made(member) or (summary.is_file() and read_json(summary).get("made_from") == member.work.name)


def _published(member: Member) -> dict[str, Any]:
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
