"""Sets of verified latents that move a class together, beside the direction that the class is read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from visae.arms.changes import AddVector, Change
from visae.arms.dictionaries import untrained_dictionaries
from visae.config.interventions import AUTOMATIC, MATCHED
from visae.config.settings import AtlasSettings, InterventionSettings
from visae.device import chosen_device, described
from visae.discovery.candidates import Candidates, candidates_of
from visae.discovery.choice import LatentSet, Proposal, Slopes, chosen_set, class_slopes, proposed
from visae.discovery.effects import read_atlas, read_effects
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
from visae.tasks.task import drawn


def run_sets(
    task: str,
    files: ExperimentFiles,
    settings: AtlasSettings,
    layer: int,
    output: Path,
    *,
    others: Sequence[str] = (),
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Find sets of verified latents that move classes together; write sets.parquet and sets.json into `output`.

    Latents are taken one after the other, each the one with which the set is expected to do most for its length, by
    slopes on split train: first of all that support a class, to verify `candidates` of them where the atlas has not
    edited them, then of what is verified. The set is measured on pictures of split val on which no pair was verified.
    Suppressed, its latents are set to `scales` times their largest values where the class is; inserted, to
    `insert_scales` times where it is not. Beside it, and as far on each token, go the mean gradient of the class's log
    odds (the direction that it is read from), as many random latents, and sets that are chosen in the same way from
    untrained dictionaries and from `others`. `share` is what an edit reaches of the direction's effect.

    The SAE's set is also ranked among those of untrained dictionaries. There none is verified before, all are moved
    by one length, the median of their natural ones, and where pictures are judged each on the tokens on which its own
    latents are active: of dictionaries that are drawn alike each is as likely as the others to come first.

    Parameters
    ----------
    task
        A task of the study.
    files
        What it is run from; as for an experiment.
    settings
        Section `atlas`, as the atlas was made with.
    layer
        Whose output is edited.
    output
        Folder in which the atlas has written effects.parquet.
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
        If there is no effects.parquet or atlas.json, or they are of another SAE or task; or `sets: sizes` is empty.
    """
    chosen, seed, effects = chosen_device(device), seed + settings.seed, output / "effects.parquet"
    read_effects(effects)
    read_atlas(effects.with_name("atlas.json"), (files.sae, files.codes))
    if not settings.sets.sizes:
        raise DataError("atlas: sets: sizes: it is empty, so that there is no set to be made; name one or more")
    provenance = Provenance(settings, [*files.named(), str(effects), *others], seed, described(chosen))
    edits = InterventionSettings(batch_size=settings.batch_size, bootstrap=settings.bootstrap)
    found = Opened.of(task, files, edits, layer, chosen, seed)
    found.task.look(found.task.store.image_ids(MEASURED))
    runner = Runner(found.task, found.sae, edits, seed)
    loaded = {Path(path).parent.name: load_sae(path, chosen) for path in others}
    beside = {name: sae for name, sae in loaded.items() if _fits(sae, found.sae)}
    candidates = candidates_of(effects, found, runner, settings, seed)
    maker = SetMaker(found, runner, settings, candidates, beside, seed)
    measured, left_out = [], []
    with progress_bar(len(found.task.classes), f"{task}: sets of latents", "classes") as bar:
        for number, about in enumerate(found.task.classes):
            result = maker.of_class(number)
            if isinstance(result, str):
                left_out.append({"name": about["name"], "id": about["id"], "reason": result})
            else:
                measured.append(result)
            bar.update()
    table = sets_table(found.task, measured, settings.sets.sizes, settings.bootstrap, seed)
    write_table(output / "sets.parquet", table)
    summary = {
        "task": task,
        "layer": layer,
        "n_edited": candidates.n_edited,
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
    beside
        Other SAEs by name.
    """

    found: Opened
    runner: Runner
    settings: AtlasSettings
    candidates: Candidates
    beside: Mapping[str, SparseAutoencoder]
    seed: int

    def of_class(self, number: int) -> Measured | str:
        """Choose a set on split train and measure it on val; a text where there is none, which says why."""
        task, sets = self.found.task, self.settings.sets
        class_id = int(task.classes[number]["id"])
        verified = self.candidates.supporting.get(class_id)
        if not verified:
            return "no latent is verified that supports it"
        slopes = class_slopes(self.found.selection, number, self.settings.pictures)
        if slopes is None:
            return "the selection split has no picture of it"
        activity = self.found.activity
        largest = [activity.largest[latent] for latent in verified]
        proposal = Proposal.of(self.found.sae, slopes, verified, largest)
        own = chosen_set(slopes, proposal, max(sets.sizes), sets.scales[0])
        if own is None:
            return "none of its latents lowers it on the selection split"
        others = {name: [self._proposed_set(sae, slopes)] for name, sae in self.beside.items()}
        others[UNTRAINED] = [self._proposed_set(sae, slopes) for sae in self._untrained(self.settings.random_draws)]
        arms = {name: [one for one in of_arm if one is not None] for name, of_arm in others.items()}
        edited: list[tuple[int, ClassCounts]] = []
        for size in sorted({min(size, len(own.latents)) for size in sets.sizes}):
            draws = self._draws(class_id, own.first(size), arms, slopes.direction)
            for way, scales in ((SUPPRESS, sets.scales), (INSERT, sets.insert_scales)):
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
    ) -> Any:
        """Return what gives the draws of each arm for a sign: that of an edit along the class's direction."""
        activity, size = self.found.activity, len(own.latents)
        pool = sorted(set(activity.count) - self.candidates.claimed_of(class_id))
        pool = pool or sorted(set(activity.count) - set(own.latents))  # of a small SAE every latent may be proposed
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
                scale = (self.settings.sets.insert_scales if counts.way == INSERT else self.settings.sets.scales)[0]
                effects = ranked_among_untrained(self.runner, few, sets, scale)
                found[counts.way] = (float(effects[0]), effects[1:].tolist())
        return found

    def _proposed_set(self, dictionary: SparseAutoencoder, slopes: Slopes) -> LatentSet | None:
        """Set of any dictionary, chosen among those that its estimates propose."""
        sets = self.settings.sets
        return chosen_set(slopes, proposed(dictionary, slopes, sets.proposed), max(sets.sizes), sets.scales[0])

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


def _fits(other: SparseAutoencoder, sae: SparseAutoencoder) -> bool:
    """Whether another SAE is of the same tokens, and gives them back."""
    return other.d_model == sae.d_model and other.place.tokens == sae.place.tokens and not other.is_transcoder
