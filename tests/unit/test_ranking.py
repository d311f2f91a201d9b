"""Scores of sparse codes are those that scikit-learn finds in the dense values, ties and silence included."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from visae.features.concepts import Labels, measure
from visae.features.concepts import choose as choose_latents
from visae.features.ranking import Entries, concept_scores
from visae.features.resampling import resampled_scores

N_PICTURES, N_TOKENS, WIDTH, N_CLASSES = 12, 9, 7, 3


def sparse(dense: np.ndarray) -> pl.LazyFrame:
    picture, token, latent = np.nonzero(dense)
    columns = {"image_id": picture, "token": token, "latent": latent, "value": dense[picture, token, latent]}
    kinds = {"image_id": pl.Int32, "token": pl.Int16, "latent": pl.Int32, "value": pl.Float32}
    shuffled = np.random.default_rng(3).permutation(len(picture))
    return pl.DataFrame(columns).cast(kinds)[shuffled].lazy()


def made(seed: int, distinct: int) -> tuple[np.ndarray, np.ndarray]:
    """Dense codes of few distinct values, so that most are tied, and labels with gaps."""
    random = np.random.default_rng(seed)
    dense = random.integers(0, distinct, (N_PICTURES, N_TOKENS, WIDTH)).astype(np.float32) / 4
    dense *= random.random(dense.shape) < 0.5
    dense[..., 2] = 0  # a dead latent
    dense[..., 3] += 1  # one that is always on
    labels = random.integers(-1, N_CLASSES, (N_PICTURES, N_TOKENS))
    return dense, labels


@pytest.mark.parametrize("distinct", [2, 4, 1000])
def test_scores_are_those_of_scikit_learn(distinct: int) -> None:
    dense, classes = made(distinct, distinct)
    labels = Labels(range(N_PICTURES), classes, N_CLASSES)
    entries = Entries.of(sparse(dense), range(WIDTH), range(N_PICTURES))
    thresholds = entries.thresholds()
    scores = concept_scores(entries, labels.of(entries), labels.positives, entries.above(thresholds))
    known = classes >= 0
    for number in range(N_CLASSES):
        truth = classes[known] == number
        for latent in range(WIDTH):
            values = dense[known][:, latent]
            assert scores.average_precision[latent, number] == pytest.approx(average_precision_score(truth, values))
            assert scores.auc[latent, number] == pytest.approx(roc_auc_score(truth, values))
            for which, threshold in enumerate(thresholds[latent]):
                expected = f1_score(truth, values > threshold, zero_division=0)
                assert scores.f1[latent, number, which] == pytest.approx(expected)


def test_thresholds_are_quantiles_of_the_active_values() -> None:
    dense, _ = made(0, 1000)
    thresholds = Entries.of(sparse(dense), range(WIDTH), range(N_PICTURES)).thresholds()
    active = dense[..., 4][dense[..., 4] > 0]
    assert thresholds[4] == pytest.approx([0, *np.quantile(active, [0.25, 0.5, 0.75, 0.9])])
    assert np.isinf(thresholds[2]).all()


@pytest.mark.parametrize("distinct", [3, 1000])
def test_a_resample_scores_as_the_drawn_pictures_do(distinct: int) -> None:
    dense, classes = made(5, distinct)
    labels = Labels(range(N_PICTURES), classes, N_CLASSES)
    random = np.random.default_rng(0)
    drawn = random.integers(N_PICTURES, size=(4, N_PICTURES))
    weights = np.stack([np.bincount(pictures, minlength=N_PICTURES) for pictures in drawn]).astype(np.float32)
    for latent in (1, 2, 3):
        entries = Entries.of(sparse(dense), range(WIDTH), range(N_PICTURES)).of_latent(latent)
        found = labels.of(entries)
        entries, found = entries[found >= 0], found[found >= 0]
        above = entries.value > 0.3
        counts = labels.by_picture(1), labels.by_picture()
        resampled = resampled_scores(entries.picture, found == 1, above, entries.runs, *counts, weights)
        for column, pictures in enumerate(drawn):
            known = classes[pictures] >= 0
            truth, values = classes[pictures][known] == 1, dense[pictures][known][:, latent]
            assert resampled[0, column] == pytest.approx(f1_score(truth, values > 0.3, zero_division=0))
            assert resampled[1, column] == pytest.approx(average_precision_score(truth, values))
            assert resampled[2, column] == pytest.approx(roc_auc_score(truth, values))


def test_blocks_of_latents_change_nothing() -> None:
    random = np.random.default_rng(1)
    dense, classes = made(1, 1000)
    codes = sparse(dense)
    fit = Labels(range(6), classes[:6], N_CLASSES)
    measured = Labels(range(6, N_PICTURES), random.permutation(classes[6:]), N_CLASSES)

    def whole():
        yield range(WIDTH), codes

    def blocks():
        for latents in (range(0, 2), range(2, 3), range(3, WIDTH)):
            yield latents, codes.filter(pl.col("latent").is_between(latents.start, latents.stop, closed="left"))

    one, several = choose_latents(whole, fit, "f1"), choose_latents(blocks, fit, "f1")
    assert one.choices == several.choices
    assert len(one.choices) == N_CLASSES * 5
    for first, second in zip(
        vars(measure(whole, one, measured, 5, 0)).values(),
        vars(measure(blocks, several, measured, 5, 0)).values(),
        strict=True,
    ):
        np.testing.assert_allclose(first, second)
