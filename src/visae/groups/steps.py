"""The steps of an experiment on groups: which latents serve a shortcut, suppressed, and beside retrained probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.arms.changes import Draws
from visae.config.interventions import AUTOMATIC, MATCHED, NATURAL
from visae.config.settings import GroupSettings
from visae.errors import DataError
from visae.experiments.opened import FIT, MEASURED, Opened
from visae.groups.accuracy import WORST, Accuracies
from visae.groups.edits import BEFORE, SUPPRESSED, Answers, answers, as_often_active, draws_of, possible
from visae.groups.estimate import Estimates, estimates, pictures_by_class
from visae.groups.pictures import Grouped, Halves, grouped, halved
from visae.groups.retrain import Reader, balanced_readout, few_enough, fitted
from visae.groups.single import judged, measured_singly
from visae.groups.tables import accuracy_table
from visae.progress import progress_bar
from visae.tasks.classification import Classification
from visae.tasks.pictures import PictureTask


@dataclass
class Steps:
    """What is found out of one task and SAE, step by step.

    Attributes
    ----------
    ways
        Rows of groups.parquet.
    ranked
        Latents that help on train and harm in weak groups, the first first.
    single
        What was measured of the first of them, by latent.
    n_chosen
        How many are suppressed; 0 where none can be.
    """

    opened: Opened
    task: PictureTask
    settings: GroupSettings
    layer: int
    seed: int
    groups: Mapping[int, str]
    ways: list[dict[str, Any]] = field(default_factory=list)
    ranked: list[int] = field(default_factory=list)
    single: dict[int, dict[str, Any]] = field(default_factory=dict)
    n_chosen: int = 0
    above: list[dict[str, Any]] = field(default_factory=list)
    not_retrained: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.halves: Halves = halved(self.task, self.groups, FIT, MEASURED, self.seed)
        self.accuracies = Accuracies(self.halves.measured, self.settings.bootstrap, self.seed)
        self.before = self._answers(self.halves.measured, {})[BEFORE].right
        self._add("before", self.before)

    # --- which latents ---

    def rank(self) -> None:
        """Find the weak groups on the half that is chosen on, and rank latents."""
        half = self.halves.chosen
        before = self._answers(half, {})[BEFORE]
        self.weak = weak_groups(half, before)
        self.effects: Estimates = estimates(
            self.opened.selection,
            pictures_by_class(self.task, FIT),
            half,
            self.weak,
            self.settings.pictures,
            self.settings.points,
        )
        self.ranked = self.effects.ranked(sorted(self.opened.activity.count))

    def suppress(self) -> None:
        """Suppress ever more of the first latents: chosen on one half, measured on the other; and single ones."""
        settings, activity, half = self.settings, self.opened.activity, self.halves.measured
        numbers = possible(
            settings.suppressed, len(self.ranked), settings.verified, len(activity.count), settings.random_draws
        )
        singles = [(latent,) for latent in self.ranked[: settings.verified]] if numbers else []
        sets = [*(tuple(self.ranked[:n]) for n in numbers), *singles]
        draws = draws_of(sets, activity, settings.random_draws, self.seed)
        self.n_chosen = self._best(dict(zip(numbers, draws, strict=False)))
        with progress_bar(len(sets), f"{self.task.name}: suppressed", "edits") as bar:
            for n, draw in zip(numbers, draws, strict=False):
                # At their own size controls are of interest beside what was chosen.
                sizes = (NATURAL, MATCHED) if n == self.n_chosen else (MATCHED,)
                self._measure(n, self._answers(half, draw, sizes))
                bar.update()
            for (latent,), draw in zip(singles, draws[len(numbers) :], strict=True):
                found = self._answers(half, draw, (MATCHED,))
                weak = self.weak[half.group]
                self.single[latent] = measured_singly(found, weak, settings.bootstrap, self.seed)
                bar.update()
        judged(self.single)

    def _best(self, draws: Mapping[int, Draws]) -> int:
        """Number of suppressed latents with the best worst group on the half that is chosen on; 0 where there is none.

        Of numbers that are as good the one with the better mean over groups, then the smallest: it changes least.
        """
        # All in one reading of the half, each as an arm of its own.
        found = self._answers(self.halves.chosen, {str(n): draw[AUTOMATIC] for n, draw in draws.items()}, (NATURAL,))
        on_chosen = Accuracies(self.halves.chosen, 10, self.seed)  # its intervals are not asked for
        by_group = {n: on_chosen.by_group(found[str(n), NATURAL].right) for n in draws}
        return max(draws, key=lambda n: (by_group[n].min(), by_group[n].mean(), -n), default=0)

    def _measure(self, n: int, found: Mapping[tuple[str, str], Answers]) -> None:
        """Keep what suppressing the first n latents does, and other latents."""
        own = found[SUPPRESSED].right
        for (arm, size), answered in found.items():
            if (arm, size) == BEFORE:
                continue
            way = "suppressed" if arm == AUTOMATIC else arm
            self._add(way, answered.right, size=size, n_latents=n)
            if arm != AUTOMATIC and n == self.n_chosen:
                difference = self.accuracies.difference(own, answered.right)
                self.above.append({"control": arm, "size": size, **difference})

    # --- probes that are trained again ---

    def retrain(self) -> None:
        """Retrain the probe in the ways that there are; a task without a probe has none."""
        if not isinstance(self.task, Classification):
            return
        reader = Reader(self.task, self.opened.sae, self.layer)
        measured, n_classes = self.halves.measured, len(self.task.classes)
        rows = reader.features(measured.ids)
        names = self.halves.chosen.names
        sources = {"val": self.halves.chosen, "train": grouped(self.task, FIT, self.groups, names)}
        for source, whole in sources.items():
            if (why := self._unbalanced(whole, source)) is not None:
                self.not_retrained.append({"way": f"retrained_{source}", "reason": why})
                continue
            pictures = few_enough(whole, self.settings.retrained_on, self.seed)
            features, draws = reader.features(pictures.ids), self.settings.balanced_draws
            readout = balanced_readout(features, pictures, n_classes, draws, self.seed)
            self._add(f"retrained_{source}", readout.right(rows, measured.truth))
        if self.n_chosen:
            self._retrain_without(reader)

    def _retrain_without(self, reader: Reader) -> None:
        """Retrain on train as it is, but without the suppressed latents, and without such as are about as active."""
        by_class = pictures_by_class(self.task, FIT)
        ids = np.array([i for images in by_class.values() for i in images], dtype=np.int64)
        truth = np.repeat(list(by_class), [len(images) for images in by_class.values()])
        order = np.sort(np.random.default_rng([self.seed, 35]).permutation(len(ids))[: self.settings.retrained_on])
        ids, truth = ids[order], truth[order]
        own = tuple(self.ranked[: self.n_chosen])
        control = as_often_active(own, self.opened.activity, self.seed)
        measured = self.halves.measured
        for way, latents in (("suppressed_retrained", own), ("control_retrained", control)):
            readout, _ = fitted(reader.features(ids, latents), truth, len(self.task.classes), self.seed)
            right = readout.right(reader.features(measured.ids, latents), measured.truth)
            self._add(way, right, size=NATURAL, n_latents=self.n_chosen)

    def _unbalanced(self, pictures: Grouped, split: str) -> str | None:
        """Why a probe cannot be retrained on pictures."""
        if missing := set(self.halves.measured.cells) - set(pictures.cells):
            group, number = min(missing)
            names = pictures.names[group], self.task.classes[number]["name"]
            return f"split {split} has no picture of group {names[0]} and class {names[1]}"
        return None if len({number for _, number in pictures.cells}) > 1 else f"split {split} has one class"

    # --- what comes of it ---

    def summary(self) -> dict[str, Any]:
        """What groups.json holds of it."""
        n, half = self.n_chosen, self.halves
        table = accuracy_table(self.ways).filter(over=WORST)
        worst = table.filter((pl.col("n_latents") == n) | pl.col("n_latents").is_null()).drop("over", "n_images")
        proven = [latent for latent, row in self.single.items() if row["verified"]]
        return {
            "groups": [
                {"group": name, "n_chosen": int(a), "n_measured": int(b), "weak": bool(weak)}
                for name, a, b, weak in zip(
                    half.chosen.names, half.chosen.sizes, half.measured.sizes, self.weak, strict=True
                )
            ],
            "left_out": half.left_out,
            "n_ranked": len(self.ranked),
            "n_suppressed": n,
            "latents": self.ranked[:n],
            "not_suppressed": sorted(set(self.settings.suppressed) - set(table["n_latents"].drop_nulls().to_list())),
            "worst_group": worst.to_dicts(),
            "above_controls": self.above,
            "n_edited": len(self.single),
            "verified": proven,
            "silent": [latent for latent, row in self.single.items() if not row["n_active"]],
            "not_retrained": self.not_retrained,
        }

    def _add(self, way: str, right: NDArray[np.float64], size: str | None = None, n_latents: int | None = None) -> None:
        about = {"way": way, "size": size, "n_latents": n_latents}
        about["is_chosen"] = n_latents is None or n_latents == self.n_chosen
        self.ways += [about | row for row in self.accuracies.measured(right, self.before)]

    def _answers(
        self, pictures: Grouped, draws: Mapping[str, Sequence[Any]], sizes: Sequence[str] = (NATURAL, MATCHED)
    ) -> dict[tuple[str, str], Answers]:
        return answers(self.task, self.opened.sae, pictures, draws, self.settings.batch_size, sizes)


def weak_groups(pictures: Grouped, before: Answers) -> NDArray[np.bool_]:
    """Which groups are answered worse than the mean over groups, (n_groups,): some are, and some are not.

    By accuracy, or where that is the same in all by the mean log odds of the true class.
    """
    for values in (before.right, before.odds):
        of_groups = np.bincount(pictures.group, values, len(pictures.names)) / pictures.sizes
        weak = of_groups < of_groups.mean() - 1e-12
        if weak.any():
            return weak
    raise DataError("groups: all groups are answered alike, to the last digit; are they different pictures?")
