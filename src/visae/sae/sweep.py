"""One SAE of several that are trained on one reading: the first that is asked for trains all that are missing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from visae.errors import VisaeError
from visae.files import text_sha256
from visae.lease import leased
from visae.sae.trainer import train_together
from visae.work import Member, is_made, missing_of, publish

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

    The others' results wait in their work folders until they are asked for themselves. A lease keeps two processes from
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
    with leased(own.work.parent / f"{text_sha256(' '.join([*shared, *map(str, target_manifests or [])]))[:16]}.lease"):
        if not is_made(own):
            try:
                missing = [own, *missing_of(member for other, member in members.items() if other != name)]
                train_missing(missing, manifests, device, seed, target_manifests, loggers, scratch)
            except VisaeError as error:
                if not is_made(own):
                    raise
                logger.warning("%s is trained; of the others: %s", name, error)
        return publish(own)


def train_missing(
    members: Iterable[Member],
    manifests: list[Path],
    device: str = "auto",
    seed: int = 0,
    target_manifests: list[Path] | None = None,
    loggers: list[str] | None = None,
    scratch: str | None = None,
) -> None:
    """Train those whose results are not in their work folders; leaves them there. Parameters as of `train_one_of`."""
    missing = [member for member in members if not is_made(member)]
    if missing:
        logger.info("to be trained on one reading: %s", ", ".join(member.output.name for member in missing))
        chosen = [Member(member.settings, member.work / member.output.name, member.work) for member in missing]
        train_together(chosen, manifests, device, seed, target_manifests, loggers, scratch)
