"""Edit one class's latents where a segmentation head sees the class, and count which patches change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.config.settings import InterventionSettings
from visae.device import chosen_device, described
from visae.features.scores import patch_classes
from visae.files import atomic_path, write_json
from visae.heads.segmentation import load_segmentation_head, patch_channels
from visae.heads.tokens import open_store
from visae.interventions.arms import AUTOMATIC, NATURAL, Draws, Outcome, SetLatents, outcomes, situation
from visae.interventions.counts import ClassCounts
from visae.interventions.dictionaries import labelled_patches
from visae.interventions.edits import patch_rows, refuse_transcoder
from visae.interventions.participants import Manual, Selection, participants
from visae.interventions.segmentation_tables import arms_table, becomes_table, over_classes
from visae.interventions.segmenting import Segmenter, add_outcome, counted
from visae.interventions.targets import Target, latent_activity
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder, load_sae
from visae.vision.model import load_model

MAPS_PER_CLASS = 3
MAPPED_ARMS = ("random_latent", AUTOMATIC)
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
    min_purity: float = 0.9,
    manual: Manual | None = None,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Run all arms for each class; write arms, becomes and maps .parquet and summary.json into `output`.

    One class at a time: in each picture of `measure_split` whose mask has it on some patch, the patches that the
    head predicts as the class are edited at `layer`, and the network is resumed from there. `target_change` is the
    share of those patches whose prediction changes, `other_change` the share of the same pictures' other
    patches, `selectivity` the difference of the two; `miou_change` is what becomes of the mIoU of the patches of
    these pictures. Intervals (95 %) come from resampling pictures.

    Parameters
    ----------
    manifest, layer
        Store of the layer that is edited, and its number.
    sae_config, codes_manifest
        The SAE, and its codes of this data set: a latent's largest value is taken from `fit_split` there.
    scores
        scores.parquet of the same codes: the best latents of a class by F1 on `fit_split`.
    head_metrics
        metrics.json of the segmentation head.
    patch_labels, min_purity
        Classes of patches, and how much of a patch its class has to fill where latents and directions are chosen.
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
    inputs = [manifest, sae_config, codes_manifest, scores, card_path, head_metrics, index_path]
    provenance = Provenance(settings, inputs, seed, described(chosen))
    model, sae = load_model(card_path, chosen), load_sae(sae_config, chosen)
    refuse_transcoder(sae, sae_config)
    model.card.check_editable(layer)
    head = load_segmentation_head(head_metrics, chosen)
    store = open_store(manifest, model.card)
    classes = {c["id"]: c["name"] for c in head.classes}
    segmenter = Segmenter(model, layer, head, store, patch_channels(patch_labels, list(classes)), settings.batch_size)
    fit_images, images = store.image_ids(fit_split), store.image_ids(measure_split)
    labels = patch_classes(Path(patch_labels), list(classes), min_purity, fit_images)
    patches = labelled_patches(store, labels, classes, seed)
    activity = latent_activity(codes_manifest, fit_images)
    selection = Selection(settings, segmenter, sae, codes_manifest, scores, patches, activity, fit_split, seed)
    targets = selection.targets(settings.choose_by)
    draws = participants(selection, targets, manual or {})
    experiment = _Experiment(settings, segmenter, sae, images, seed)
    with progress_bar(len(targets), "segmentation arms", "classes") as bar:
        for target in targets:
            experiment.run(target, draws[target.class_id])
            bar.update()

    measured = [counts for counts in experiment.counts if len(counts.images)]
    latents = {
        (arm, class_id): changes[0].latents
        for class_id, of_class in draws.items()
        for arm, changes in of_class.items()
        if len(changes) == 1 and isinstance(changes[0], SetLatents)
    }
    rows = arms_table(measured, latents, len(images), settings.bootstrap, seed)
    tables = {
        "arms": rows,
        "becomes": becomes_table(measured, list(classes.values())),
        "maps": pl.DataFrame(experiment.maps, schema=_MAPS_SCHEMA),
    }
    for name, table in tables.items():
        with atomic_path(Path(output) / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    summary = {
        "over_classes": over_classes(rows),
        "classes": [
            {
                "id": target.class_id,
                "name": target.class_name,
                "latents": list(target.latents),
                "chosen_by": settings.choose_by,
                "score": target.score,
                "largest": [activity.largest[latent] for latent in target.latents],
                "pictures": len(counts.images),
                "pictures_without_prediction": skipped,
                "arms_not_measurable": [arm for arm in settings.arms if arm not in draws[target.class_id]],
            }
            for target, counts, skipped in zip(targets, experiment.counts, experiment.skipped, strict=True)
        ],
        "not_measurable": [
            {"id": class_id, "name": name, "reason": experiment.why_not(class_id)}
            for class_id, name in classes.items()
            if class_id not in {counts.target.class_id for counts in measured}
        ],
        "n_images": len(images),
        "layer": layer,
        "provenance": provenance.record(),
    }
    write_json(Path(output) / "summary.json", summary)
    return summary


@dataclass
class _Experiment:
    """Runs classes one after the other; `images` are the measured split."""

    settings: InterventionSettings
    segmenter: Segmenter
    sae: SparseAutoencoder
    images: range
    seed: int
    counts: list[ClassCounts] = field(default_factory=list)
    # Pictures of each class that have it, but no patch predicted as it.
    skipped: list[int] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = self.segmenter.predictions(self.images)

    def run(self, target: Target, draws: Draws) -> None:
        """Run every arm of one class on the pictures in which it is and is seen."""
        counts, skipped = counted(self.segmenter, target, self.images, self.seen, self.settings.images, self.seed)
        self.counts.append(counts)
        self.skipped.append(skipped)
        channel, scales = self.segmenter.ids.index(target.class_id), tuple(self.settings.scales)
        most = set(
            self.images.start + counts.images[np.argsort(-counts.truth[:, channel], kind="stable")][:MAPS_PER_CLASS]
        )
        start = 0
        for ids, tokens in self.segmenter.batches(self.images.start + counts.images):
            rows, start = slice(start, start + len(ids)), start + len(ids)
            before = torch.from_numpy(self.seen[ids - self.images.start]).to(tokens.device, torch.int64)
            patches = before == channel
            # Read again in the batch that `none` is read in: then it compares like with like to the bit.
            before = self.segmenter.read(tokens)
            here = situation(self.sae, patch_rows(tokens, patches), draws)
            truth = torch.from_numpy(self.segmenter.truth(ids)).to(tokens.device, torch.int64)
            found = outcomes(
                tokens,
                patches,
                here,
                draws,
                scales,
                before=before,
                read=self.segmenter.read,
                batch_size=self.settings.batch_size,
            )
            for outcome in found:
                for scale in outcome.scales:
                    edit = counts.edit((outcome.arm, outcome.size, scale))
                    add_outcome(edit, rows, before, outcome.after, patches, truth, outcome.draws)
                shown = [i for i, image_id in enumerate(ids) if image_id in most]
                self._map(target, outcome, ids, before, patches, shown)

    def _map(
        self,
        target: Target,
        outcome: Outcome,
        ids: NDArray[np.integer],
        before: torch.Tensor,
        patches: torch.Tensor,
        shown: list[int],
    ) -> None:
        """Keep class ids before and after, and the edited patches, of the pictures that are shown."""
        if outcome.arm not in MAPPED_ARMS or outcome.size != NATURAL or outcome.draw:
            return
        names = np.array(self.segmenter.ids)
        for i in shown:
            about = {"image_id": int(ids[i]), "class_name": target.class_name, "class_id": target.class_id}
            grids = {
                "before": names[before[i].cpu().numpy()].tolist(),
                "after": names[outcome.after[i].cpu().numpy()].tolist(),
                "edited": patches[i].nonzero()[:, 0].tolist(),
            }
            self.maps += [about | {"arm": outcome.arm, "scale": scale} | grids for scale in outcome.scales]

    def why_not(self, class_id: int) -> str:
        """Say why a class has no row."""
        known = [number for number, counts in enumerate(self.counts) if counts.target.class_id == class_id]
        if not known:
            return "no latent that is active on the selection split was chosen for it there"
        channel = self.segmenter.ids.index(class_id)
        if not (self.segmenter.truth(np.array(self.images)) == channel).any():
            return "no patch of the measured split is labelled with it"
        return "the head predicts it in none of the measured pictures that have it"
