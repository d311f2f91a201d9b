"""Runs arms, doses and untrained dictionaries on a split, class after class, and keeps what they count."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.config.settings import InterventionSettings
from visae.interventions.arms import AUTOMATIC, NATURAL, Draws, Outcome, outcomes, situation
from visae.interventions.counts import ClassCounts
from visae.interventions.dictionaries import untrained_dictionaries
from visae.interventions.doses import Doses, doses_table, natural_norm, respond
from visae.interventions.edits import active_values, patch_rows
from visae.interventions.participants import Selection
from visae.interventions.segmenting import Segmenter, add_outcome, counted
from visae.interventions.targets import Target
from visae.interventions.untrained import chosen_directions, dictionaries_compared
from visae.progress import progress_bar
from visae.sae import SparseAutoencoder

MAPS_PER_CLASS = 3
MAPPED_ARMS = ("random_latent", AUTOMATIC)
MAPS_SCHEMA: dict[str, Any] = {
    "image_id": pl.Int32,
    "class_name": pl.String,
    "class_id": pl.Int32,
    "arm": pl.String,
    "scale": pl.Float64,
    "before": pl.List(pl.Int16),
    "after": pl.List(pl.Int16),
    "edited": pl.List(pl.Int16),
}


@dataclass
class SegmentationExperiment:
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

    def sampled(self, target: Target) -> ClassCounts:
        """The pictures of a class on which doses and untrained dictionaries are run, nothing counted yet."""
        limit = min(self.settings.sample, self.settings.images or self.settings.sample)
        return counted(self.segmenter, target, self.images, self.seen, limit, self.seed)[0]

    def doses(
        self, classes: list[ClassCounts], draws: dict[int, Draws], codes_manifest: str | Path, fit_split: str
    ) -> pl.DataFrame:
        """Run the doses of each class."""
        found: list[Doses] = []
        if self.settings.doses:
            store = self.segmenter.store
            limit = natural_norm(store, fit_split)
            first = [counts.target.latents[0] for counts in classes]
            observed = active_values(codes_manifest, store.image_ids(fit_split), first)
            with progress_bar(len(classes), "doses", "classes") as bar:
                for counts in classes:
                    own = self.sampled(counts.target), draws[counts.target.class_id]
                    found.append(
                        respond(self.settings, self.segmenter, self.sae, *own, observed, self.images, self.seen, limit)
                    )
                    bar.update()
        return doses_table(found, len(self.images), self.settings.bootstrap, self.seed)

    def against_untrained(self, classes: list[ClassCounts], selection: Selection) -> dict[int, NDArray[np.float64]]:
        """Selectivity of each class's latents and of those of every untrained dictionary, by class id."""
        settings = self.settings
        if not settings.untrained or not classes:
            return {}
        gradients = selection.gradients if settings.choose_by == "gradient" else {}
        choice = selection.patches, settings.choose_by, settings.latents_per_class, gradients
        directions = [chosen_directions(self.sae, *choice)]
        with progress_bar(settings.untrained, "untrained dictionaries", "dictionaries") as bar:
            for other in untrained_dictionaries(self.sae, selection.k, settings.untrained, self.seed):
                directions.append(chosen_directions(other, *choice))
                bar.update()
        sampled = [self.sampled(counts.target) for counts in classes]
        scale = max(settings.scales, key=abs)
        return dictionaries_compared(
            self.segmenter, sampled, self.images, self.seen, directions, selection.patches, scale
        )

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
