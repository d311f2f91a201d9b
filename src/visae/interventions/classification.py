"""Suppress and insert latents, and see what a probe makes of the pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from visae.config.settings import InterventionSettings
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.files import atomic_path, write_json
from visae.heads.probe import image_labels, load_probe
from visae.heads.tokens import open_store
from visae.interventions.arms import MATCHED, SIZES, Draws, edited_latents, outcomes, situation
from visae.interventions.classification_examples import EXAMPLE_ARMS, SCHEMA, examples
from visae.interventions.classifying import Classifier, classification_draws
from visae.interventions.edits import patch_rows, refuse_transcoder
from visae.interventions.tables import (
    INSERT,
    MEAN,
    PICTURE_MEASURES,
    SUPPRESS,
    ClassEdits,
    edits_table,
    moved_table,
)
from visae.interventions.targets import NOT_LEARNED, Manual, Target, check_manual, latent_activity, targets_by_auc
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder, load_sae
from visae.vision.model import load_model

NO_LATENT = "no latent is active in its pictures of the selection split"


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
    manual: Manual | None = None,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Run both edits for each class; write edits, moved and examples .parquet and summary.json into `output`.

    A class's latents are those whose largest value in a picture tells the class best on `fit_split` (area under
    the ROC curve). *Suppress*: they are set to each of `settings.scales` times their largest values on the patches
    where one of them is active, in the class's own pictures, and in pictures of other classes, which should stay as
    they are. Pictures where they are silent count, unchanged. *Insert*: in those pictures of other classes, they are
    set to `settings.insert_scale` times their largest values on the central quarter of the patches, and controls
    have the length of that change alone.

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
    manual
        Latents named by hand for some classes: an arm of their own.
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
    probe = load_probe(probe_metrics, model.card, chosen)
    store = open_store(manifest, model.card, layer)
    classifier = Classifier(model, layer, probe, store, settings.batch_size)
    labels = image_labels(index_path)
    fit = {i: labels[i] for i in store.image_ids(fit_split) if i in labels}
    classes = {c["id"]: c["name"] for c in probe.classes}
    targets = targets_by_auc(codes_manifest, fit, classes, settings.latents_per_class)
    if not targets:
        raise DataError(f"{codes_manifest}: no latent is active on split {fit_split!r}; train the SAE for longer")
    activity = latent_activity(codes_manifest, store.image_ids(fit_split))
    check_manual(manual or {}, "classification", probe_metrics, classes.values(), sae.width, activity)
    draws = classification_draws(
        classifier,
        sae,
        targets,
        activity,
        fit,
        arms=settings.arms,
        random_draws=settings.random_draws,
        split=fit_split,
        manual=manual or {},
        seed=seed,
    )
    measured = {i: labels[i] for i in store.image_ids(measure_split) if i in labels}
    experiment = _Experiment(settings, classifier, sae, measured, seed)
    with progress_bar(len(targets), "classification edits", "classes") as bar:
        for target in targets:
            experiment.run(target, draws[target.class_id])
            bar.update()

    table = edits_table(experiment.edits, edited_latents(draws), len(measured), settings.bootstrap, seed)
    tables = {
        "edits": table,
        "moved": moved_table(experiment.edits, list(classes.values())),
        "examples": pl.DataFrame(experiment.examples, schema=SCHEMA),
    }
    for name, frame in tables.items():
        with atomic_path(Path(output) / f"{name}.parquet") as temporary:
            frame.write_parquet(temporary)
    summary = {
        "mean": table.filter(class_name=MEAN).drop("class_id", "latents", "q").to_dicts(),
        "classes": [
            {
                "id": t.class_id,
                "name": t.class_name,
                "latents": list(t.latents),
                "auc_fit": t.score,
                "largest": [activity.largest[latent] for latent in t.latents],
            }
            for t in targets
        ],
        "not_measurable": [
            {**c, "reason": experiment.why_not.get(c["id"], NO_LATENT)}
            for c in probe.classes
            if c["id"] not in {edits.target.class_id for edits in experiment.edits if edits.edit == SUPPRESS}
        ]
        + [{**c, "reason": NOT_LEARNED} for c in probe.not_learned],
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
    """Runs classes one after the other; `measured` is the label of each picture of the measured split."""

    settings: InterventionSettings
    classifier: Classifier
    sae: SparseAutoencoder
    measured: dict[int, int]
    seed: int
    edits: list[ClassEdits] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    # By class id: why it was not suppressed.
    why_not: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = {image_id: place for place, image_id in enumerate(self.measured)}

    def run(self, target: Target, draws: Draws) -> None:
        """Suppress in the class's own pictures and in others, and insert into others."""
        is_own = np.array([label == target.class_id for label in self.measured.values()])
        image_ids = np.array(list(self.measured))
        own = self._drawn(image_ids[is_own], target, 6)
        others = self._drawn(image_ids[~is_own], target, 7)
        if not own:
            self.why_not[target.class_id] = "the measured split has no picture of it"
        elif not self._is_active(own, target):
            self.why_not[target.class_id] = "its latents are active in none of its pictures of the measured split"
        else:
            self._edit(SUPPRESS, own + others, target, draws, tuple(self.settings.scales))
        if others:
            self._edit(INSERT, others, target, draws, (self.settings.insert_scale,))

    def _drawn(self, image_ids: np.ndarray, target: Target, stream: int) -> list[int]:
        order = np.random.default_rng([self.seed, target.class_id, stream]).permutation(len(image_ids))
        return sorted(image_ids[order[: self.settings.classification_images]].tolist())

    @torch.inference_mode()
    def _edit(self, edit: str, image_ids: list[int], target: Target, draws: Draws, scales: tuple[float, ...]) -> None:
        labels = np.array([self.measured[image_id] for image_id in image_ids])
        places = np.array([self.places[image_id] for image_id in image_ids])
        own = labels == target.class_id if edit == SUPPRESS else np.ones(len(labels), dtype=bool)
        result = ClassEdits(target, edit, places, own)
        column, start = self.classifier.columns[target.class_id], 0
        truth = torch.tensor([self.classifier.columns.get(int(label), -1) for label in labels])
        for batch, tokens in self.classifier.batches(image_ids):
            rows, start = slice(start, start + len(batch)), start + len(batch)
            patches = self._patches(edit, tokens, target)
            here = situation(self.sae, patch_rows(tokens, patches), draws)
            before = self.classifier.read(tokens)
            shown: dict[tuple[float, str], Tensor] = {}
            for outcome in outcomes(
                tokens,
                patches,
                here,
                draws,
                scales,
                before=before,
                read=self.classifier.read,
                batch_size=self.settings.batch_size,
                sizes=SIZES if edit == SUPPRESS else (MATCHED,),
            ):
                found = picture_measures(before, outcome.after, column, truth[rows]) / outcome.draws
                moved = (outcome.after - before)[own[rows]].sum(dim=0).double().cpu().numpy() / outcome.draws
                for scale in outcome.scales:
                    key = (outcome.arm, outcome.size, scale)
                    values = result.values.setdefault(key, np.zeros((len(image_ids), len(PICTURE_MEASURES))))
                    values[rows] += found
                    result.moved[key] = result.moved.get(key, 0) + moved
                    if (name := EXAMPLE_ARMS.get(key[:2])) and outcome.draw == 0:
                        shown[(scale, name)] = outcome.after.cpu()
            if rows.start == 0:
                names = {c["id"]: c["name"] for c in self.classifier.probe.classes}
                true = {i: names.get(self.measured[i]) for i in batch[: int(own[rows].sum())]}
                kept = examples(target, edit, true, patches.cpu(), before.cpu(), shown, list(names.values()))
                self.examples += kept
        self.edits.append(result)

    def _is_active(self, image_ids: list[int], target: Target) -> bool:
        """Whether there is anything to suppress in some pictures."""
        return any(self._patches(SUPPRESS, tokens, target).any() for _, tokens in self.classifier.batches(image_ids))

    def _patches(self, edit: str, tokens: Tensor, target: Target) -> Tensor:
        """Patches to edit, bool (b, n_patches)."""
        card = self.classifier.model.card
        if edit == INSERT:
            return central_quarter(card.grid).to(tokens.device).expand(len(tokens), -1)
        rows = tokens[:, card.n_prefix :]
        values = self.sae.latent_values(rows.flatten(0, 1), list(target.latents))
        return (values > 0).any(dim=1).view(rows.shape[:2])


def picture_measures(before: Tensor, after: Tensor, column: int, truth: Tensor) -> np.ndarray:
    """PICTURE_MEASURES of each picture, (b, len(PICTURE_MEASURES)).

    Parameters
    ----------
    before, after
        (b, n_classes) probabilities.
    column
        The edited class.
    truth
        (b,) each picture's class; below 0 where the probe does not know it.
    """
    truth = truth.to(before.device)
    known, place = truth >= 0, truth.clamp(min=0)[:, None]
    likeliest = [p.argmax(dim=1) for p in (before, after)]
    measures = [
        before[:, column],
        after[:, column],
        *(top == column for top in likeliest),
        *(top == truth for top in likeliest),
        *(p.gather(1, place)[:, 0] * known for p in (before, after)),
        (after - before).abs().sum(dim=1) / 2,
    ]
    return torch.stack([m.double() for m in measures], dim=1).cpu().numpy()
