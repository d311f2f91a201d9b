"""Sets of verified latents that move a class together, beside the direction that the class is read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor
from torch.nn.functional import normalize

from visae.arms.changes import AddVector, Change
from visae.arms.dictionaries import untrained_dictionaries
from visae.config.interventions import AUTOMATIC, MATCHED
from visae.config.settings import AtlasSettings, InterventionSettings
from visae.device import chosen_device, described
from visae.discovery.choice import LatentSet, Slopes, chosen_set, class_slopes, proposed
from visae.discovery.ranks import ranked_among_untrained
from visae.discovery.sets_table import DIRECTION, RANDOM, UNTRAINED, Measured, sets_summary, sets_table
from visae.discovery.verify import drawn_half
from visae.errors import DataError
from visae.experiments.files import ExperimentFiles
from visae.experiments.opened import MEASURED, Opened
from visae.experiments.runner import Runner
from visae.files import write_json, write_table
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder, load_sae
from visae.tasks.counts import INSERT, SUPPRESS, ClassCounts, Target, Way
from visae.tasks.task import Task, drawn


def run_sets(
    task: str,
    files: ExperimentFiles,
    effects: Path,
    settings: AtlasSettings,
    layer: int,
    output: Path,
    *,
    others: Sequence[str] = (),
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Find sets of verified latents that move classes together; write sets.parquet and sets.json into `output`.

    Of the latents that the atlas has verified as supporting a class those are taken, one after the other, with which
    the set is expected to do most for its length: by slopes on split train. The set is then measured on pictures of
    split val on which no pair was verified. Suppressed, its latents are set to `scales` times their largest values
    where the class is; inserted, to `insert_scale` times where it is not. Beside it, and as far on each token, go the
    mean gradient of the class's log odds (the direction that it is read from), as many random latents, and sets that
    are chosen in the same way from untrained dictionaries and from `others`. `share` is what an edit reaches of the
    direction's effect.

    The SAE's set is also ranked among those of untrained dictionaries. There none is verified before, all are moved
    by one length, the median of their natural ones, and where pictures are judged each on the tokens on which its own
    latents are active: of dictionaries that are drawn alike each is as likely as the others to come first.

    Parameters
    ----------
    task
        A task of the study.
    files
        What it is run from; as for an experiment.
    effects
        effects.parquet of the atlas of the same task and SAE.
    settings
        Section `atlas`, as the atlas was made with.
    layer
        Whose output is edited.
    output
        Folder.
    others
        config.json of other SAEs; each of the same tokens is an arm, by the name of its folder.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What sets.json holds.

    Raises
    ------
    DataError
        If effects.parquet has a class that the task does not have.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, [*files.named(), str(effects), *others], seed, described(chosen))
    edits = InterventionSettings(batch_size=settings.batch_size, bootstrap=settings.bootstrap)
    found = Opened.of(task, files, edits, layer, chosen, seed)
    found.task.look(found.task.store.image_ids(MEASURED))
    runner = Runner(found.task, found.sae, edits, seed)
    loaded = {Path(path).parent.name: load_sae(path, chosen) for path in others}
    beside = {name: sae for name, sae in loaded.items() if _fits(sae, found.sae)}
    maker = SetMaker(found, runner, settings, _supporting(effects, found.task), beside, seed)
    measured, left_out = [], []
    with progress_bar(len(found.task.classes), f"{task}: sets of latents", "classes") as bar:
        for number, about in enumerate(found.task.classes):
            result = maker.of_class(number)
            if isinstance(result, str):
                left_out.append({"name": about["name"], "id": about["id"], "reason": result})
            else:
                measured.append(result)
            bar.update()
    table = sets_table(found.task, measured, settings.bootstrap, seed)
    write_table(output / "sets.parquet", table)
    summary = {
        "task": task,
        "layer": layer,
        **sets_summary(found.task, measured, table),
        "not_measurable": left_out,
        # SAEs of other tokens, or transcoders.
        "not_comparable": sorted(set(loaded) - set(beside)),
        "provenance": provenance.record(),
    }
    write_json(output / "sets.json", summary)
    return summary


@dataclass(frozen=True)
class SetMaker:
    """Makes and measures the set of a class, one class at a time.

    Attributes
    ----------
    supporting
        By class id: verified latents that support it, and all that some ranking of the atlas proposed.
    beside
        Other SAEs by name.
    """

    found: Opened
    runner: Runner
    settings: AtlasSettings
    supporting: Mapping[int, tuple[list[int], set[int]]]
    beside: Mapping[str, SparseAutoencoder]
    seed: int

    def of_class(self, number: int) -> Measured | str:
        """Choose a set on split train and measure it on val; a text where there is none, which says why."""
        task, sets = self.found.task, self.settings.sets
        class_id = int(task.classes[number]["id"])
        verified, claimed = self.supporting.get(class_id, ([], set()))
        if not verified:
            return "the atlas has verified no latent that supports it"
        slopes = class_slopes(self.found.selection, number, self.settings.pictures)
        if slopes is None:
            return "the selection split has no picture of it"
        activity = self.found.activity
        largest = [activity.largest[latent] for latent in verified]
        own = chosen_set(self.found.sae, slopes, verified, largest, max(sets.sizes), sets.scales[0])
        if own is None:
            return "none of its latents lowers it on the selection split"
        others = {name: [self._proposed_set(sae, slopes)] for name, sae in self.beside.items()}
        others[UNTRAINED] = [self._proposed_set(sae, slopes) for sae in self._untrained(self.settings.random_draws)]
        arms = {name: [one for one in of_arm if one is not None] for name, of_arm in others.items()}
        edited: list[tuple[int, ClassCounts]] = []
        for size in sorted({min(size, len(own.latents)) for size in sets.sizes}):
            draws = self._draws(class_id, own.first(size), arms, slopes.direction, claimed)
            for way, scales in ((SUPPRESS, sets.scales), (INSERT, [sets.insert_scale])):
                target = Target(class_id, task.names[class_id], own.latents[:size], own.expected[0])
                counts = self._fresh(target, way)
                if not counts.n_target.any() or not (way == INSERT or self.runner.can_be_edited(counts)):
                    continue
                sign = 1.0 if way == INSERT else -1.0
                self.runner.run(counts, draws(sign), tuple(scales), (MATCHED,))
                edited.append((size, counts))
        if not edited:
            return "no measured picture has it that no pair was verified on"
        return Measured(class_id, own, edited, self._ranks(slopes, edited))

    def _draws(
        self,
        class_id: int,
        own: LatentSet,
        others: Mapping[str, Sequence[LatentSet]],
        direction: Tensor,
        claimed: set[int],
    ) -> Any:
        """Return what gives the draws of each arm for a sign: that of an edit along the class's direction."""
        activity, size = self.found.activity, len(own.latents)
        pool = sorted(set(activity.count) - claimed - set(own.latents))
        generator = np.random.default_rng([self.seed, class_id, size, 25])
        # Without replacement within a draw, so that a small SAE has some too.
        random = [
            activity.edit(tuple(generator.choice(pool, size=min(size, len(pool)), replace=False).tolist()))
            for _ in range(self.settings.random_draws)
            if pool
        ]

        def draws(sign: float) -> dict[str, Sequence[Change]]:
            found: dict[str, Sequence[Change]] = {DIRECTION: [AddVector(sign * direction)]}
            if random:
                found[RANDOM] = random
            for name, sets in others.items():
                if sets:
                    found[name] = [AddVector(sign * normalize(one.first(size).total, dim=0)) for one in sets]
            return {**found, AUTOMATIC: [activity.edit(own.latents)]}

        return draws

    def _ranks(self, slopes: Slopes, edited: Sequence[tuple[int, ClassCounts]]) -> dict[Way, tuple[float, list[float]]]:
        """Effect of the SAE's set, chosen without verification, and of those of untrained dictionaries."""
        n = self.settings.sets.untrained
        if not n:
            return {}
        first = self._proposed_set(self.found.sae, slopes)
        sets = [first, *(self._proposed_set(sae, slopes) for sae in self._untrained(n))]
        largest = max(size for size, _ in edited)
        found = {}
        for size, counts in edited:
            if size == largest:
                few = self._fresh(counts.target, counts.way, self.settings.sets.sample)
                scale = self.settings.sets.insert_scale if counts.way == INSERT else self.settings.sets.scales[0]
                effects = ranked_among_untrained(self.runner, few, sets, scale)
                found[counts.way] = (float(effects[0]), effects[1:].tolist())
        return found

    def _proposed_set(self, dictionary: SparseAutoencoder, slopes: Slopes) -> LatentSet | None:
        """Set of any dictionary, chosen among those that its estimates propose."""
        sets = self.settings.sets
        return chosen_set(
            dictionary, slopes, *proposed(dictionary, slopes, sets.proposed), max(sets.sizes), sets.scales[0]
        )

    def _untrained(self, n: int) -> Any:
        selection = self.found.selection
        return untrained_dictionaries(self.found.sae, selection.k, n, self.seed, selection.middle)

    def _fresh(self, target: Target, way: Way, most: int | None = None) -> ClassCounts:
        """Pictures of a class, and others, that had no part in verifying: so many of each, drawn."""
        task = self.found.task
        counts = task.pictures(target, way, None, self.seed)
        used = drawn_half(task, target, self.settings.images, self.seed).images
        limit = self.settings.sets.images if most is None else most
        fresh = ~np.isin(counts.images, used)
        rows = [
            drawn(np.flatnonzero(fresh & chosen), limit, [self.seed, target.class_id, stream])
            for chosen, stream in ((counts.n_target > 0, 26), (counts.n_target == 0, 27))
        ]
        return counts.only(np.sort(np.concatenate(rows)))


def _supporting(effects: Path, task: Task) -> dict[int, tuple[list[int], set[int]]]:
    """By class id: verified latents that support it, the largest effects first, and all proposed ones."""
    table = pl.read_parquet(effects)
    unknown = set(table["class_id"].to_list()) - set(task.names)
    if unknown:
        raise DataError(f"{effects}: it has classes {sorted(unknown)}, which {task.name} does not; make it again")
    found = {}
    for (class_id,), rows in table.group_by("class_id", maintain_order=True):
        verified = rows.filter(pl.col("verified").fill_null(False), pl.col("effect") < 0).sort("effect", "latent")
        claimed = rows.filter(pl.any_horizontal(pl.col("^rank_.*$").is_not_null()))
        found[int(class_id)] = (verified["latent"].to_list(), set(claimed["latent"].to_list()))
    return found


def _fits(other: SparseAutoencoder, sae: SparseAutoencoder) -> bool:
    """Whether another SAE is of the same tokens, and gives them back."""
    return other.d_model == sae.d_model and other.place.tokens == sae.place.tokens and not other.is_transcoder
