"""Training sparse autoencoders, one or many on one reading of the stores, so that they survive being killed."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.activations.staging import staged
from visae.config.settings import AnySae
from visae.device import chosen_device
from visae.errors import TrainingError, VisaeError
from visae.progress import progress_bar
from visae.sae.data import TrainingData
from visae.sae.interruption import Interruption
from visae.sae.parallel import Ranks, joined
from visae.sae.trainee import Trainee
from visae.work import Member

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Around:
    """What is around a training run, and has no part in its result.

    Attributes
    ----------
    loggers
        `tensorboard`, `wandb` or both: where else to send what metrics.parquet gets.
    scratch
        Folder on this machine's own disk that the stores are copied to first, such as `$TMPDIR`; see `staged`.
    """

    loggers: list[str] | None = None
    scratch: str | None = None


def train(
    settings: AnySae,
    manifests: list[Path],
    output: Path,
    work: Path,
    device: str = "auto",
    seed: int = 0,
    target_manifests: list[Path] | None = None,
    around: Around = Around(),
) -> dict[str, Any]:
    """Train an SAE on the tokens of split `train`; writes sae.safetensors, config.json, metrics.parquet, summary.json.

    A run that was killed continues from its newest checkpoint in `work`; on CPU it then ends with the very
    weights that it would have had. SIGUSR1 has it write a checkpoint at once and go on; SIGTERM and Ctrl-C, and stop.

    Parameters
    ----------
    settings
        Variant, width and how to train.
    manifests
        Activation stores, read as one.
    output
        Folder of the results; summary.json is written last.
    work
        Folder of the checkpoints; they are deleted when the results are written.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Added to the settings' own seed.
    target_manifests
        For a transcoder: a store for each of `manifests`, of the same tokens at another layer, which the codes
        shall give.
    around
        What has no part in the result: where else metrics go, and where stores are copied to.

    Returns
    -------
    dict
        What summary.json holds: quality on held-out tokens (split `val` where a store has it).
    """
    return train_together(
        [Member(settings, output, work)], manifests, device, seed, target_manifests, around.loggers, around.scratch
    )[0]


def train_together(
    members: list[Member],
    manifests: list[Path],
    device: str = "auto",
    seed: int = 0,
    target_manifests: list[Path] | None = None,
    loggers: list[str] | None = None,
    scratch: str | None = None,
) -> list[dict[str, Any]]:
    """Train several SAEs on one reading of the data: each comes out as if `train` had trained it alone.

    Members may differ in everything but batch size, seed and kind of tokens, which decide the batches. Each has its own
    checkpoints; one that is ahead of the others waits. One whose loss is no number stops, and the others go on.

    Parameters
    ----------
    members
        What to train.
    manifests, device, seed, target_manifests, loggers, scratch
        As of `train`.

    Returns
    -------
    list of dict
        The members' summaries.

    Raises
    ------
    TrainingError
        If members would have different batches; and at the end, if a member could not be trained: names all that
        could not. A sole member's error is raised as it is.
    """
    first = members[0].settings
    for key in ("batch_size", "seed", "tokens"):
        found = {getattr(member.settings, key) for member in members}
        if len(found) > 1:
            raise TrainingError(f"{key}: members that are trained together must have the same one, not {sorted(found)}")
    seed += first.seed
    targets = target_manifests or []
    failures: dict[int, VisaeError] = {}
    trainees = {}
    with staged([*manifests, *targets], scratch) as near, joined(chosen_device(device)) as (ranks, where):
        data = TrainingData(near[: len(manifests)], near[len(manifests) :], first.batch_size, seed, first.tokens)
        for number, member in enumerate(members):
            try:
                trainees[number] = Trainee(member, data, [*manifests, *targets], where, seed, ranks, loggers or [])
            except VisaeError as error:
                failures[number] = error
        data.forget_sample()
        summaries = _train_all(trainees, data, failures, ranks)
    if len(members) == 1 and failures:
        raise failures[0]
    if failures:
        lines = [f"{Path(members[number].output).name}: {failures[number]}" for number in sorted(failures)]
        raise TrainingError("\n".join(lines))
    return [summaries[number] for number in range(len(members))]


def _train_all(
    trainees: dict[int, Trainee], data: TrainingData, failures: dict[int, VisaeError], ranks: Ranks
) -> dict[int, dict[str, Any]]:
    """Train to the last step of each; returns summaries by the number of the member, and adds to `failures`."""
    summaries = {number: trainee.finish() for number, trainee in trainees.items() if trainee.is_done}
    active = {number: trainee for number, trainee in trainees.items() if number not in summaries}
    if not active:
        return summaries
    step = min(trainee.run.step for trainee in active.values())
    label = f"SAE ({next(iter(active.values())).settings.variant})" if len(active) == 1 else f"{len(active)} SAEs"
    bar = progress_bar(max(trainee.settings.steps for trainee in active.values()), label, "steps", initial=step)
    with data.batches(step) as batches, Interruption(ranks) as interruption, bar:
        while active:
            asked = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - asked
            for number, trainee in list(active.items()):
                if trainee.run.step != step:  # it is ahead, from an earlier part of the run
                    continue
                try:
                    row = trainee.learn(batch, waited)
                except TrainingError as error:
                    failures[number] = error
                    logger.error("%s: %s", Path(trainee.member.output).name, error)
                    del active[number]
                    continue
                bar.set_postfix(
                    {
                        key: f"{row[name]:.4g}"
                        for key, name in (("loss", "loss"), ("nmse", "normalized_mse"), ("l0", "l0"))
                    },
                    refresh=False,
                )
                if trainee.is_done:
                    summaries[number] = trainee.finish()
                    del active[number]
            step += 1
            bar.update()
            if interruption.take_keep_asked():
                for trainee in active.values():
                    trainee.keep()
            interruption.raise_if_asked()
    return summaries
