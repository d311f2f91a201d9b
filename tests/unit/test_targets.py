"""Which latents stand for which class, and which are drawn to compare them with."""

import numpy as np
import polars as pl
import pytest
from planted_for_tests import N_FIT, WIDTH, make_planted
from sklearn.metrics import roc_auc_score

from visae.arms.targets import Activity, drawn_controls, image_aucs, latent_activity
from visae.errors import DataError
from visae.features.codes import scan_codes
from visae.tasks.counts import Target


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return make_planted(tmp_path_factory.mktemp("planted"))


def test_auc_is_scikit_learns(planted):
    labels = {i: int(planted.labels[i]) for i in range(N_FIT)}
    codes = pl.concat([pl.read_parquet(p) for p in sorted((planted.folder / "codes").glob("*.parquet"))])
    peaks = np.zeros((N_FIT, WIDTH))
    codes = codes.filter(pl.col("image_id") < N_FIT).select("image_id", "latent", "value")
    for image, latent, value in codes.iter_rows():
        peaks[image, latent] = max(peaks[image, latent], value)
    found = image_aucs(scan_codes(planted.folder / "codes/manifest.json"), labels)
    assert len(found) > 20
    for class_id, latent, auc in found.iter_rows():
        expected = roc_auc_score(planted.labels[:N_FIT] == class_id, peaks[:, latent])
        assert auc == pytest.approx(expected), (class_id, latent)
    activity = latent_activity(planted.folder / "codes/manifest.json", range(N_FIT))
    np.testing.assert_allclose([activity.largest.get(k, 0) for k in range(WIDTH)], peaks.max(axis=0), rtol=1e-6)
    assert sum(activity.count.values()) == len(codes)


def test_controls_are_no_classs_latents_and_do_not_depend_on_other_classes():
    counts = {k: 2**k for k in range(40)}
    activity = Activity(counts, {k: 1.0 + k for k in range(40)})
    targets = [Target(1, "a", (3, 30), 0.5), Target(2, "b", (4,), 0.5)]
    drawn = drawn_controls(targets, activity, draws=5, seed=0)
    for target in targets:
        controls = drawn[target.class_id]
        for draws in (controls.random, controls.frequency_matched):
            assert [len(latents) for latents in draws] == [len(target.latents)] * 5
            used = [latent for latents in draws for latent in latents]
            assert len(set(used)) == len(used)
            assert not {3, 4, 30} & set(used)
    # Frequencies are powers of two, so the nearest in log frequency are the neighbours in number.
    assert all(latents[0] < 13 and abs(latents[1] - 30) < 7 for latents in drawn[1].frequency_matched)
    alone = drawn_controls([targets[0], Target(9, "c", (4,), 0.5)], activity, draws=5, seed=0)
    assert alone[1] == drawn[1]
    with pytest.raises(DataError, match="random_draws"):
        drawn_controls(targets, Activity({3: 1, 4: 1, 5: 1, 30: 1}, {}), draws=2, seed=0)
