"""Find latents that serve a shortcut, suppress them, and compare what that does with controls and with retraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visae.config.settings import GroupSettings, InterventionSettings
from visae.data.index import read_groups
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.experiments.files import ExperimentFiles
from visae.experiments.opened import FIT, MEASURED, Opened
from visae.files import write_json, write_table
from visae.groups.steps import Steps
from visae.groups.tables import accuracy_table, latent_table
from visae.groups.truth import followed, share_that_follows
from visae.provenance import Provenance
from visae.tasks.pictures import PictureTask

SHORTCUT_AMONG = 10
"""So many of the first latents are asked how many follow the background, where it is known."""


def run_groups(
    task: str,
    files: ExperimentFiles,
    settings: GroupSettings,
    layer: int,
    output: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Find latents that help on train and harm in weak groups; write groups.parquet, spurious.parquet and groups.json.

    Groups are those of the data set's index. Split val is cut in two halves, group by group. On the first half groups
    are weak where their accuracy is below the mean over groups. The effect of switching off each latent on the log odds
    of the true class is estimated from backward passes, on split train and in these groups; latents are ranked by how
    much they do of both, help on train and harm in weak groups. The first n are suppressed together in every picture,
    and n is chosen on the first half by the accuracy of the worst group. On the second half that is compared with as
    many other latents, with a probe that is retrained on equally many pictures of each group, and with one retrained
    on pictures without these latents. The first latents are also measured one by one there.

    Parameters
    ----------
    task
        A task of the study on pictures.
    files
        What it is run from; as for an experiment.
    settings
        Section `groups`.
    layer
        Whose output is edited.
    output
        Folder.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What groups.json holds.

    Raises
    ------
    DataError
        If pictures have no groups, or fewer than two groups have two pictures in split val, no latent is active on
        split train, or the task does not answer with a class a picture.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    edits = InterventionSettings(batch_size=settings.batch_size, bootstrap=settings.bootstrap)
    found = Opened.of(task, files, edits, layer, chosen, seed)
    if not isinstance(found.task, PictureTask):
        raise DataError(f"{task}: groups are of pictures, and this task has no answer a picture; name a task that has")
    if not found.activity.count:
        raise DataError(f"{files.codes}: no latent is active on split {FIT}; train the SAE for longer")
    steps = Steps(found, found.task, settings, layer, seed, read_groups(files.index))
    steps.rank()
    steps.suppress()
    steps.retrain()
    causes = followed(files.codes, files.index, MEASURED)
    write_table(output / "groups.parquet", accuracy_table(steps.ways))
    latents = latent_table(steps.effects, sorted(found.activity.count), steps.ranked, steps.single, causes)
    write_table(output / "spurious.parquet", latents)
    summary = {"task": task, "layer": layer, **steps.summary()}
    if causes is not None:
        summary["follow_background"] = share_that_follows(causes, steps.ranked[:SHORTCUT_AMONG])
    summary["provenance"] = provenance.record()
    write_json(output / "groups.json", summary)
    return summary
