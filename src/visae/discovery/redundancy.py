"""Groups of latents that stand in for each other: each alone does next to nothing, together they do something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.arms.changes import AsLong
from visae.arms.selection import Selection
from visae.config.interactions import InteractionSettings
from visae.discovery.odds import Odds, odds_of
from visae.discovery.synergy import Resampled, beyond_sum
from visae.discovery.together import own_pictures
from visae.experiments.opened import Opened
from visae.experiments.runner import Runner
from visae.experiments.tables import ALPHA
from visae.features.resampling import benjamini_hochberg
from visae.progress import progress_bar
from visae.tasks.counts import ClassCounts

_ENOUGH = 0.9
"""A smaller group that does at least this share of what a larger one does beyond the sum stands for it."""

_MOST = 0.5
"""Share of what a redundant group does that is beyond the sum of what its latents do alone, at least."""

Group = tuple[int, ...]


@dataclass(frozen=True)
class Redundancy:
    """Looks for groups on one half of the measured split, and measures them on the other.

    Attributes
    ----------
    halves
        As for `Pairs`.
    """

    runner: Runner
    found: Opened
    settings: InteractionSettings
    halves: tuple[int, int]
    seed: int

    def groups(self, effects: pl.DataFrame, pictures: int) -> list[dict[str, Any]]:
        """Measure the groups of every class, with false discovery rates over all of them and the verdict.

        A group is *verified* where together it does more to the class than random groups as long, in the direction
        in which it was chosen, and its interval leaves out 0. It is *redundant* where it is verified, does more than
        the sum of what each latent does alone, by more than half of all that it does, and none of its latents alone
        does more than a random one as long, at a false discovery rate of 5 % over its latents.

        Parameters
        ----------
        effects
            effects.parquet.
        pictures
            Of each class, of the selection split, on which candidates are chosen.
        """
        if not self.settings.candidates:
            return []
        rows: list[dict[str, Any]] = []
        task = self.runner.task
        with progress_bar(len(task.classes), f"{task.name}: groups of latents", "classes") as bar:
            for number, about in enumerate(task.classes):
                of_class = effects.filter(pl.col("class_id") == about["id"])
                rows += self._of_class(number, about["id"], of_class, pictures)
                bar.update()
        for name in ("p", "p_beyond"):
            q = benjamini_hochberg(np.array([row[name] for row in rows], dtype=np.float64))
            for row, rate in zip(rows, q, strict=True):
                row[name.replace("p", "q", 1)] = float(rate)
        for row in rows:
            way = "low" if row["together"] > 0 else "high"
            verified = row["q"] <= ALPHA and row["together"] * row[f"together_{way}"] > 0
            # Many small effects that add up are no group in which each stands in for the others.
            beyond = row["q_beyond"] <= ALPHA and row["beyond_sum"] / row["together"] > _MOST if verified else False
            row["verified"] = bool(verified)
            alone = benjamini_hochberg(np.array(row["p_alone"], dtype=np.float64))
            row["redundant"] = bool(verified and beyond and alone.min() > ALPHA)
        return rows

    def _of_class(self, number: int, class_id: int, effects: pl.DataFrame, pictures: int) -> list[dict[str, Any]]:
        """Measured groups of one class."""
        codes = codes_by_picture(self.found.selection, number, pictures)
        if codes is None or not len(effects):
            return []
        candidates = self._candidates(codes, effects)
        if len(candidates) < 2:
            return []
        counts = own_pictures(self.runner, class_id, candidates, self.halves, again=False)
        if not len(counts.images) or not self.runner.can_be_edited(counts):
            return []
        idle, alone = self._idle(counts, candidates, effects)
        if len(idle) < 2:
            return []
        nodes = alike(idle, codes, self.runner.sae.raw_rows().cpu().numpy(), self.settings.largest)
        chosen = self._chosen(counts, alone, nodes)
        return [row for group, way in chosen if (row := self._measured(class_id, group, way, effects)) is not None]

    def _candidates(self, codes: NDArray[np.float64], effects: pl.DataFrame) -> list[int]:
        """Latents not verified: half of them by the estimate, half by how much of the class they fire on."""
        left = effects.filter(~pl.col("verified").fill_null(False))
        by_estimate = left.sort(pl.col("estimate").abs(), "latent", descending=[True, False])["latent"].to_list()
        store = self.runner.task.store
        n_tokens = len(store.image_ids(self.found.selection.split)) * store.n_tokens(self.runner.task.tokens)
        everywhere = np.array([self.found.activity.count[latent] / n_tokens for latent in by_estimate])
        strength = codes.mean(axis=0)[by_estimate]
        # A latent that fires everywhere tells no class.
        order = np.argsort(-strength * (1 - everywhere), kind="stable")
        by_firing = [by_estimate[place] for place in order.tolist() if strength[place] > 0]
        most = self.settings.candidates
        return list(dict.fromkeys([*by_estimate[: most // 2], *by_firing]))[:most]

    def _idle(
        self, counts: ClassCounts, candidates: Sequence[int], effects: pl.DataFrame
    ) -> tuple[list[int], dict[int, NDArray[np.float64]]]:
        """Candidates that alone do no more than random latents as long, and what each does by picture, (n,)."""
        edit = self.found.activity.edit
        alone = [edit((latent,)) for latent in candidates]
        others = self._random_groups(counts.target.class_id, tuple(candidates), effects)[0]
        random = [AsLong(edit((other,)), change) for other, change in zip(others, alone, strict=True)]
        odds = odds_of(self.runner, counts, {"alone": alone, "random": random})
        resampled = Resampled.of(odds.units, self.settings.bootstrap, self.seed)
        found = list(zip(candidates, odds.change["alone"], odds.change["random"], strict=True))
        idle = [latent for latent, one, other in found if resampled.above(one, other) > ALPHA]
        return idle, {latent: one for latent, one, _ in found}

    def _chosen(
        self, counts: ClassCounts, alone: Mapping[int, NDArray[np.float64]], nodes: Sequence[Group]
    ) -> list[tuple[Group, float]]:
        """Groups without a latent in common that do most beyond the sum on the first half, and their direction."""
        edit = self.found.activity.edit
        odds = odds_of(self.runner, counts, {"together": [edit(group) for group in nodes]})
        gains: dict[Group, tuple[float, float]] = {}
        for group, together in zip(nodes, odds.change["together"], strict=True):
            each = np.stack([alone[latent] for latent in group])
            beyond, way = beyond_sum(together, each).sum(), float(np.sign(together.sum()))
            # What one of them does by itself needs no group.
            if way * beyond > 0 and abs(together.sum()) > np.abs(each.sum(axis=1)).max():
                gains[group] = (way * float(beyond), way)
        chosen: list[tuple[Group, float]] = []
        for group in sorted(gains, key=lambda group: (-gains[group][0], group)):
            within = [part for part in gains if set(part) <= set(group) and gains[part][0] >= _ENOUGH * gains[group][0]]
            best = min(within, key=lambda part: (len(part), -gains[part][0], part))
            if len(chosen) < self.settings.groups and not any(set(best) & set(other) for other, _ in chosen):
                chosen.append((best, gains[best][1]))
        return chosen

    def _measured(self, class_id: int, group: Group, way: float, effects: pl.DataFrame) -> dict[str, Any] | None:
        """A group on the second half; None where there is nothing to edit."""
        counts = own_pictures(self.runner, class_id, group, self.halves, again=True)
        if not len(counts.images) or not self.runner.can_be_edited(counts):
            return None
        edit = self.found.activity.edit
        alone, whole = [edit((latent,)) for latent in group], edit(group)
        randoms = self._random_groups(class_id, group, effects)
        odds = odds_of(
            self.runner,
            counts,
            {
                "alone": alone,
                "random_alone": [
                    AsLong(edit((other,)), change) for other, change in zip(randoms[0], alone, strict=True)
                ],
                "together": [whole],
                "random": [AsLong(edit(others), whole) for others in randoms],
            },
        )
        return self._row(class_id, group, way, odds)

    def _row(self, class_id: int, group: Group, way: float, odds: Odds) -> dict[str, Any]:
        resampled = Resampled.of(odds.units, self.settings.bootstrap, self.seed)
        together, alone = odds.change["together"][0], odds.change["alone"]
        random = odds.change["random"].mean(axis=0)
        random_alone = odds.change["random_alone"]
        beyond = beyond_sum(together, alone)
        return {
            "class_id": class_id,
            "class_name": self.runner.task.names[class_id],
            "latents": list(group),
            **resampled.measured("together", together),
            "alone": [resampled.mean(values) for values in alone],
            **resampled.measured("sum_alone", alone.sum(axis=0)),
            **resampled.measured("beyond_sum", beyond),
            "random_groups": resampled.mean(random),
            "p": resampled.one_way(together - random, way),
            "p_beyond": resampled.one_way(beyond, way),
            "p_alone": [resampled.above(one, other) for one, other in zip(alone, random_alone, strict=True)],
            "n_units": int(odds.units.sum()),
            "n_images": int((odds.units > 0).sum()),
        }

    def _random_groups(self, class_id: int, group: Group, effects: pl.DataFrame) -> list[Group]:
        """Groups of as many latents that are not verified."""
        verified = set(effects.filter(pl.col("verified").fill_null(False))["latent"].to_list())
        active = set(self.found.activity.count) - set(group)
        pool = sorted(active - verified) or sorted(active)
        generator = np.random.default_rng([self.seed, class_id, *group, 25])
        size = min(len(group), len(pool))
        draws = [generator.choice(pool, size=size, replace=False).tolist() for _ in range(self.settings.random_draws)]
        # With fewer others than the group has members, some are in it twice; their sum is as long all the same.
        return [tuple((others * len(group))[: len(group)]) for others in draws]


@torch.inference_mode()
def codes_by_picture(selection: Selection, number: int, pictures: int) -> NDArray[np.float64] | None:
    """Mean code of every latent over a class's own tokens of each picture, (n_pictures, width); None without any."""
    task, sae = selection.task, selection.sae
    found = []
    for tokens, own in selection.units(number, pictures):
        rows = tokens[:, task.own]
        for place, of_picture in enumerate(rows):
            chosen = of_picture
            if own is not None and task.tokens != "class":
                # The last ones are the patches, whatever else edits move.
                chosen = of_picture[-own.shape[1] :][own[place]]
            if len(chosen):
                found.append(sae.encode(chosen).mean(dim=0).double().cpu().numpy())
    return np.stack(found) if found else None


def alike(
    candidates: Sequence[int], codes: NDArray[np.float64], directions: NDArray[np.floating], largest: int
) -> list[Group]:
    """Groups of latents that fire on the same pictures or point the same way: nodes of a tree by average linkage.

    Two latents are as alike as the larger of the cosine of their codes over pictures and that of their directions.

    Parameters
    ----------
    codes
        (n_pictures, width).
    directions
        (width, d_model).
    largest
        Latents in a group, at most.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    places = list(candidates)
    likeness = np.maximum(_cosines(codes[:, places].T), _cosines(directions[places].astype(np.float64)))
    distance = np.clip(1 - likeness, 0, None)
    np.fill_diagonal(distance, 0)
    members: list[list[int]] = [[latent] for latent in places]
    for first, second, _, _ in linkage(squareform(distance, checks=False), "average"):
        members.append(members[int(first)] + members[int(second)])
    return [tuple(sorted(group)) for group in members[len(places) :] if len(group) <= largest]


def _cosines(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of each pair of rows (m, k), (m, m); 0 where one is 0."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    cosines: NDArray[np.float64] = unit @ unit.T
    return cosines
