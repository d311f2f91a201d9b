"""What every variant of SAE must do."""

import dataclasses

import polars as pl
import pytest
import torch
from sae_variants import CASES, D_MODEL, WIDTH, Batch, advance, planted, trained
from torch.nn.functional import normalize

from visae.activations.given import write_store
from visae.sae import load_sae, save_sae
from visae.sae.checkpoints import Checkpoints
from visae.sae.initial import empty_sae, initial_sae
from visae.sae.metrics import quality
from visae.sae.run import TrainingRun
from visae.sae.trainer import train
from visae.sae.variants.variant import Weights

every_variant = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return planted(4000, seed=1, scale=3.0, shift=5.0)


@pytest.fixture(scope="module")
def after_steps(data):
    """Each variant after 12 steps, so that thresholds, gates and mixtures are no longer where they start."""
    return {case.name: trained(case.settings, 12, data).sae for case in CASES}


@every_variant
@pytest.mark.parametrize("n_dead", [0, 20])
@pytest.mark.parametrize("d_target", [None, 10])
def test_gradients_equal_autograds_on_the_papers_formula(case, n_dead, d_target, data):
    generator = torch.Generator().manual_seed(4)
    # More tokens than a block has.
    target = None if d_target is None else torch.randn(len(data), d_target, generator=generator)
    sae = initial_sae(case.settings, data, seed=2, target=target)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        sae.variant.project(sae.weights)
    inputs = sae.normalized(data[:700])
    wanted = inputs if target is None else target[:700]
    dead = torch.zeros(WIDTH, dtype=torch.bool)
    dead[torch.randperm(WIDTH, generator=generator)[:n_dead]] = True
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    with torch.no_grad():
        step = sae.variant.step(sae.weights, inputs, 3, dead, wanted)

    # In double precision, so that what is compared with has no rounding of its own.
    def leaf(tensor):
        return tensor.detach().double().requires_grad_()

    weights = dict(zip(Weights._fields, map(leaf, sae.weights), strict=True))
    own = {name: leaf(parameter) for name, parameter in sae.variant.named_parameters()}
    reference = empty_sae(case.settings, D_MODEL, d_target).variant.double()
    reference.load_state_dict(sae.variant.state_dict())
    loss = case.loss(Batch(weights, own, inputs.double(), wanted.double(), dead, reference, 3))
    loss.backward()
    assert float(step.losses["loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    parts = sum(float(value) for name, value in step.losses.items() if name != "loss")
    assert parts == pytest.approx(float(loss.detach()), rel=1e-5)
    expected = {**weights, **own}
    assert len(step.all_gradients) == len(expected)
    for (name, tensor), found in zip(expected.items(), step.all_gradients, strict=True):
        if tensor.grad is None:  # a decoder that is made of own parameters
            assert not found.any(), name
        else:
            # float32 sums over 700 tokens.
            assert float((found - tensor.grad).norm() / tensor.grad.norm()) < 2e-5, name
    for name, tensor in sae.state_dict().items():
        assert torch.equal(tensor, before[name]), f"the step changed {name}"


@every_variant
@pytest.mark.parametrize("n_tokens", [0, 1, 700])
def test_sparse_codes_equal_dense_ones(case, n_tokens, after_steps, data):
    sae = after_steps[case.name]
    codes, dense = sae.sparse_codes(data[:n_tokens]), sae.encode(data[:n_tokens]).detach()
    # Entries on the very threshold may fall either way; in this data there are none within rounding.
    torch.testing.assert_close(codes.dense(), dense, atol=1e-5, rtol=1e-5)
    assert bool((codes.values > 0).all())
    assert bool(((codes.tokens * sae.width + codes.latents).diff() > 0).all())
    torch.testing.assert_close(sae.decode(codes), sae.decode(dense).detach(), atol=1e-4, rtol=1e-5)
    chosen = [7, 0, WIDTH - 1, 7]
    torch.testing.assert_close(sae.latent_values(data[:n_tokens], chosen), dense[:, chosen], atol=1e-5, rtol=1e-5)
    assert n_tokens < 2 or len(codes.values) > n_tokens


@every_variant
def test_a_saved_sae_loads_bit_equal(case, after_steps, data, tmp_path):
    sae = after_steps[case.name]
    loaded = load_sae(save_sae(sae, tmp_path))
    assert loaded.state_dict().keys() == sae.state_dict().keys()
    for name, tensor in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded.sparse_codes(data).values, sae.sparse_codes(data).values)
    assert torch.equal(loaded(data), sae(data))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@every_variant
def test_a_run_that_goes_on_from_a_checkpoint_ends_bit_equal(case, data, tmp_path):
    settings = dataclasses.replace(case.settings, steps=20, dead_after_tokens=512)
    whole = trained(settings, 20, data)
    interrupted = trained(settings, 9, data)
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(interrupted.checkpoint())
    resumed = TrainingRun(settings, empty_sae(settings, D_MODEL))
    resumed.restore(checkpoints.newest())
    advance(resumed, 11, data)
    found, expected = resumed.checkpoint().tensors, whole.checkpoint().tensors
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    # Whatever is trained or counted is no longer where it was.
    start = initial_sae(settings, data, seed=0).state_dict()
    unmoved = {name for name, tensor in start.items() if torch.equal(expected[f"sae.{name}"], tensor)}
    kept = {"archetypal": {"variant.points"}, "frozen_decoder": {"decoder_weight"}}
    assert unmoved == {"mean", "scale"} | kept.get(settings.variant, set())


@every_variant
def test_the_trainer_writes_what_the_step_found(case, data, tmp_path):
    manifest = write_store(
        tmp_path / "store", data.view(250, 16, D_MODEL).numpy(), list(range(16)), {"train": 200, "val": 50}
    )
    settings = dataclasses.replace(case.settings, steps=6, log_every=2, checkpoint_every=3)
    summary = train(settings, [manifest], tmp_path / "out", tmp_path / "work", device="cpu")
    sae = load_sae(tmp_path / "out/config.json")
    assert summary["variant"] == sae.variant.name == settings.variant
    assert summary["normalized_mse"] == pytest.approx(quality(sae, data[3200:]).normalized_mse, rel=1e-4)
    rows = pl.read_parquet(tmp_path / "out/metrics.parquet").filter(split="train")
    parts = rows.select("reconstruction", "auxk", "sparsity", "gate_reconstruction").fill_null(0).sum_horizontal()
    assert rows["step"].to_list() == [2, 4, 6]
    assert (parts - rows["loss"]).abs().max() < 1e-5


@every_variant
def test_decoder_rows_have_unit_norm_after_training(case, after_steps):
    norms = torch.linalg.vector_norm(after_steps[case.name].weights.decoder, dim=1)
    # float32 rounding of 16 squares.
    assert float((norms - 1).abs().max()) < 1e-6


@every_variant
def test_training_learns_planted_data(case, data):
    held_out = planted(2000, seed=2, scale=3.0, shift=5.0)
    run = trained(case.settings, 2, data)
    before = quality(run.sae, held_out)
    advance(run, 198, data)
    after = quality(run.sae, held_out)
    # The mean alone would have 1; 3 of 24 directions are active, and no variant is near all its latents.
    assert after.normalized_mse < min(0.35, 0.8 * before.normalized_mse)
    assert 1 < after.l0 < 15


@every_variant
def test_shifted_and_scaled_data_give_shifted_and_scaled_reconstructions(case, data):
    shift = torch.linspace(-20, 30, D_MODEL)
    sae, other = trained(case.settings, 4, data).sae, trained(case.settings, 4, 8 * data + shift).sae
    codes, others = sae.encode(data), other.encode(8 * data + shift)
    # A code that lies within rounding of a threshold may be there in one and not in the other.
    same = ((codes > 0) == (others > 0)).all(1)
    assert int((~same).sum()) <= 2
    # The shift costs digits of float32: 1e-6 of 50, carried through four steps.
    torch.testing.assert_close(other(8 * data + shift)[same], (8 * sae(data) + shift)[same], atol=0.02, rtol=0)
    torch.testing.assert_close(others[same], codes[same], atol=0.002, rtol=0)


@every_variant
def test_a_transcoder_learns_another_layer_in_its_own_units(case, data, tmp_path):
    matrix = torch.randn(D_MODEL, 10, generator=torch.Generator().manual_seed(7))
    held_out = planted(1000, seed=3, scale=3.0, shift=5.0)
    target, wanted = (40 * torch.tanh(part @ matrix / 20) - 7 for part in (data, held_out))
    run = trained(case.settings, 1, data, target)
    before = quality(run.sae, held_out, wanted).normalized_mse
    advance(run, 199, data, target)
    after = quality(run.sae, held_out, wanted).normalized_mse
    assert after < min(0.5, 0.9 * before)
    loaded = load_sae(save_sae(run.sae, tmp_path))
    assert (loaded.d_model, loaded.d_target, loaded.is_transcoder) == (D_MODEL, 10, True)
    assert torch.equal(loaded(held_out), run.sae(held_out))
    torch.testing.assert_close(loaded.decode(loaded.sparse_codes(held_out)), loaded(held_out), atol=1e-3, rtol=1e-4)
    norms = torch.linalg.vector_norm(loaded.decoder_weight, dim=1)
    assert float((norms - 1).abs().max()) < 1e-6
    more = torch.zeros(1, WIDTH)
    more[0, 5] = 2
    change = loaded.decode(more) - loaded.decode(torch.zeros(1, WIDTH))
    torch.testing.assert_close(change[0], 2 * loaded.directions()[5], atol=1e-4, rtol=1e-5)


@every_variant
def test_a_clamp_holds_outliers_and_nothing_else(case, data, tmp_path):
    settings = dataclasses.replace(case.settings, clamp=4.0)
    sae = trained(settings, 6, data).sae
    mean, deviation = data.double().mean(0).float(), data.double().std(0, correction=0).float()
    outliers = data.clone()
    outliers[:, 2] = 1e4
    outliers[:, 3] = -1e4
    limit = data.clone()
    limit[:, 2], limit[:, 3] = (mean + 4 * deviation)[2], (mean - 4 * deviation)[3]
    torch.testing.assert_close(sae.encode(outliers), sae.encode(limit), atol=1e-4, rtol=1e-4)
    loaded = load_sae(save_sae(sae, tmp_path))
    assert loaded.clamp == 4
    assert torch.equal(loaded(outliers), sae(outliers))
    plain = trained(case.settings, 6, data).sae
    assert plain.clamp is None
    assert "limit" not in plain.state_dict()
    inside = ((data - mean).abs() < 3.99 * deviation).all(1)
    assert int(inside.sum()) > 1000
    assert torch.equal(sae.normalized(data[inside]), (data[inside] - sae.mean) / sae.scale)


@every_variant
def test_a_second_step_reuses_buffers_without_harm(case, data):
    sae = initial_sae(case.settings, data, seed=0)
    inputs, nothing_dead = sae.normalized(data), torch.zeros(WIDTH, dtype=torch.bool)
    with torch.no_grad():
        first = sae.variant.step(sae.weights, inputs[:700], 0, nothing_dead)
        sae.variant.step(sae.weights, -inputs[:100], 1, nothing_dead)
        again = sae.variant.step(sae.weights, inputs[:700], 0, nothing_dead)
    for one, other in zip(first.all_gradients, again.all_gradients, strict=True):
        assert torch.equal(one, other)


@every_variant
def test_initial_weights_depend_on_the_seed(case, data):
    first, same, other = (initial_sae(case.settings, data, seed) for seed in (1, 1, 2))
    assert torch.equal(first.decoder_weight, same.decoder_weight)
    assert not torch.equal(first.decoder_weight, other.decoder_weight)
    torch.testing.assert_close(normalize(first.decoder_weight), first.decoder_weight)


@every_variant
def test_a_fitted_start_reconstructs_better_and_changes_no_decoder(case, data):
    starts = [dataclasses.replace(case.settings, encoder_start=start) for start in ("fitted", "unit")]
    fitted, unit = (initial_sae(settings, data, seed=0) for settings in starts)
    no_dead = torch.zeros(WIDTH, dtype=torch.bool)
    error, before = (
        float(sae.variant.step(sae.weights, sae.normalized(data), 0, no_dead).error.square().mean())
        for sae in (fitted, unit)
    )
    assert error < min(1.0, before)  # 1 is what nothing at all reconstructs
    assert torch.equal(fitted.decoder_weight, unit.decoder_weight)
    # Powers of two, one for the centroids and one for the other latents.
    octaves = (fitted.weights.encoder / unit.weights.encoder).log2()
    assert torch.equal(octaves, octaves.round())
    assert torch.equal(octaves, octaves[:, :1].expand_as(octaves))
    assert len(octaves.unique()) <= 2
