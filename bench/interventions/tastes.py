"""What the planted truth says of edited users, on results of config/recommender.yaml.

    python -m bench.interventions.tastes RESULTS

A user's vector is a sum of the tastes' directions, each times its known strength, so that the list of a user who never
had a taste is known too: that of the vector without it. In users of val whose first ten have an item of a taste, the
taste's chosen latent is set to 0. Beside it stand a random vector as long on each user, and the truth itself: the taste
taken out by its strength. Shares are means over tastes; intervals resample users.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import normalize

from visae.arms.directions import random_vectors
from visae.intervals import interval, resampling_weights
from visae.study import Study
from visae.tasks.counts import SUPPRESS, Target
from visae.tasks.readout import Readout

RESAMPLES = 1000
COLUMNS = ("the taste's items that leave", "other items that leave", "list as if never liked")


@torch.inference_mode()
def edits_of(
    study: Study, target: Target, rows: Tensor, strength: Tensor, taste: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Users (n, d_model) after each edit, by its name."""
    sae = study.sae(study.saes[0])
    change = -sae.latent_values(rows, list(target.latents)) @ sae.directions()[list(target.latents)]
    yield "nothing", rows
    yield (
        "a random vector, as long",
        rows + change.norm(dim=1, keepdim=True) * random_vectors(1, rows.shape[1], 0, target.class_id),
    )
    yield "the taste's latent, to 0", rows + change
    yield "the truth: the taste, by its strength", rows - strength[:, None] * taste


@torch.inference_mode()
def counted(task: Readout, target: Target, rows: Tensor, edited: Tensor, never: Tensor) -> NDArray[np.float64]:
    """Of each user: items of the taste in the list and those that leave, others likewise, and the share of `never`."""
    own = task.of_class == task.numbers[target.class_id]
    before, after, truth = (task.listed(task.read(part[:, None])) for part in (rows, edited, never))
    leaves = ~(before[:, :, None] == after[:, None]).any(dim=2)
    same = (after[:, :, None] == truth[:, None]).any(dim=2).double().mean(dim=1)
    found = [own[before], leaves & own[before], ~own[before], leaves & ~own[before]]
    return torch.stack([*(part.sum(dim=1).double() for part in found), same], dim=1).numpy()


def main() -> None:
    study = Study.open(sys.argv[1], "recommender", "cpu")
    task, dataset = study.task("readout"), study.tasks["readout"]
    assert isinstance(task, Readout)
    folder = Path(sys.argv[1], "datasets", dataset)
    tastes, liked = load_file(folder / "truth.safetensors")["tastes"], pl.read_parquet(folder / "liked.parquet")
    task.look(task.store.image_ids("val"))
    cosines = normalize(study.sae(study.saes[0]).decoder_weight) @ tastes.T
    weights = np.vstack([np.ones(len(task.measured)), resampling_weights(len(task.measured), RESAMPLES, 0)])
    shares: dict[str, list[NDArray[np.float64]]] = {}
    found = []
    for entry in study.summary(study.saes[0], "readout")["classes"]:
        target = Target(entry["id"], entry["name"], tuple(entry["latents"]), entry["score"])
        number = int(target.class_name.removeprefix("taste ")) - 1
        counts = task.pictures(target, SUPPRESS, None, 0)
        rows = task.store.read(task.images, "all")[counts.images, 0]
        strengths = dict(liked.filter(taste=number).select("image_id", "strength").iter_rows())
        strength = torch.tensor([strengths.get(int(i), 0.0) for i in task.measured[counts.images]])
        never = rows - strength[:, None] * tastes[number]
        for name, edited in edits_of(study, target, rows, strength, tastes[number]):
            sums = weights[:, counts.images] @ counted(task, target, rows, edited, never)
            n_users = weights[:, counts.images].sum(axis=1)
            shares.setdefault(name, []).append(
                np.stack([sums[:, 1] / sums[:, 0], sums[:, 3] / sums[:, 2], sums[:, 4] / n_users])
            )
        found.append((float(cosines[target.latents[0], number]), int(cosines[:, number].argmax()) == target.latents[0]))
    print("| edited | " + " | ".join(COLUMNS) + " |\n| --- | --- | --- | --- |")
    for name, of_classes in shares.items():
        cells = []
        for values in np.mean(of_classes, axis=0):
            low, high = interval(values[1:])
            cells.append(f"{values[0]:.1%} [{low:.1%}, {high:.1%}]")
        print(f"| {name} | " + " | ".join(cells) + " |")
    lowest, mean = min(cosine for cosine, _ in found), np.mean([cosine for cosine, _ in found])
    nearest = sum(is_nearest for _, is_nearest in found)
    print(f"\n{nearest} of {len(found)} chosen latents are the nearest to their taste's direction of all latents;")
    print(f"cosine {mean:.3f} in the mean, {lowest:.3f} at least.")


if __name__ == "__main__":
    main()
