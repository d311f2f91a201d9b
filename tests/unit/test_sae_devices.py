"""Training in bfloat16 and on a GPU against float32 on the CPU."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from sae_variants import CASES, planted
from torch.nn.functional import normalize

from visae.device import in_bfloat16
from visae.sae.checkpoints import Checkpoints
from visae.sae.initial import initial_sae
from visae.sae.metrics import quality
from visae.sae.run import TrainingRun
from visae.sae.variants.selection import blocks
from visae.sae.variants.sparse import SparseCodes, gathered_products, value_gradients

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def run_of(settings, device="cpu", steps=40, precision="float32"):
    data = planted(4000, seed=1)
    settings = replace(settings, precision=precision)
    run = TrainingRun(settings, initial_sae(settings, data, seed=0).to(device))
    size = settings.batch_size
    for number in range(steps):
        run.advance(data[number * size % (len(data) - size) :][:size])
    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bfloat16_products_reconstruct_as_well_and_leave_the_weights_float32(case):
    held_out = planted(500, seed=2)
    full, narrow = (run_of(case.settings, precision=precision) for precision in ("float32", "bfloat16"))
    assert all(parameter.dtype == torch.float32 for parameter in narrow.sae.parameters())
    assert not torch.equal(full.sae.encoder_weight, narrow.sae.encoder_weight)
    errors = [quality(run.sae, held_out).normalized_mse for run in (full, narrow)]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)


def test_bfloat16_pre_activations_are_those_of_rounded_factors():
    generator = torch.Generator().manual_seed(0)
    inputs, encoder = torch.randn(3000, 16, generator=generator), torch.randn(40, 16, generator=generator)
    bias = torch.randn(40, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.cat([block.clone() for _, block in blocks(inputs, encoder, bias)])
    expected = inputs.bfloat16().float() @ encoder.bfloat16().float().T + bias
    assert found.dtype == torch.float32
    # The product itself is rounded to eight bits.
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=2**-8 * float((expected - bias).abs().max()))


def test_auto_is_float32_on_a_cpu():
    assert not in_bfloat16("auto", torch.device("cpu"))
    assert in_bfloat16("bfloat16", torch.device("cpu"))


@pytest.mark.slow
def test_compiled_inner_products_of_rows_are_those_of_eager_torch():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(50, 24, generator=generator), torch.randn(30, 24, generator=generator)
    compiled = torch.compile(gathered_products, dynamic=True)
    for entries in (7, 400):
        rows = torch.randint(50, (entries,), generator=generator), torch.randint(30, (entries,), generator=generator)
        expected = torch.stack([left[i] @ right[j] for i, j in zip(*rows, strict=True)])
        torch.testing.assert_close(compiled(left, rows[0], right, rows[1]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
def test_gradients_of_codes_on_a_gpu_are_the_dense_ones():
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(300, 900, generator=generator) * (torch.rand(300, 900, generator=generator) > 0.95)
    tokens, latents = dense.nonzero(as_tuple=True)
    offsets = torch.searchsorted(tokens, torch.arange(301))
    codes = SparseCodes(latents.cuda(), dense[tokens, latents].cuda(), offsets.cuda(), 900)
    rows = normalize(torch.randn(900, 48, generator=generator)).cuda()
    gradient = torch.randn(300, 48, generator=generator).cuda()
    expected = (gradient @ rows.T)[codes.tokens, codes.latents]
    torch.testing.assert_close(value_gradients(codes, gradient, rows), expected, rtol=1e-4, atol=1e-4)


def step_on(run, device, activations):
    """One step's codes, losses and gradients, computed on a device and brought back; the run stays as it is."""
    sae = deepcopy(run.sae).to(device)
    inputs = sae.normalized(activations.to(device))
    dead = torch.zeros(sae.width, dtype=torch.bool, device=device)
    dead[::7] = True
    with torch.no_grad():
        done = sae.variant.step(sae.weights, inputs, run.step, dead, inputs)
    return done.codes.dense().cpu(), {name: float(loss) for name, loss in done.losses.items()}, done.all_gradients


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_steps_gradients_on_a_gpu_are_those_on_the_cpu(case):
    run, batch = run_of(case.settings, steps=20), planted(256, seed=3)
    # A token whose codes differ by an entry that is at the edge of being kept says nothing of gradients.
    same = [(step_on(run, device, batch)[0] > 0) for device in ("cpu", "cuda")]
    agreed = (same[0] == same[1]).all(1)
    assert float(agreed.double().mean()) > 0.98
    (codes, losses, gradients), (codes_there, losses_there, gradients_there) = (
        step_on(run, device, batch[agreed]) for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(codes_there, codes, rtol=1e-4, atol=1e-4)
    assert losses_there == pytest.approx(losses, rel=1e-4)
    for there, here in zip(gradients_there, gradients, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4 * float(here.abs().max()))


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_training_on_a_gpu_is_training_on_the_cpu(case):
    start, here, there = (
        run_of(case.settings, device, steps) for device, steps in (("cpu", 0), ("cpu", 3), ("cuda", 3))
    )
    for name, tensor in here.sae.state_dict().items():
        found = there.sae.state_dict()[name].cpu()
        # Where a latent is active by rounding alone on one device, Adam makes a step of usual length of a gradient
        # that is next to nothing. So a few elements may be elsewhere, but neither many nor far.
        close = torch.isclose(found, tensor, rtol=1e-3, atol=1e-4)
        assert float(close.double().mean()) > 0.97, name
        moved = (tensor - start.sae.state_dict()[name]).double().norm()
        assert float((found - tensor).double().norm()) <= 0.1 * float(moved) + 1e-6, name
    assert float((there.silent.cpu() == here.silent).double().mean()) > 0.97


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_restored_on_its_device_goes_on_as_it_would_have(device, tmp_path):
    settings = replace(CASES[0].settings, precision="float32")
    data, size = planted(4000, seed=1), settings.batch_size
    whole = run_of(settings, device, steps=3)
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.take_over()
    checkpoints.save(whole.checkpoint())
    again = TrainingRun(settings, initial_sae(settings, data, seed=0).to(device))
    again.restore(checkpoints.newest())
    for run in (whole, again):
        for number in range(3, 6):
            run.advance(data[number * size :][:size])
    assert again.step == whole.step == 6
    for name, tensor in whole.sae.state_dict().items():
        torch.testing.assert_close(again.sae.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
