"""Where an SAE belongs: found again for SAEs trained at known places, whatever is claimed."""

from typing import get_args

import numpy as np
import pytest
import torch
from proof_for_tests import pictures, small_vit, tokens_of, trained

from visae.config.saes import Normalization, TokenKinds
from visae.config.settings import BatchTopKSettings, JumpReluSettings, ReluSettings, TopKSettings
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.initial import initial_sae
from visae.sae.metrics import quality
from visae.sae.place import Place
from visae.sae.proof.fits import fit
from visae.sae.proof.hypotheses import Hypothesis, Setup, moments_of, own_setup, placed
from visae.sae.proof.prove import prove
from visae.sae.proof.settings import ProofSettings
from visae.sae.proof.tokens import PointTokens
from visae.sae.proof.verdict import Resampled, error_of
from visae.sae.variants.topk import TopK
from visae.vision.model import HookPoint, VisionModel

pytestmark = pytest.mark.usefixtures("one_thread")

POINTS = [HookPoint(layer, hook) for layer in range(4) for hook in ("residual", "attention", "mlp", "norm")]
SHORT = {"expansion": 4, "steps": 200, "batch_size": 256}


@pytest.fixture(scope="module")
def model() -> VisionModel:
    return small_vit()


@pytest.fixture(scope="module")
def read(model: VisionModel, tmp_path_factory: pytest.TempPathFactory) -> dict[HookPoint, PointTokens]:
    folder = tmp_path_factory.mktemp("train")
    return tokens_of(model, POINTS, pictures(folder / "pictures", 600, 1), folder / "tokens")


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> ProofSettings:
    folder = tmp_path_factory.mktemp("pictures") / "pictures"
    pictures(folder, 100, 2)
    return ProofSettings(pictures=folder, workers=0)


def topk(**more: object) -> TopKSettings:
    return TopKSettings(variant="topk", k=6, **SHORT, **more)


def of_residual_2(read: dict[HookPoint, PointTokens], **more: object) -> SparseAutoencoder:
    settings = topk(**more)
    return trained(settings, read[HookPoint(2)], HookPoint(2), settings.tokens, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [16, 301])
def test_thirty_misplaced_saes_are_all_put_right(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    kinds, normalizations = get_args(TokenKinds), get_args(Normalization)
    told = 0
    for number in range(30):
        point, claimed = (POINTS[place] for place in generator.choice(len(POINTS), 2, replace=False))
        kind, claimed_kind = (kinds[generator.integers(len(kinds))] for _ in range(2))
        normalization = normalizations[generator.integers(len(normalizations))]
        more = {"normalization": normalization, "tokens": kind, **SHORT}
        settings = (
            TopKSettings(variant="topk", k=6, **more),
            BatchTopKSettings(variant="batchtopk", k=6, **more),
            ReluSettings(variant="relu", l1=0.01, **more),
            JumpReluSettings(variant="jumprelu", **more),
        )[number % 4]
        sae = trained(settings, read[point], point, kind, number)
        if normalization == "scale" and number % 2:  # as a file that has lost them
            sae.mean.zero_()
            sae.scale.fill_(1)
        claim = Place(layer=claimed.layer, hook=claimed.hook, tokens=claimed_kind)
        proof = prove(sae, model, claim, looked_at, seed=number)
        best = proof.verdict.best.hypothesis
        case = f"{number}: {settings.variant}, {point}, {kind}, {normalization}; claimed {claimed}; found {best}"
        assert (best.point, best.setup.normalization) == (point, normalization), case
        assert proof.verdict.word == "another", case
        assert kind in proof.verdict.kinds, case
        told += len(proof.verdict.kinds) == 1
    # The others are at attention, where class tokens of this network are like patches.
    assert told >= 20


@pytest.mark.parametrize("normalization", get_args(Normalization))
def test_a_right_claim_is_confirmed(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings, normalization: Normalization
) -> None:
    sae = of_residual_2(read, normalization=normalization)
    proof = prove(sae, model, sae.place, looked_at)
    assert (proof.verdict.word, proof.verdict.differs) == ("claimed", [])
    assert proof.fits[0].hypothesis == proof.claimed
    places = {each.hypothesis.setup for each in proof.fits}
    own = own_setup(sae, HookPoint(2))
    # Its neighbours are among what is ranked: blocks, hook points, normalizations; and all kinds of tokens.
    assert {own._replace(point=point) for point in (HookPoint(1), HookPoint(3), *POINTS[9:12])} <= places
    assert {place.normalization for place in places if place.point == HookPoint(2)} == set(get_args(Normalization))
    assert {each.hypothesis.tokens for each in proof.fits} == {"patches", "class", "all"}
    assert {each.hypothesis.setup.clamp for each in proof.fits} >= {None, 2.0, 3.0, 5.0}


def test_without_a_claim_the_place_is_found(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    sae = of_residual_2(read, tokens="class")
    proof = prove(sae, model, Place(), looked_at)
    best = proof.verdict.best.hypothesis
    assert (proof.verdict.word, best.point, best.tokens) == ("found", HookPoint(2), "class")


def test_an_sae_of_another_model_or_of_nothing_fits_nowhere(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    sae = of_residual_2(read)
    assert prove(sae, small_vit(seed=7), sae.place, looked_at).verdict.word == "none"
    dead = SparseAutoencoder(48, 96, TopK(4)).eval().requires_grad_(False)
    proof = prove(dead, model, Place(layer=2), looked_at)
    assert proof.verdict.word == "none"
    measured = [each for each in proof.fits if each.hypothesis.setup.statistics == "pictures"]
    # Its mean alone is what it gives: an error of 1, whatever the place and however large it is there.
    assert [error_of(each) for each in measured] == pytest.approx([1] * len(measured), rel=1e-4)
    assert all(each.silent == 96 for each in measured)


def test_a_clamp_that_hides_everything_is_found(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    sae = of_residual_2(read)
    narrow = SparseAutoencoder(48, sae.width, sae.variant, None, 1e-5)
    state = {**narrow.state_dict(), **sae.state_dict(), "limit": torch.full((48,), 1e-5)}
    narrow.load_state_dict(state)
    proof = prove(narrow.eval().requires_grad_(False), model, sae.place, looked_at)
    assert (proof.verdict.word, proof.verdict.differs) == ("another", ["clamp"])
    assert proof.verdict.best.hypothesis.setup == own_setup(sae, HookPoint(2))


def test_a_scale_that_a_file_has_lost_is_found(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    there = read[HookPoint(2)]
    length = float(np.sqrt((there.rows[:, 1:] ** 2).mean()))
    scaled = PointTokens(there.rows / length, 1, 1.0)
    sae = trained(topk(normalization="none"), scaled, HookPoint(2), "patches", 0)
    best = prove(sae, model, sae.place, looked_at).verdict.best.hypothesis
    assert (best.point, best.tokens, best.setup.statistics) == (HookPoint(2), "patches", "length")


def test_more_codes_are_no_better_place(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    settings = BatchTopKSettings(variant="batchtopk", k=6, **SHORT)
    sae = trained(settings, read[HookPoint(2)], HookPoint(2), "patches", 0)
    proof = prove(sae, model, sae.place, looked_at)
    assert proof.most_codes == 9
    assert all(error_of(each) >= each.normalized_mse for each in proof.fits)
    # Of places with more codes what is left after a cut; of others all.
    best = proof.verdict.best
    assert best.l0 == pytest.approx(6, rel=0.2)
    assert error_of(best) == pytest.approx(best.normalized_mse, rel=0.03)
    there = PointTokens(read[HookPoint(2)].rows[:50], 1, 1.0)
    mean = moments_of(there, "patches").mean
    free, cut = (fit(sae, best.hypothesis, there, mean, most) for most in (None, 2.0))
    assert (free.l0, free.normalized_mse) == (cut.l0, cut.normalized_mse)
    assert error_of(cut) > 1.2 * error_of(free)


@pytest.mark.parametrize("tokens", get_args(TokenKinds))
def test_errors_are_those_of_all_tokens_together(read: dict[HookPoint, PointTokens], tokens: TokenKinds) -> None:
    sae = of_residual_2(read)
    there = PointTokens(read[HookPoint(2)].rows[:40], 1, 1.0)
    moments = moments_of(there, tokens)
    found = fit(sae, Hypothesis(own_setup(sae, HookPoint(2)), tokens), there, moments.mean)
    chosen = {"patches": slice(1, None), "class": slice(0, 1), "all": slice(None)}[tokens]
    expected = quality(sae, torch.from_numpy(np.array(there.rows[:, chosen])).flatten(0, 1))
    assert found.normalized_mse == pytest.approx(expected.normalized_mse, rel=1e-5)
    assert found.l0 == pytest.approx(expected.l0)
    assert found.silent / found.width == pytest.approx(expected.silent_share)
    # A patch that stands for three counts three times.
    weighted = fit(sae, found.hypothesis, PointTokens(there.rows, 1, 3.0), moments.mean)
    assert weighted.tokens.tolist() == [{"patches": 48, "class": 1, "all": 49}[tokens]] * 40


@pytest.mark.parametrize("normalization", ["scale", "per_dimension"])
def test_statistics_of_the_pictures_are_those_that_training_takes(
    read: dict[HookPoint, PointTokens], normalization: Normalization
) -> None:
    there = read[HookPoint(1)]
    rows = torch.from_numpy(np.array(there.rows[:, 1:])).flatten(0, 1)
    wanted = initial_sae(topk(normalization=normalization, clamp=3.0), rows, 0)
    setup = Setup(HookPoint(1), normalization, "pictures", 3.0)
    made = placed(of_residual_2(read), Hypothesis(setup, "patches"), there, moments_of(there, "patches"))
    for name in ("mean", "scale", "limit"):
        torch.testing.assert_close(getattr(made, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)


def test_the_interval_of_a_dead_share_holds_what_more_pictures_give(read: dict[HookPoint, PointTokens]) -> None:
    # The share among so many pictures, over samples of that many: 95 % of the intervals hold it.
    sae, there = of_residual_2(read), read[HookPoint(2)]
    hypothesis = Hypothesis(own_setup(sae, HookPoint(2)), "class")
    mean = moments_of(there, "class").mean
    found = []
    for first in range(0, 600, 20):
        one = fit(sae, hypothesis, PointTokens(there.rows[first : first + 20], 1, 1.0), mean)
        found.append(Resampled(20, 0).dead_share(one))
    usual = np.mean([each.value for each in found])
    assert np.mean([each.low <= usual <= each.high for each in found]) > 0.85
