"""Suppress and insert single latents, and see what a probe makes of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.config.settings import InterventionSettings
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.files import atomic_path, write_json
from visae.heads.probe import Probe, image_labels, load_probe
from visae.heads.tokens import open_store
from visae.interventions.arms import NATURAL, Draws, Reconstruction, outcomes, situation
from visae.interventions.directions import coordinates, random_vectors
from visae.interventions.edits import patch_rows, refuse_transcoder
from visae.interventions.tables import EditKey, edits_table
from visae.interventions.targets import (
    Target,
    drawn_controls,
    latent_activity,
    latent_draws,
    targets_by_auc,
)
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder, load_sae
from visae.vision.model import VisionModel, load_model

EXAMPLES_PER_CLASS = 2
TOP_CLASSES = 3
_EXAMPLES_SCHEMA = {
    "edit": pl.String,
    "arm": pl.String,
    "scale": pl.Float64,
    "image_id": pl.Int32,
    "class_name": pl.String,
    "true_class": pl.String,
    "shown_class": pl.String,
    "probability_before": pl.Float64,
    "probability_after": pl.Float64,
}


def classification_edits(
    settings: InterventionSettings,
    *,
    manifest: str | Path,
    layer: int,
    sae_config: str | Path,
    codes_manifest: str | Path,
    card_path: str | Path,
    probe_metrics: str | Path,
    index_path: str | Path,
    output: str | Path,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Run both edits for each class; write edits and examples .parquet and summary.json into `output`.

    A class's latent is the one whose largest value in a picture tells the class best on `fit_split` (area under
    the ROC curve). *Suppress*: in pictures of the class, it is set to each of `settings.scales` times its largest
    value wherever it is active; pictures where it is silent count, unchanged. *Insert*: in 32 pictures of other
    classes, it is set to `settings.insert_scale` times its largest value on the central quarter of the patches.

    Parameters
    ----------
    manifest, layer
        Store of the layer that is edited, and its number.
    sae_config, codes_manifest
        The SAE, and its codes of this data set.
    probe_metrics
        metrics.json of the probe.
    output
        Folder.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What summary.json holds.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    inputs = [manifest, sae_config, codes_manifest, card_path, probe_metrics, index_path]
    provenance = Provenance(settings, inputs, seed, described(chosen))
    model, sae = load_model(card_path, chosen), load_sae(sae_config, chosen)
    refuse_transcoder(sae, sae_config)
    model.card.check_editable(layer)
    probe = load_probe(probe_metrics, chosen)
    store = open_store(manifest, model.card)
    labels = image_labels(index_path)
    fit = {i: labels[i] for i in store.image_ids(fit_split) if i in labels}
    classes = {c["id"]: c["name"] for c in probe.classes}
    targets = targets_by_auc(codes_manifest, fit, classes)
    if not targets:
        raise DataError(f"{codes_manifest}: no latent is active on split {fit_split!r}; train the SAE for longer")
    activity = latent_activity(codes_manifest, store.image_ids(fit_split))
    controls = drawn_controls(targets, activity, settings.random_draws, seed)
    measured = {i: labels[i] for i in store.image_ids(measure_split) if i in labels}
    experiment = _Experiment(settings, model, layer, sae, probe, store, measured, seed)
    with progress_bar(len(targets), "classification edits", "classes") as bar:
        for target in targets:
            vectors = random_vectors(settings.random_draws, sae.d_model, seed, target.class_id)
            draws: Draws = {
                "reconstruction": [Reconstruction()],
                "random_vector": coordinates(store, fit_split, vectors, chosen),
                **latent_draws(target, controls[target.class_id], activity),
            }
            experiment.run(target, draws)
            bar.update()

    table = edits_table(experiment.results, settings, seed)
    tables = {"edits": table, "examples": pl.DataFrame(experiment.examples, schema=_EXAMPLES_SCHEMA)}
    for name, frame in tables.items():
        with atomic_path(Path(output) / f"{name}.parquet") as temporary:
            frame.write_parquet(temporary)
    rows = table.select("edit", "class_id").unique()
    done = set(rows.filter(edit="suppress")["class_id"].drop_nulls())
    summary = {
        "mean": table.filter(pl.col("class_id").is_null()).drop("class_id", "latent").to_dicts(),
        "classes": [
            {
                "id": t.class_id,
                "name": t.class_name,
                "latent": t.latents[0],
                "auc_fit": t.score,
                "largest": activity.largest[t.latents[0]],
            }
            for t in targets
        ],
        "not_measurable": [c for c in probe.classes if c["id"] not in done],
        "n_images": len(measured),
        "layer": layer,
        "provenance": provenance.record(),
    }
    write_json(Path(output) / "summary.json", summary)
    return summary


def central_quarter(grid: tuple[int, int]) -> Tensor:
    """Bool (n_patches,): the block of half the height and half the width in the middle of the grid."""
    block = torch.zeros(grid, dtype=torch.bool)
    (top, height), (left, width) = (((side - max(side // 2, 1)) // 2, max(side // 2, 1)) for side in grid)
    block[top : top + height, left : left + width] = True
    return block.flatten()


@dataclass
class _Experiment:
    """Everything that the loop over classes needs, and what it measures; `measured` is the label by picture."""

    settings: InterventionSettings
    model: VisionModel
    layer: int
    sae: SparseAutoencoder
    probe: Probe
    store: ActivationStore
    measured: dict[int, int]
    seed: int
    # (edit, arm, size, scale, target) to measures (n_images, len(MEASURES)), means over draws.
    results: dict[EditKey, np.ndarray] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """Class probabilities (b, n_classes)."""
        return self.probe(self.model.resume(tokens, self.layer)).softmax(dim=1)

    def run(self, target: Target, draws: Draws) -> None:
        """Suppress in the class's own pictures, insert into others."""
        own = [i for i, label in self.measured.items() if label == target.class_id]
        others = np.array([i for i, label in self.measured.items() if label != target.class_id])
        drawn = np.random.default_rng([self.seed, target.class_id]).permutation(len(others))[
            : self.settings.insert_images
        ]
        self._edit("suppress", own, target, draws, tuple(self.settings.scales))
        self._edit("insert", sorted(others[drawn].tolist()), target, draws, (self.settings.insert_scale,))

    @torch.inference_mode()
    def _edit(self, edit: str, image_ids: list[int], target: Target, draws: Draws, scales: tuple[float, ...]) -> None:
        found: dict[EditKey, list[np.ndarray]] = {}
        for batch, tokens in self._batches(image_ids):
            patches = self._patches(edit, tokens, target)
            here = situation(self.sae, patch_rows(tokens, patches), draws)
            before = self.read(tokens)
            parts: dict[EditKey, np.ndarray] = {}
            for outcome in outcomes(tokens, patches, here, draws, scales, before=before, read=self.read):
                measures = self._measures(batch, target, before.cpu(), outcome.after.cpu()) / outcome.draws
                for scale in outcome.scales:
                    key = (edit, outcome.arm, outcome.size, scale, target)
                    parts[key] = parts[key] + measures if key in parts else measures
                    if outcome.draw == 0 and outcome.size == NATURAL and batch[0] == image_ids[0]:
                        after = outcome.after[:EXAMPLES_PER_CLASS].cpu()
                        self.examples += self._shown(key, batch, before.cpu(), after)
            for key, measures in parts.items():
                found.setdefault(key, []).append(measures)
        self.results |= {key: np.concatenate(parts) for key, parts in found.items()}

    def _batches(self, image_ids: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        for start in range(0, len(image_ids), self.settings.batch_size):
            batch = image_ids[start : start + self.settings.batch_size]
            tokens = torch.cat([self.store.read(range(i, i + 1), "all") for i in batch])
            yield batch, tokens.to(self.probe.weight.device)

    def _patches(self, edit: str, tokens: Tensor, target: Target) -> Tensor:
        """Patches to edit, bool (b, n_patches)."""
        rows = tokens[:, self.model.card.n_prefix :]
        if edit == "insert":
            return central_quarter(self.model.card.grid).to(tokens.device).expand(len(tokens), -1)
        values = self.sae.latent_values(rows.flatten(0, 1), list(target.latents[:1]))
        return (values > 0).view(rows.shape[:2])

    def _measures(self, batch: list[int], target: Target, before: Tensor, after: Tensor) -> np.ndarray:
        """MEASURES of each picture (b, len(MEASURES))."""
        ids = torch.tensor([c["id"] for c in self.probe.classes])
        column = int((ids == target.class_id).nonzero())
        others = ids != target.class_id
        labels = torch.tensor([self.measured[i] for i in batch])
        predicted = [ids[p.argmax(dim=1)] for p in (before, after)]
        measures = [
            before[:, column],
            after[:, column],
            after[:, column] - before[:, column],
            predicted[0] == target.class_id,
            predicted[1] == target.class_id,
            predicted[0] == labels,
            predicted[1] == labels,
            predicted[0] != predicted[1],
            (after - before)[:, others].abs().mean(dim=1),
        ]
        return torch.stack([m.double() for m in measures], dim=1).numpy()

    def _shown(self, key: EditKey, batch: list[int], before: Tensor, after: Tensor) -> Iterator[dict[str, Any]]:
        """Probabilities of the classes that are likeliest before or after, for a few pictures."""
        edit, arm, _, scale, target = key
        names = {c["id"]: c["name"] for c in self.probe.classes}
        for i, (old, new) in enumerate(zip(before, after, strict=False)):
            for column in torch.maximum(old, new).topk(min(TOP_CLASSES, len(old))).indices.tolist():
                yield {
                    "edit": edit,
                    "arm": arm,
                    "scale": scale,
                    "image_id": batch[i],
                    "class_name": target.class_name,
                    "true_class": names.get(self.measured[batch[i]]),
                    "shown_class": self.probe.classes[column]["name"],
                    "probability_before": float(old[column]),
                    "probability_after": float(new[column]),
                }
