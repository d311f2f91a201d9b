"""What a task answers when latents are switched off in every picture, beside other latents switched off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visae.arms.arms import Unedited, outcomes
from visae.arms.changes import Draws, situation
from visae.arms.targets import Activity, drawn_controls, latent_draws
from visae.config.interventions import AUTOMATIC, NATURAL, SIZES
from visae.edits.edit import patch_rows
from visae.groups.pictures import Grouped
from visae.sae import SparseAutoencoder
from visae.sae.place import among_last
from visae.tasks.counts import Target
from visae.tasks.pictures import PictureTask

OFF = 0.0
"""The value that latents are set to."""

BEFORE, SUPPRESSED = ("none", NATURAL), (AUTOMATIC, NATURAL)
"""Arm and size of no edit, and of the latents themselves."""


@dataclass(frozen=True)
class Answers:
    """Of every picture, means over draws.

    Attributes
    ----------
    right
        (n,) whether the likeliest class is the true one.
    odds
        (n,) log odds of the true class.
    """

    right: NDArray[np.float64]
    odds: NDArray[np.float64]


@torch.inference_mode()
def answers(
    task: PictureTask,
    sae: SparseAutoencoder,
    pictures: Grouped,
    draws: Draws,
    batch_size: int,
    sizes: Sequence[str] = SIZES,
) -> dict[tuple[str, str], Answers]:
    """Answers before and after each arm, by arm and size; edited are all tokens that the SAE is of, in every picture.

    Parameters
    ----------
    draws
        Of each arm; the latents themselves are the automatic one. Without any it is what the task answers unedited.
    sizes
        Of the controls: their own, and that of the latents' change on each token.
    """
    found: dict[tuple[str, str], Answers] = {}
    start = 0
    for ids, tokens in task.batches(pictures.ids):
        rows, start = slice(start, start + len(ids)), start + len(ids)
        truth = torch.from_numpy(pictures.truth[rows]).to(tokens.device)
        everywhere = torch.ones(tokens[:, task.own].shape[:2], dtype=torch.bool, device=tokens.device)
        mask = among_last(everywhere, task.tokens, tokens.shape[1])
        batch = Unedited(tokens, mask, task.logits(tokens), situation(sae, patch_rows(tokens, mask), draws))
        for outcome in outcomes(batch, draws, (OFF,), read=task.logits, batch_size=batch_size, sizes=sizes):
            key = outcome.arm, outcome.size
            kept = found.setdefault(key, Answers(np.zeros(len(pictures)), np.zeros(len(pictures))))
            right = outcome.after.argmax(dim=1) == truth
            kept.right[rows] += right.double().cpu().numpy() / outcome.draws
            kept.odds[rows] += true_log_odds(outcome.after, truth).cpu().numpy() / outcome.draws
    return found


def true_log_odds(logits: Tensor, truth: Tensor) -> Tensor:
    """Log odds (b,) of the true classes (b,) against all others, of logits (b, n_classes)."""
    logits = logits.double()
    others = logits.scatter(1, truth[:, None], -torch.inf).logsumexp(dim=1)
    return logits.gather(1, truth[:, None])[:, 0] - others


def draws_of(sets: Sequence[tuple[int, ...]], activity: Activity, n_draws: int, seed: int) -> list[Draws]:
    """Draws of every set of latents: itself, random latents, and such that are about as often active.

    Controls are none of the latents of any set.
    """
    targets = [Target(number, "", latents, 0.0) for number, latents in enumerate(sets)]
    controls = drawn_controls(targets, activity, n_draws, seed)
    return [latent_draws(target, controls[target.class_id], activity) for target in targets]


def as_often_active(latents: tuple[int, ...], activity: Activity, seed: int) -> tuple[int, ...]:
    """As many other latents, each about as often active as one of these."""
    return drawn_controls([Target(0, "", latents, 0.0)], activity, 1, seed)[0].frequency_matched[0]


def possible(numbers: Iterable[int], n_ranked: int, n_verified: int, n_active: int, n_draws: int) -> list[int]:
    """Numbers of latents, ascending, for which the ranking has enough, and enough others are active to draw controls.

    Parameters
    ----------
    n_ranked, n_verified, n_active
        Latents that are ranked, that are edited one by one, and that are active.
    n_draws
        Of controls.
    """
    return [
        n
        for n in sorted(set(numbers))
        if 0 < n <= n_ranked and n_draws * n <= n_active - max(n, min(n_verified, n_ranked))
    ]
