"""Hand-written gradients against autograd's on plain dense references."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from visae.sae.variants.relu import Relu
from visae.sae.variants.sparse import SparseCodes, by_latent, offsets_of, sorted_groups, sums_by_group, value_gradients
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Weights, row_gradients, without_parallel

D_MODEL, WIDTH, N_TOKENS = 16, 96, 700


def made(seed, bias=0.0):
    generator = torch.Generator().manual_seed(seed)
    decoder = normalize(torch.randn(WIDTH, D_MODEL, generator=generator))
    encoder = decoder + 0.1 * torch.randn(WIDTH, D_MODEL, generator=generator)
    encoder_bias = 0.1 * torch.randn(WIDTH, generator=generator) + bias
    weights = Weights(encoder, encoder_bias, decoder, torch.randn(D_MODEL, generator=generator))
    return weights, torch.randn(N_TOKENS, D_MODEL, generator=generator)


def autograd_of(loss_of, weights):
    leaves = Weights(*(weight.clone().requires_grad_() for weight in weights))
    loss = loss_of(leaves)
    loss.backward()
    return loss.detach(), Weights(*(leaf.grad for leaf in leaves))


def topk_codes(inputs, encoder, bias, k):
    pre = inputs @ encoder.T + bias
    values, latents = pre.topk(k)
    return torch.zeros_like(pre).scatter(1, latents, values.relu())


def assert_same(found, expected):
    for name, one, other in zip(Weights._fields, found, expected, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-5, name


def test_topk():
    weights, inputs = made(0)
    step = TopK(5).step(weights, inputs, 0, torch.zeros(WIDTH, dtype=torch.bool))

    def loss_of(w):
        codes = topk_codes(inputs, w.encoder, w.encoder_bias, 5)
        return (codes @ w.decoder + w.decoder_bias - inputs).square().mean()

    loss, gradients = autograd_of(loss_of, weights)
    assert float(step.losses["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(step.losses["auxk"]) == 0
    assert_same(step.gradients, gradients)


@pytest.mark.parametrize("n_dead", [3, 40])
def test_topk_with_dead_latents(n_dead):
    weights, inputs = made(1)
    dead = torch.zeros(WIDTH, dtype=torch.bool)
    dead[torch.randperm(WIDTH, generator=torch.Generator().manual_seed(2))[:n_dead]] = True
    step = TopK(5, auxk=8, auxk_weight=0.5).step(weights, inputs, 0, dead)

    def loss_of(w):
        codes = topk_codes(inputs, w.encoder, w.encoder_bias, 5)
        error = codes @ w.decoder + w.decoder_bias - inputs
        residual = -error.detach()
        spare = topk_codes(inputs, w.encoder[dead], w.encoder_bias[dead], min(8, n_dead)) @ w.decoder[dead]
        return error.square().mean() + 0.5 * (spare - residual).square().mean() / residual.square().mean()

    loss, gradients = autograd_of(loss_of, weights)
    assert float(step.losses["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(step.losses["auxk"]) > 0
    assert_same(step.gradients, gradients)


@pytest.mark.parametrize(("bias", "share"), [(0.0, (0.3, 0.7)), (-2.0, (0.001, 0.08))], ids=["dense", "sparse"])
def test_relu(bias, share):
    weights, inputs = made(3, bias)
    step = Relu(l1=0.02, l1_warmup_steps=4).step(weights, inputs, 1, torch.zeros(WIDTH, dtype=torch.bool))
    assert share[0] < len(step.codes.values) / (N_TOKENS * WIDTH) < share[1]

    def loss_of(w):
        codes = (inputs @ w.encoder.T + w.encoder_bias).relu()
        return (codes @ w.decoder + w.decoder_bias - inputs).square().mean() + 0.01 * codes.sum(1).mean()

    loss, gradients = autograd_of(loss_of, weights)
    assert float(step.losses["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert_same(step.gradients, gradients)


def test_a_second_step_reuses_buffers_without_harm():
    weights, inputs = made(4)
    nothing_dead = torch.zeros(WIDTH, dtype=torch.bool)
    for variant in (TopK(5), Relu(l1=0.01)):
        first = variant.step(weights, inputs, 0, nothing_dead)
        variant.step(weights, -inputs[:100], 1, nothing_dead)
        again = variant.step(weights, inputs, 0, nothing_dead)
        for one, other in zip(first.gradients, again.gradients, strict=True):
            assert torch.equal(one, other)


def test_ragged_codes_with_empty_tokens_and_latents():
    dense = torch.zeros(5, 7)
    dense[0, [1, 6]] = torch.tensor([0.5, 2.0])
    dense[3, 1] = 3.0
    codes = SparseCodes(torch.tensor([1, 6, 1]), torch.tensor([0.5, 2.0, 3.0]), torch.tensor([0, 2, 2, 2, 3, 3]), 7)
    assert torch.equal(codes.dense(), dense)
    rows, output_gradient = torch.randn(7, 4), torch.randn(5, 4)
    expected = (output_gradient @ rows.T)[codes.tokens, codes.latents]
    assert torch.allclose(value_gradients(codes, output_gradient, rows), expected, atol=1e-6)
    ordered = by_latent(codes)
    assert torch.allclose(ordered.row_gradients(codes.values, output_gradient), dense.T @ output_gradient, atol=1e-6)
    assert torch.allclose(ordered.sums(codes.values), dense.sum(0))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_entries_are_grouped_on_each_device_as_numpy_groups_them(device):
    generator = torch.Generator().manual_seed(8)
    groups = torch.randint(3, 900, (5000,), generator=generator)
    groups[groups == 500] = 501  # groups without entries: this one, and those at both ends
    active = (torch.rand(5000, generator=generator) > 0.3).double()
    order, offsets = sorted_groups(groups.to(device), 1000)
    assert np.array_equal(order.cpu(), np.argsort(groups.numpy(), kind="stable"))
    assert torch.equal(offsets.cpu(), offsets_of(groups, 1000))
    sums = sums_by_group(groups.to(device), active.to(device), 1000)
    assert np.array_equal(sums.cpu(), np.bincount(groups, active, 1000))


@pytest.mark.parametrize("at_once", [1, 10, 60, 1000])
def test_gradients_of_many_codes_are_summed_part_by_part(at_once, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    inputs, wanted, decoder = (torch.randn(rows, 6, generator=generator) for rows in (20, 20, 9))
    dense = (torch.rand(20, 9, generator=generator) * (torch.rand(20, 9, generator=generator) < 0.4)).float()
    dense[7:12] = 0
    places = dense.nonzero()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (dense > 0).sum(1).cumsum(0)])
    codes = SparseCodes(places[:, 1], dense[dense > 0], offsets, 9)
    joined = torch.cat([part.dense() for _, part in codes.parts(at_once)])
    assert torch.equal(joined, dense)
    monkeypatch.setattr("visae.sae.variants.variant._CODES_AT_ONCE", at_once)
    encoder, bias, rows = row_gradients(decoder, inputs, codes, wanted, penalty=0.5)
    by_code = (wanted @ decoder.T + 0.5 / 20) * (dense > 0)
    assert torch.allclose(encoder, by_code.T @ inputs, atol=1e-5)
    assert torch.allclose(bias, by_code.sum(0), atol=1e-5)
    assert torch.allclose(rows, dense.T @ wanted, atol=1e-5)


def test_widths_beyond_sixteen_bits_sort_the_same():
    latents = torch.tensor([70_000, 3, 65_539, 3])
    codes = SparseCodes(latents, torch.ones(4), torch.tensor([0, 2, 4]), 80_000)
    ordered = by_latent(codes)
    assert latents[ordered.order].tolist() == [3, 3, 65_539, 70_000]
    assert ordered.tokens.tolist() == [0, 1, 1, 0]


def test_parallel_part_of_a_gradient_is_removed():
    rows = normalize(torch.randn(10, 6))
    gradient = torch.randn(10, 6)
    kept = without_parallel(gradient.clone(), rows)
    assert float((kept * rows).sum(1).abs().max()) < 1e-6
    along = (gradient - kept) - ((gradient * rows).sum(1, keepdim=True) * rows)
    assert float(along.abs().max()) < 1e-6
