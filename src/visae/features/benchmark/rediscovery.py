"""Whether single latents rediscover classes: saev's R, mAP, purity and coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visae.features.benchmark.logistic import first_gains, fit
from visae.features.benchmark.measured import UNDEFINED, Estimate, Metric, NotMeasured, by_rows, resampled_weights
from visae.features.concepts import Blocks, Labels
from visae.features.ranking import Entries
from visae.intervals import interval

PURITY_AT = 16
"""Units in which a latent is strongest, whose classes are compared."""

COVERED = 0.3
"""Average precision from which a class counts as covered."""

CANDIDATES = 24
"""Latents of each class that are fitted, by each of two first looks."""

# Values at once of a latent's fits and of resamples.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Probe:
    """The latent with the least training loss for a class, and its logistic regression."""

    latent: int
    bias: float
    weight: float


def rediscovery(blocks: Blocks, fit_on: Labels, measured: Labels, seed: int) -> list[Metric]:
    """R, mAP, purity at 16 and coverage at an average precision of 0.3.

    For each class the latent is taken whose one-dimensional logistic regression has the least loss on the pictures to
    fit on; everything else is measured on the others, and the class is left out that has no unit there or there.

    Parameters
    ----------
    blocks
        Gives the codes, a range of latents at a time.
    fit_on, measured
        Classes of units, of the pictures to choose on and to measure on.
    seed
        Of the resamples.

    Raises
    ------
    NotMeasured
        If no class has units in both.
    """
    chosen = best_probes(blocks, fit_on)
    positives = measured.positives
    classes = [number for number in chosen if 0 < positives[number] < positives.sum()]
    if not classes:
        raise NotMeasured("no class has units among the pictures to choose on and those to measure on")
    weights = resampled_weights(len(measured.pictures), seed)
    share = fit_on.positives / fit_on.positives.sum()
    units = measured.by_picture()
    scores = np.full((3, len(classes), len(weights)), np.nan)
    for latents, codes in blocks():
        here = [place for place, number in enumerate(classes) if chosen[number].latent in latents]
        entries = Entries.of(codes, latents, measured.pictures) if here else None
        for place in here:
            assert entries is not None
            probe = chosen[classes[place]]
            own = entries.of_latent(probe.latent - latents.start)
            found = measured.of(own)
            unit = _Codes.of(own[found >= 0], found[found >= 0] == classes[place], probe.weight < 0)
            hits = measured.by_picture(classes[place])
            scores[0, place] = _relative_loss(unit, probe, share[classes[place]], hits, units, weights)
            scores[1, place] = average_precisions(unit, hits, units, weights)
            scores[2, place] = _purities(unit, weights, probe.weight < 0)
    covered = np.where(np.isnan(scores[1]), np.nan, scores[1] >= COVERED)
    return [
        Metric(name, "saev", True, value, value, len(classes), "classes")
        for name, value in (
            ("probe_r", _mean(scores[0])),
            ("mean_average_precision", _mean(scores[1])),
            (f"purity_at_{PURITY_AT}", _mean(scores[2])),
            (f"coverage_at_{COVERED}", _mean(covered)),
        )
    ]


def best_probes(blocks: Blocks, labels: Labels) -> dict[int, Probe]:
    """Find the best latent of each class that has units, by the loss of its logistic regression.

    Not all latents are fitted: of each class those that promise most by two first looks, the size of a first step and
    what is known from whether the latent is active at all.
    """
    positives = labels.positives
    classes = np.flatnonzero((positives > 0) & (positives < positives.sum()))
    if not len(classes):
        return {}
    candidates = _candidates(blocks, labels)
    best: dict[int, tuple[float, Probe]] = {}
    for latents, codes in blocks():
        wanted = {latent: numbers for latent, numbers in candidates.items() if latent in latents}
        if not wanted:
            continue
        entries = Entries.of(codes, latents, labels.pictures)
        for latent, numbers in sorted(wanted.items()):
            own = entries.of_latent(latent - latents.start)
            found = labels.of(own)
            values, found = own.value[found >= 0].astype(np.float64), found[found >= 0]
            step = max(1, _CHUNK // max(1, len(values)))
            for start in range(0, len(numbers), step):
                part = np.array(numbers[start : start + step])
                hits = found == part[:, None]
                fits = fit(values, hits, int(positives.sum()), positives[part])
                silent = positives.sum() - len(values)
                losses = fits.losses(values, hits, silent, positives[part] - hits.sum(axis=1))
                for number, loss, bias, weight in zip(part.tolist(), losses, fits.bias, fits.weight, strict=True):
                    if number not in best or loss < best[number][0]:
                        best[number] = float(loss), Probe(latent, float(bias), float(weight))
    return {number: probe for number, (_, probe) in sorted(best.items())}


def _candidates(blocks: Blocks, labels: Labels) -> dict[int, list[int]]:
    """Classes that a latent may be the best of, by latent."""
    positives = labels.positives
    n_classes = labels.n_classes
    gains = np.full((2, n_classes, CANDIDATES), -np.inf)
    names = np.full((2, n_classes, CANDIDATES), -1)
    for latents, codes in blocks():
        entries = Entries.of(codes, latents, labels.pictures)
        found = labels.of(entries)
        entries, found = entries[found >= 0], found[found >= 0]
        step = max(1, _CHUNK // n_classes)
        for first in range(0, len(latents), step):
            part = latents[first : first + step]
            own = slice(entries.starts[first], entries.starts[first + len(part)])
            looks = _first_looks(entries[own], found[own], first, len(part), positives)
            for number, look in enumerate(looks):
                every = np.concatenate([gains[number], look.T], axis=1)
                named = np.concatenate([names[number], np.broadcast_to(np.array(part), look.T.shape)], axis=1)
                kept = np.argsort(-every, axis=1, kind="stable")[:, :CANDIDATES]
                gains[number], names[number] = np.take_along_axis(every, kept, 1), np.take_along_axis(named, kept, 1)
    wanted: dict[int, list[int]] = {}
    for number in np.flatnonzero((positives > 0) & (positives < positives.sum())).tolist():
        for latent in np.unique(names[:, number][names[:, number] >= 0]).tolist():
            wanted.setdefault(latent, []).append(number)
    return wanted


def _first_looks(
    entries: Entries, classes: NDArray[np.integer], first: int, n_latents: int, positives: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`first_gains` of latents from number `first` of the entries on, each (n_latents, n_classes)."""
    n_classes = len(positives)
    latent = entries.latent.astype(np.int64) - first
    key, value, size = latent * n_classes + classes, entries.value.astype(np.float64), n_latents * n_classes
    sums = np.bincount(key, value, size).reshape(n_latents, n_classes)
    hits = np.bincount(key, minlength=size).reshape(n_latents, n_classes)
    squares = np.bincount(latent, value**2, n_latents)
    return first_gains(sums, hits, sums.sum(axis=1), squares, hits.sum(axis=1), positives)


@dataclass(frozen=True)
class _Codes:
    """Codes of one latent on units with a class, in the order of a probe's scores, the highest first.

    Attributes
    ----------
    value, picture, is_hit
        (n,) of each code: value, picture, whether its unit is of the class.
    last
        (n,) last position of the run of equal values that it is in.
    silent_first
        Whether silent units come before all codes: they do where the probe's weight is negative.
    """

    value: NDArray[np.float64]
    picture: NDArray[np.integer]
    is_hit: NDArray[np.bool_]
    last: NDArray[np.int64]
    silent_first: bool

    @classmethod
    def of(cls, entries: Entries, is_hit: NDArray[np.bool_], silent_first: bool) -> _Codes:
        """Sort codes; of equal ones the first picture and patch comes first."""
        value = entries.value.astype(np.float64)
        order = np.lexsort((entries.token, entries.picture, value if silent_first else -value))
        value = value[order]
        ends = np.flatnonzero(np.append(value[1:] != value[:-1], True)[: len(value)])
        last = np.repeat(ends, np.diff(ends, prepend=-1))
        return cls(value, entries.picture[order], is_hit[order], last, silent_first)


def average_precisions(
    codes: _Codes, positives: NDArray[np.integer], units: NDArray[np.integer], weights: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Average precision of a probe's scores by weights (r, n_pictures) of pictures, (r,); equal scores are one step.

    `positives` and `units` are (n_pictures,): units of the class, and of any.
    """
    found = np.empty(len(weights))
    step = max(1, _CHUNK // max(1, len(codes.value)))
    for start in range(0, len(weights), step):
        part = weights[start : start + step].astype(np.float64)
        total, n_units = part @ positives, part @ units
        drawn = part[:, codes.picture]
        drawn_hits = drawn * codes.is_hit
        hits, ranks = drawn_hits.cumsum(axis=1), drawn.cumsum(axis=1)
        silent_hits, silent = total - drawn_hits.sum(axis=1), n_units - drawn.sum(axis=1)
        before_hits, before = (silent_hits, silent) if codes.silent_first else (np.zeros(len(part)),) * 2
        down_to = ranks[:, codes.last] + before[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(down_to > 0, (hits[:, codes.last] + before_hits[:, None]) / down_to, 0)
            # Silent units are one step: the first, or the one that ends at recall 1.
            of_silent = np.where(silent > 0, silent_hits / silent, 0) if codes.silent_first else total / n_units
            found[start : start + step] = ((drawn_hits * precision).sum(axis=1) + silent_hits * of_silent) / total
    return found


def _relative_loss(
    codes: _Codes,
    probe: Probe,
    share: float,
    positives: NDArray[np.integer],
    units: NDArray[np.integer],
    weights: NDArray[np.floating],
) -> NDArray[np.float64]:
    """1 - loss / loss of the bias alone, both fitted elsewhere, by weights of pictures, (r,)."""
    n = len(units)
    logit = probe.bias + probe.weight * codes.value
    loss = np.bincount(codes.picture, np.logaddexp(0, logit) - logit * codes.is_hit, n)
    silent = units - np.bincount(codes.picture, minlength=n)
    silent_hits = positives - np.bincount(codes.picture, codes.is_hit, n)
    loss = loss + silent * np.logaddexp(0, probe.bias) - silent_hits * probe.bias
    alone = -(positives * np.log(share) + (units - positives) * np.log1p(-share))

    def relative(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(drawn @ positives > 0, 1 - (drawn @ loss) / (drawn @ alone), np.nan)

    return by_rows(relative, weights)


def _purities(codes: _Codes, weights: NDArray[np.floating], reverse: bool) -> NDArray[np.float64]:
    """Share of the class among the 16 units in which the latent is strongest, by weights of pictures, (r,)."""
    order = slice(None, None, -1) if reverse else slice(None)
    picture, is_hit = codes.picture[order], codes.is_hit[order]
    found = np.empty(len(weights))
    # So many of the strongest that 16 are drawn of them nearly always; else all that were drawn count.
    picture, is_hit = picture[: 64 * PURITY_AT], is_hit[: 64 * PURITY_AT]
    for number, row in enumerate(weights):
        until = np.minimum(row[picture].cumsum(), PURITY_AT)
        counted = np.diff(until, prepend=0)
        found[number] = counted @ is_hit / until[-1] if len(until) and until[-1] > 0 else np.nan
    return found


def _mean(scores: NDArray[np.float64]) -> Estimate:
    """Mean over classes (n_classes, 1 + resamples) that have a score, with its interval over the resamples."""
    defined = ~np.isnan(scores)
    if not defined[:, 0].any():
        return UNDEFINED
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(defined, scores, 0).sum(axis=0) / defined.sum(axis=0)
    return Estimate(float(means[0]), *interval(means[1:]))
