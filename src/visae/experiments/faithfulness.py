"""What the heads lose when a layer's tokens are replaced: by the SAE's reconstruction, by their mean, by zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from visae.activations.store import ActivationStore, Kinds
from visae.config.settings import FaithfulnessSettings
from visae.device import chosen_device, described
from visae.edits.opened import open_edited
from visae.errors import DataError
from visae.features.codes import with_kind
from visae.files import atomic_path, write_json
from visae.heads.bootstrap import COVERAGE, estimates
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder
from visae.tasks.files import TaskFiles
from visae.tasks.members import open_task
from visae.tasks.task import Judge, Task

REPLACEMENTS = ("as_is", "reconstruction", "mean", "zero")
"""What stands in the place of the tokens that the SAE is of, mostly patches; the others stay as they are."""

_FIT, _MEASURED = "train", "val"
# Measures of these tasks have names that no other has; before others stands the task's name.
_PLAIN = ("segmentation", "classification")
_CHUNK = 2048
Measure = Callable[[np.ndarray], dict[str, np.ndarray]]


def measure_faithfulness(
    tasks: Mapping[str, TaskFiles],
    sae: str,
    settings: FaithfulnessSettings,
    layer: int,
    output: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Judge the answers to tasks with tokens replaced; write faithfulness.parquet and .json into `output`.

    Replaced are all tokens that the SAE is of: patches, the class token, or both and registers.

    The table has one row a measure and quantity: the measure under each of REPLACEMENTS, and the share of it that the
    reconstruction recovers, `recovered_from_zero` = (reconstruction - zero) / (as is - zero) and `recovered_from_mean`
    likewise. Intervals come from the same resamples of pictures. A share is null where its denominator's interval
    holds 0: where replacing costs nothing, nothing can be recovered.

    Parameters
    ----------
    tasks
        Files of each task, by its name; all of one model.
    sae
        config.json of the SAE.
    settings
        Section `faithfulness`.
    layer
        Whose output is replaced; the network is resumed from there.
    output
        Folder.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What faithfulness.json holds.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    if not tasks or len({files.card for files in tasks.values()}) > 1:
        raise DataError("faithfulness: give the files of one task or several, all of one model")
    inputs = [sae, *dict.fromkeys(path for files in tasks.values() for path in files.named())]
    provenance = Provenance(settings, inputs, seed, described(chosen))
    card = next(iter(tasks.values())).card
    model, dictionary = open_edited(card, sae, layer, chosen)
    opened = [open_task(name, files, model, layer, chosen, settings.batch_size) for name, files in tasks.items()]
    judges = [(task, task.judge(REPLACEMENTS, task.store.image_ids(_MEASURED))) for task in opened]
    for store, together in _by_store(judges):
        _Replacing(together[0][0], dictionary, settings).run(store, [judge for _, judge in together])
    rows: list[dict[str, Any]] = []
    for task, judge in judges:
        prefix = "" if task.name in _PLAIN else f"{task.name}_"
        rows += [
            {**row, "measure": f"{prefix}{row['measure']}"}
            for row in _rows(judge.measures(), judge.n_images, settings.bootstrap, seed)
        ]
    table = pl.DataFrame(rows, infer_schema_length=None)
    with atomic_path(output / "faithfulness.parquet") as temporary:
        with_kind(table, dictionary.place.tokens).write_parquet(temporary)
    summary = {
        "tokens": dictionary.place.tokens,
        "measures": {
            name: {row["quantity"]: {k: row[k] for k in ("value", "low", "high")} for row in part.to_dicts()}
            for (name,), part in table.group_by("measure", maintain_order=True)
        },
        "n_images": dict(table.group_by("measure", maintain_order=True).agg(pl.col("n_images").first()).iter_rows()),
        "layer": layer,
        "coverage": COVERAGE,
        "provenance": provenance.record(),
    }
    write_json(output / "faithfulness.json", summary)
    return summary


def _by_store(judges: list[tuple[Task, Judge]]) -> list[tuple[ActivationStore, list[tuple[Task, Judge]]]]:
    """Judges by the store that they read, so that two of one data set share its forward passes."""
    found: dict[Path, tuple[ActivationStore, list[tuple[Task, Judge]]]] = {}
    for task, judge in judges:
        found.setdefault(task.store.folder, (task.store, []))[1].append((task, judge))
    return list(found.values())


class _Replacing:
    """Replaces the tokens that the SAE is of, resumes the network from there, and lets judges see what comes out."""

    def __init__(self, task: Task, sae: SparseAutoencoder, settings: FaithfulnessSettings) -> None:
        self.resume, self.sae, self.settings = task.resume, sae, settings
        self.own = task.store.row_slice(sae.place.tokens)

    @torch.inference_mode()
    def run(self, store: ActivationStore, judges: list[Judge]) -> None:
        """Show the judges every picture of the measured split that they know, under each replacement."""
        images, most = store.image_ids(_FIT), self.settings.mean_images
        mean = mean_tokens(store, images, most, self.sae.place.tokens).to(self.sae.decoder_bias.device)
        with progress_bar(len(store.image_ids(_MEASURED)), "faithfulness", "pictures") as bar:
            for image_ids, tokens in store.iterate(_MEASURED, self.settings.batch_size, kinds="all"):
                kept = [i for i, image_id in enumerate(image_ids) if any(int(image_id) in j for j in judges)]
                if kept:
                    final = {
                        name: self.resume(replaced)
                        for name, replaced in self._replaced(tokens[kept].to(mean.device), mean).items()
                    }
                    self._show(judges, image_ids[kept], final)
                bar.update(len(image_ids))

    def _show(self, judges: list[Judge], image_ids: np.ndarray, final: dict[str, Tensor]) -> None:
        for judge in judges:
            own = [i for i, image_id in enumerate(image_ids) if int(image_id) in judge]
            if own:
                judge.add([int(image_ids[i]) for i in own], {name: tokens[own] for name, tokens in final.items()})

    def _replaced(self, tokens: Tensor, mean: Tensor) -> dict[str, Tensor]:
        """Tokens (b, n_tokens, d_model) under each replacement."""
        own, sae = tokens[:, self.own], self.sae
        rows = [sae.decode(sae.sparse_codes(part), like=part) for part in own.flatten(0, 1).split(_CHUNK)]
        instead = (own, torch.cat(rows).view_as(own), mean.expand_as(own), torch.zeros_like(own))
        found = {name: tokens.clone() for name in REPLACEMENTS}
        for name, values in zip(REPLACEMENTS, instead, strict=True):
            found[name][:, self.own] = values
        return found


def mean_tokens(store: ActivationStore, images: range, most: int, kinds: Kinds) -> Tensor:
    """Mean token of a kind of some pictures, or of so many of them, evenly spaced: (1, d_model).

    Of `all` it is (n_tokens, d_model): the mean of each class token and register, and that of all patches for each.
    """
    if kinds != "all":
        return mean_token(store, images, most, store.row_slice(kinds)).unsqueeze(0)
    n_prefix = store.choice.n_prefix
    prefix = [mean_token(store, images, most, slice(place, place + 1)) for place in range(n_prefix)]
    patches = mean_token(store, images, most, slice(n_prefix, None))
    return torch.stack([*prefix, *[patches] * store.n_tokens("patches")])


def mean_token(store: ActivationStore, images: range, most: int, own: slice) -> Tensor:
    """Mean token (d_model,) at some positions of some pictures, or of so many of them, evenly spaced."""
    if not images:
        raise DataError(f"{store.folder}: no picture to take the mean token of; the split to fit is empty")
    wanted = np.unique(np.linspace(images.start, images.stop - 1, min(most, len(images))).astype(int))
    total, n = torch.zeros(store.d_model, dtype=torch.float64), 0
    for shard, group, ids in store.groups(images):
        places = wanted[(wanted >= ids.start) & (wanted < ids.stop)] - ids.start
        if len(places):
            values = store.read_group(shard, group, ids, "all")[torch.from_numpy(places)][:, own].flatten(0, 1)
            total += values.double().sum(dim=0)
            n += len(values)
    return (total / n).float()


def _rows(measure: Measure, n_images: int, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the table: every measure under every replacement, and the shares that the reconstruction recovers."""

    def with_shares(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = measure(weights)
        for name in sorted({key.split(" ")[0] for key in found}):
            for base in ("zero", "mean"):
                lost = found[f"{name} as_is"] - found[f"{name} {base}"]
                kept = found[f"{name} reconstruction"] - found[f"{name} {base}"]
                found[f"{name} lost_to_{base}"] = lost
                with np.errstate(divide="ignore", invalid="ignore"):
                    found[f"{name} recovered_from_{base}"] = np.where(lost != 0, kept / lost, np.nan)
        return found

    rows: list[dict[str, Any]] = []
    found = estimates(with_shares, n_images, seed, resamples)
    for key, estimate in found.items():
        name, quantity = key.split(" ")
        numbers = estimate.named("value")
        row = {"measure": name, "quantity": quantity, "value": numbers["value"]}
        row |= {"low": numbers["value_low"], "high": numbers["value_high"], "n_images": n_images}
        lost = found.get(f"{name} {quantity.replace('recovered_from', 'lost_to')}", estimate)
        if quantity.startswith("recovered_from") and not (lost.low > 0 or lost.high < 0):
            row.update(value=None, low=None, high=None)
        rows.append(row)
    return rows
