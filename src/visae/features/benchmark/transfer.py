"""How far latents serve on pictures of other data sets (visaebench's M6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visae.features.benchmark.measured import Estimate, Metric, NotMeasured, by_rows, resampled_weights
from visae.features.benchmark.pictures import Pictures, probe_split, ranked, right_answers
from visae.features.benchmark.probing import ratios_of
from visae.features.benchmark.reconstruction import Reconstruction
from visae.intervals import RESAMPLES, interval

PROBED = 10
"""Latents of the probe."""


@dataclass(frozen=True)
class Elsewhere:
    """Pictures of another data set, and how the SAE reconstructs them."""

    pictures: Pictures
    rebuilt: Reconstruction


def cross_domain(pictures: Pictures, others: Mapping[str, Elsewhere], seed: int, split_seed: int) -> Metric:
    """M6, cross_domain.

    Of each other data set the mean of four shares: variance explained, latents active on the own data set that are
    active there, latents active on both among those active on either, and accuracy of a probe on ten latents. The
    interval is over pictures, and over latents for the two shares of them.

    Parameters
    ----------
    pictures
        Of the own data set.
    others
        The others by name.
    seed
        Of the interval.
    split_seed
        visaebench's, of the split and the solver.

    Raises
    ------
    NotMeasured
        If there is no other data set, or one has too few pictures or labels.
    """
    if not others:
        raise NotMeasured("no other data set is named (config: benchmark: others)")
    own = pictures.active_latents()
    found = []
    for number, (name, other) in enumerate(others.items()):
        try:
            found.append(_of_dataset(own, other, seed + number, split_seed))
        except NotMeasured as reason:
            raise NotMeasured(f"{name}: {reason}") from reason
    value, corrected = np.mean(found, axis=0)
    return Metric(
        *("cross_domain", "visaebench", True, _estimate(value), _estimate(corrected)),
        *(sum(len(other.pictures.ids) for other in others.values()), "pictures", f"of {', '.join(others)}"),
        "variance about the mean of each dimension",
    )


def _of_dataset(own: NDArray[np.bool_], other: Elsewhere, seed: int, split_seed: int) -> NDArray[np.float64]:
    """By the package and corrected: the mean of the four shares, then as resampled, (2, 1 + resamples)."""
    pictures, rebuilt, rng = other.pictures, other.rebuilt, np.random.default_rng([seed, 3])
    there = pictures.active_latents()
    both, gone, new = ((own & there).sum(), (own & ~there).sum(), (there & ~own).sum())
    latents = max(1, both + gone + new)
    # Latents are drawn as pictures are; of an SAE that is silent on both data sets there are none.
    counts = np.vstack([[both, gone, new], rng.multinomial(latents, np.array([both, gone, new]) / latents, RESAMPLES)])
    covered = _share(counts[:, 0], counts[:, 0] + counts[:, 1], empty=1)
    overlap = _share(counts[:, 0], counts.sum(axis=1), empty=0)

    kept = pictures.labelled
    labels = pictures.labels[kept]
    learned, tested = probe_split(labels, split_seed)
    # Ranked on what the probe learns from: unlike in sparse_probing, the package does it right here.
    best = ranked(ratios_of(pictures, [kept[learned]])[0], PROBED)
    right = right_answers(pictures.columns(best).toarray().T[kept], labels, learned, tested, split_seed)
    accuracy = by_rows(lambda drawn: drawn @ right / len(tested), resampled_weights(len(tested), seed))

    weights = resampled_weights(len(pictures.ids), seed)
    package = by_rows(rebuilt.unexplained_by_package, weights)
    # What visaebench makes of variances that are not above 0.
    package = np.where(np.isfinite(package), np.maximum(package, 0), 1)
    shares = [np.clip(1 - unexplained, 0, 1) for unexplained in (package, by_rows(rebuilt.unexplained, weights))]
    return np.stack([(explained + covered + overlap + accuracy) / 4 for explained in shares])


def _estimate(values: NDArray[np.float64]) -> Estimate:
    return Estimate(float(values[0]), *interval(values[1:]))


def _share(part: NDArray, whole: NDArray, empty: float) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), empty)
