"""Edit one class's latent where a segmentation head sees the class, and count which patches change."""

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
from visae.files import atomic_path, write_json
from visae.heads.segmentation import SegmentationHead, load_segmentation_head, patch_channels
from visae.heads.tokens import open_store
from visae.interventions.arms import ARMS, Latents, outcomes
from visae.interventions.edits import patch_rows, refuse_transcoder
from visae.interventions.tables import SegmentationCounts, arms_table, becomes_table, mean_rows
from visae.interventions.targets import Target, largest_values, targets_by_f1, with_controls
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder, load_sae
from visae.vision.model import VisionModel, load_model

MAPS_PER_CLASS = 3
MAPPED_ARMS = ("random_latent", "automatic")
_MAPS_SCHEMA: dict[str, Any] = {
    "image_id": pl.Int32,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "arm": pl.String,
    "scale": pl.Float64,
    "before": pl.List(pl.Int16),
    "after": pl.List(pl.Int16),
    "edited": pl.List(pl.Int16),
}


def segmentation_arms(
    settings: InterventionSettings,
    *,
    manifest: str | Path,
    layer: int,
    sae_config: str | Path,
    codes_manifest: str | Path,
    scores: str | Path,
    card_path: str | Path,
    head_metrics: str | Path,
    index_path: str | Path,
    patch_labels: str | Path,
    output: str | Path,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Run all arms for each class; write arms, becomes and maps .parquet and summary.json into `output`.

    One class at a time: in each picture of `measure_split` whose mask has it on some patch, the patches that the
    head predicts as the class are edited at `layer`, and the network is resumed from there. `target_change` is the
    share of those patches whose prediction changes, `other_change` the share of the same pictures' other
    patches, `selectivity` the difference of the two. Intervals (95 %) come from resampling pictures.

    Parameters
    ----------
    manifest, layer
        Store of the layer that is edited, and its number.
    sae_config, codes_manifest
        The SAE, and its codes of this data set: a latent's largest value is taken from `fit_split` there.
    scores
        scores.parquet of the same codes: the automatic latent of a class is its best on `fit_split`.
    head_metrics
        metrics.json of the segmentation head.
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
    inputs = [manifest, sae_config, codes_manifest, scores, card_path, head_metrics, index_path]
    provenance = Provenance(settings, inputs, seed, described(chosen))
    model, sae = load_model(card_path, chosen), load_sae(sae_config, chosen)
    refuse_transcoder(sae, sae_config)
    model.card.check_editable(layer)
    head = load_segmentation_head(head_metrics, chosen)
    store = open_store(manifest, model.card)
    largest = largest_values(codes_manifest, store.image_ids(fit_split))
    targets = [t for t in targets_by_f1(scores) if t.latent in largest]
    latents = with_controls(
        targets, largest, d_model=sae.d_model, draws=settings.random_draws, seed=seed, device=chosen
    )
    labels = patch_channels(patch_labels, [c["id"] for c in head.classes])
    images = store.image_ids(measure_split)
    experiment = _Experiment(model, layer, sae, head, targets, latents, labels, images, tuple(settings.scales))
    with progress_bar(len(images), "segmentation arms", "pictures") as bar:
        for image_ids, tokens in store.iterate(measure_split, settings.batch_size, kinds="all"):
            experiment.run(image_ids, tokens.to(chosen))
            bar.update(len(image_ids))

    counts = experiment.counts
    rows = arms_table(counts, targets, settings.scales, settings.bootstrap, seed)
    tables = {
        "arms": rows,
        "becomes": becomes_table(counts, targets, settings.scales, [c["name"] for c in head.classes]),
        "maps": pl.DataFrame(experiment.maps, schema=_MAPS_SCHEMA),
    }
    for name, table in tables.items():
        with atomic_path(Path(output) / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    measured = set(rows["class_id"].drop_nulls())
    summary = {
        "mean": mean_rows(rows),
        "classes": [
            {
                "id": target.class_id,
                "name": target.class_name,
                "latent": target.latent,
                "f1_fit": target.score,
                "largest": largest[target.latent],
                "pictures_without_prediction": int(counts.skipped[number]),
            }
            for number, target in enumerate(targets)
        ],
        "not_measurable": [
            {"id": c["id"], "name": c["name"], "reason": experiment.why_not(c["id"])}
            for c in head.classes
            if c["id"] not in measured
        ],
        "n_images": len(images),
        "layer": layer,
        "provenance": provenance.record(),
    }
    write_json(Path(output) / "summary.json", summary)
    return summary


@dataclass
class _Experiment:
    """Everything that the loop over batches needs, and what it counts.

    `labels` are channels of the head by picture; `images` the measured split.
    """

    model: VisionModel
    layer: int
    sae: SparseAutoencoder
    head: SegmentationHead
    targets: list[Target]
    latents: dict[int, Latents]
    labels: dict[int, Tensor]
    images: range
    scales: tuple[float, ...]
    maps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = [c["id"] for c in self.head.classes]
        self.counts = SegmentationCounts.zeros(len(self.scales), len(self.targets), len(self.images), len(self.ids))
        # Patches of each class in each picture's mask.
        self.occurrences = np.zeros((len(self.images), len(self.ids)), dtype=np.int64)
        for row, image_id in enumerate(self.images):
            if image_id in self.labels:
                found = self.labels[image_id].numpy()
                self.occurrences[row] = np.bincount(found[found >= 0], minlength=len(self.ids))

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """Predicted channel of each patch (b, n_patches)."""
        parts = self.head(self.model.resume(tokens, self.layer))
        return parts.argmax(dim=1).flatten(1)

    @torch.inference_mode()
    def run(self, image_ids: np.ndarray, tokens: Tensor) -> None:
        """Run every class on a batch (b, n_tokens, d_model)."""
        seen = self.read(tokens)
        for number, target in enumerate(self.targets):
            channel = self.ids.index(target.class_id)
            rows = image_ids - self.images.start
            occurs = self.occurrences[rows, channel] > 0
            predicted = (seen == channel).any(dim=1).cpu().numpy()
            self.counts.skipped[number] += int((occurs & ~predicted).sum())
            keep = np.flatnonzero(occurs & predicted)
            if len(keep):
                # Read again in the batch that arms are read in: then `none` compares like with like to the bit.
                self._class(number, rows[keep], tokens[keep], self.read(tokens[keep]))

    def _class(self, number: int, rows: np.ndarray, tokens: Tensor, before: Tensor) -> None:
        """Run every arm of one class on the pictures (b, n_tokens, d_model) in which it is seen."""
        target = self.targets[number]
        patches = before == self.ids.index(target.class_id)
        self.counts.n_target[number, rows] = patches.sum(dim=1).cpu().numpy()
        self.counts.n_other[number, rows] = (~patches).sum(dim=1).cpu().numpy()
        situation = self.latents[target.class_id].situation(self.sae, patch_rows(tokens, patches))
        mapped = self._mapped(self.ids.index(target.class_id), rows)
        for outcome in outcomes(tokens, patches, situation, self.scales, before=before, read=self.read):
            changed = outcome.after != before
            inside = (changed & patches).sum(dim=1).cpu().numpy() / outcome.draws
            outside = (changed & ~patches).sum(dim=1).cpu().numpy() / outcome.draws
            turned = torch.bincount(outcome.after[patches], minlength=len(self.ids)).cpu().numpy() / outcome.draws
            arm = list(ARMS).index(outcome.arm)
            for scale in (self.scales.index(s) for s in outcome.scales):
                self.counts.target[arm, scale, number, rows] += inside
                self.counts.other[arm, scale, number, rows] += outside
                self.counts.becomes[arm, scale, number] += turned
            if outcome.arm in MAPPED_ARMS and outcome.draw == 0:
                for i in mapped:
                    grids = before[i], outcome.after[i], patches[i]
                    about = {"image_id": int(self.images[int(rows[i])]), "class_name": target.class_name}
                    about |= {"class_id": target.class_id, "arm": outcome.arm}
                    self.maps += [about | {"scale": scale} | self._map(*grids) for scale in outcome.scales]

    def _mapped(self, channel: int, rows: np.ndarray) -> list[int]:
        """Positions in the batch of the pictures that have the class on the most patches of the whole split."""
        most = np.argsort(-self.occurrences[:, channel], kind="stable")[:MAPS_PER_CLASS]
        return np.flatnonzero(np.isin(rows, most)).tolist()

    def _map(self, before: Tensor, after: Tensor, patches: Tensor) -> dict[str, list[int]]:
        """Class ids before and after, and the edited patches."""
        ids = np.array(self.ids)
        shown = {
            name: ids[channels.cpu().numpy()].tolist() for name, channels in (("before", before), ("after", after))
        }
        return shown | {"edited": patches.nonzero()[:, 0].tolist()}

    def why_not(self, class_id: int) -> str:
        """Say why a class has no row."""
        if class_id not in {t.class_id for t in self.targets}:
            return "no latent was chosen for it on the fit split"
        if not self.occurrences[:, self.ids.index(class_id)].any():
            return "no patch of the measured split is labelled with it"
        return "the head predicts it in none of the measured pictures that have it"
