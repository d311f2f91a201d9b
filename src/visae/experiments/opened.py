"""What every experiment begins with: a task, the SAE that is edited, and what a split says of its latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visae.arms.members import selection_of
from visae.arms.selection import Selection
from visae.arms.targets import Activity, latent_activity
from visae.config.settings import InterventionSettings
from visae.edits.opened import open_edited
from visae.experiments.files import ExperimentFiles
from visae.sae import SparseAutoencoder
from visae.tasks.members import open_task
from visae.tasks.task import Task

FIT, MEASURED = "train", "val"
"""Splits on which latents are chosen, and on which edits are measured."""


@dataclass(frozen=True)
class Opened:
    """A task whose tokens are those that the SAE is of, the SAE, how active its latents are on FIT, and FIT itself."""

    task: Task
    sae: SparseAutoencoder
    activity: Activity
    selection: Selection

    @classmethod
    def of(
        cls,
        task: str,
        files: ExperimentFiles,
        settings: InterventionSettings,
        layer: int,
        device: torch.device,
        seed: int,
    ) -> Opened:
        """Open what an experiment on a task is run with; ModelError or DataError where files do not fit together."""
        model, sae = open_edited(files.card, files.sae, layer, device)
        opened = open_task(task, files, model, layer, device, settings.batch_size)
        opened.tokens = sae.place.tokens
        activity = latent_activity(files.codes, opened.store.image_ids(FIT))
        selection = selection_of(
            opened,
            files.labels,
            files.min_purity,
            FIT,
            settings=settings,
            sae=sae,
            codes_manifest=files.codes,
            activity=activity,
            seed=seed,
            scores=files.scores,
        )
        return cls(opened, sae, activity, selection)
