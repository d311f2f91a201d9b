"""Variants of SAE on numbers that can be worked out by hand, and what their settings refuse."""

import math

import numpy as np
import pytest
import torch
from sae_variants import CASES, D_MODEL, SHARED, WIDTH, planted, trained
from scipy.optimize import linprog

from visae.config.parse import parse_config
from visae.config.sections import parse_section
from visae.config.settings import AnySae, ArchetypalSettings, BatchTopKSettings, MatryoshkaSettings, TopKSettings
from visae.errors import ConfigError, TrainingError
from visae.sae import SparseAutoencoder, load_sae, save_sae
from visae.sae.clusters import cluster_means
from visae.sae.initial import empty_sae, initial_sae
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.selection import largest_of_batch, largest_of_rows
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Weights

ONE = Weights(torch.ones(1, 1), torch.zeros(1), torch.ones(1, 1), torch.zeros(1))
ALIVE = torch.zeros(1, dtype=torch.bool)


@pytest.mark.parametrize(("threshold", "expected"), [(1.0, 0.9 - 0.1), (0.7, 0.0)])
def test_jumprelu_thresholds_learn_from_what_is_within_the_kernel(threshold, expected):
    """Threshold 1, bandwidth 0.5: 0.9 and 1.1 are within the kernel, 0.5 and 2 are not.

    Codes are 0, 0, 1.1, 2 and errors -0.5, -0.9, 0, 0, so dL/df of the second is 2 (-0.9) / 4 = -0.45 and its part
    -(1 / 0.5) (-0.45) = 0.9. Each of the two moves the l0 penalty by -(1 / 0.5) 0.1 / 4 = -0.05. At 0.7, with
    bandwidth 0.3, nothing is within the kernel.
    """
    variant = JumpRelu(1, sparsity=0.1, bandwidth=0.5 if threshold == 1 else 0.3)
    variant.log_threshold.detach().fill_(math.log(threshold))
    step = variant.step(ONE, torch.tensor([[0.5], [0.9], [1.1], [2.0]]), 0, ALIVE)
    assert float(step.own_gradients[0]) == pytest.approx(expected, abs=1e-6)
    active = 2 if threshold == 1 else 3
    assert float(step.losses["sparsity"]) == pytest.approx(0.1 * active / 4)
    assert step.codes.without_zeros().values.tolist() == pytest.approx([0.9, 1.1, 2.0][-active:])


def test_jumprelus_tanh_penalty_on_hand_numbers():
    """One token at 2, threshold 1: penalty 0.1 tanh(0.5 x 2); its gradient is that of the only code, error 0."""
    variant = JumpRelu(1, penalty="tanh", sparsity=0.1, bandwidth=0.5, tanh_scale=0.5)
    step = variant.step(ONE, torch.tensor([[2.0]]), 0, ALIVE)
    assert float(step.losses["loss"]) == pytest.approx(0.1 * math.tanh(1.0))
    assert float(step.gradients.encoder_bias) == pytest.approx(0.1 * 0.5 / math.cosh(1.0) ** 2)
    assert float(step.own_gradients[0]) == 0


def test_gated_on_hand_numbers():
    """x = 2: gate 2 - 1 = 1, magnitude 3 x 2 + 0.5 = 6.5; errors 4.5, and 1 - 2 = -1 by the gate alone."""
    variant = Gated(1, l1=0.25)
    variant.log_scale.detach().fill_(math.log(3))
    variant.magnitude_bias.detach().fill_(0.5)
    step = variant.step(ONE._replace(encoder_bias=torch.tensor([-1.0])), torch.tensor([[2.0]]), 0, ALIVE)
    found = {name: float(value) for name, value in step.losses.items()}
    expected = {"loss": 21.5, "reconstruction": 20.25, "sparsity": 0.25, "gate_reconstruction": 1.0}
    assert found == pytest.approx(expected)
    gate = 2 * -1 + 0.25
    assert float(step.gradients.decoder) == pytest.approx(2 * 4.5 * 6.5)  # nothing of the frozen reconstruction
    assert float(step.gradients.decoder_bias) == pytest.approx(2 * 4.5)
    assert float(step.gradients.encoder_bias) == pytest.approx(gate)
    assert float(step.gradients.encoder) == pytest.approx((9 * 3 + gate) * 2)
    assert [float(gradient) for gradient in step.own_gradients] == pytest.approx([9 * 6, 9])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("k", [1, 32])
@pytest.mark.parametrize("width", [32, 100, 384, 1536, 6144, 6145, 24_576])
def test_the_largest_of_rows_are_those_of_a_full_sort(width, k, device):
    generator = torch.Generator().manual_seed(width)
    block = torch.randn(40, width, generator=generator)
    block[1] = -1.0  # all alike
    block[2] = block[2].mul(3).round()  # many alike
    block[3].sort()
    block[4, ::8] += 5.0  # all winners are members of few teams
    values, columns = (found.cpu() for found in largest_of_rows(block.to(device), k))
    assert torch.equal(block.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())
    assert torch.equal(values.sort(1, descending=True).values, block.sort(1, descending=True).values[:, :k])


@pytest.mark.parametrize("guess", [0.0, 0.5, 1e9])
@pytest.mark.parametrize("wanted", [1, 700, 20_000])
def test_the_largest_of_a_batch_are_those_of_a_full_sort(guess, wanted):
    generator = torch.Generator().manual_seed(3)
    inputs, encoder = torch.randn(1300, 6, generator=generator), torch.randn(30, 6, generator=generator)
    # Later tokens are larger: what the first blocks offered must give way.
    inputs *= torch.linspace(0.1, 2, 1300).unsqueeze(1)
    bias = 0.1 * torch.randn(30, generator=generator)
    codes = largest_of_batch(inputs, encoder, bias, wanted, guess)
    pre = torch.addmm(bias, inputs, encoder.T).flatten()
    values, places = pre.relu().topk(wanted)
    expected = torch.zeros_like(pre).scatter(0, places, values).view(1300, 30)
    # Products of blocks and of the whole may round differently.
    torch.testing.assert_close(codes.dense(), expected, atol=1e-5, rtol=1e-5)
    assert len(codes.values) == int((expected > 0).sum()) <= wanted


@pytest.mark.parametrize(("wanted", "kept"), [(1, 1), (2, 2001), (2000, 2001)])
def test_codes_as_large_as_the_smallest_that_is_kept_are_kept_too(wanted, kept):
    inputs = torch.ones(2001, 1)  # more than a block
    inputs[1000] = 3.0
    codes = largest_of_batch(inputs, torch.ones(1, 1), torch.zeros(1), wanted)
    assert len(codes.values) == kept
    assert codes.tokens.tolist() == ([1000] if kept == 1 else list(range(2001)))


def test_batchtopk_keeps_k_on_average_and_learns_the_running_mean_of_the_smallest():
    sae = initial_sae(BatchTopKSettings(variant="batchtopk", k=5, **SHARED), planted(3000, seed=1), seed=0)
    inputs, dead = sae.normalized(planted(600, seed=2)), torch.zeros(WIDTH, dtype=torch.bool)
    variant, smallest = sae.variant, []
    for number in range(3):
        step = variant.step(sae.weights, inputs[200 * number :][:200], number, dead)
        assert len(step.codes.values) == 5 * 200
        assert len(set(step.codes.offsets.diff().tolist())) > 1
        smallest.append(float(step.codes.values.min()))
        variant.threshold.copy_(step.buffers["threshold"])
        # Until a step would weigh less than threshold_rate, all count alike.
        assert float(variant.threshold) == pytest.approx(np.mean(smallest), rel=1e-6)
    late = variant.step(sae.weights, inputs[:200], 1000, dead).buffers["threshold"]
    assert float(late) == pytest.approx(0.95 * np.mean(smallest) + 0.05 * smallest[0], rel=1e-6)
    codes = sae.encode(planted(600, seed=2)).detach()
    assert float(codes[codes > 0].min()) > float(variant.threshold)
    assert float((codes > 0).sum(1).float().mean()) == pytest.approx(5, rel=0.1)


def test_a_trained_batchtopk_has_k_codes_on_tokens_it_has_not_seen():
    run = trained(BatchTopKSettings(variant="batchtopk", k=5, **SHARED), 200, planted(4000, seed=1))
    codes = run.sae.sparse_codes(planted(2000, seed=2))
    # The mean over 2,000 tokens of about 5 +- 2 has an error of 0.05; the threshold lags by 20 steps.
    assert len(codes.values) / 2000 == pytest.approx(5, rel=0.1)


def test_drawn_prefixes_grow_to_the_width_and_come_from_seed_and_step():
    variant = Matryoshka(TopK(2), drawn_prefixes=4, seed=3)
    drawn = [variant.prefixes_of(number, 500) for number in range(300)]
    assert all(len(prefixes) == 4 and prefixes[-1] == 500 for prefixes in drawn)
    assert all(np.all(np.diff([0, *prefixes]) > 0) for prefixes in drawn)
    assert drawn[7] == Matryoshka(TopK(2), drawn_prefixes=4, seed=3).prefixes_of(7, 500)
    assert drawn[7] != Matryoshka(TopK(2), drawn_prefixes=4, seed=4).prefixes_of(7, 500)
    assert len({tuple(prefixes) for prefixes in drawn}) > 150
    # Under the Pareto distribution half of single draws are 3 or less; of uniform ones, less than 1 in 100.
    assert np.median([prefixes[0] for prefixes in drawn]) <= 3


def test_one_prefix_of_all_latents_is_the_rule_alone():
    sae = initial_sae(TopKSettings(variant="topk", k=5, **SHARED), planted(2000, seed=1), seed=0)
    inputs, dead = sae.normalized(planted(600, seed=2)), torch.zeros(WIDTH, dtype=torch.bool)
    dead[:9] = True
    alone = TopK(5, 4, 0.5).step(sae.weights, inputs, 0, dead)
    nested = Matryoshka(TopK(5, 4, 0.5), [WIDTH]).step(sae.weights, inputs, 0, dead)
    for one, other in zip(alone.gradients, nested.gradients, strict=True):
        torch.testing.assert_close(one, other)


def distance_to_hull(row, points):
    """Largest coordinate by which a row misses the nearest convex combination of points, by a linear program."""
    n_points, d = points.shape
    costs = np.r_[np.zeros(n_points), 1.0]
    upper = np.r_[np.c_[points.T, -np.ones(d)], np.c_[-points.T, -np.ones(d)]]
    sums = np.r_[np.ones(n_points), 0.0][None]
    return linprog(costs, upper, np.r_[row, -row], sums, [1.0], bounds=(0, None)).fun


@pytest.mark.parametrize("relaxation", [0.0, 0.1])
def test_archetypes_lie_in_the_hull_of_points_which_the_file_keeps(relaxation, tmp_path):
    settings = ArchetypalSettings(variant="archetypal", points=40, relaxation=relaxation, k=5, **SHARED)
    data = planted(3000, seed=1)
    run = trained(settings, 60, data)
    sae = load_sae(save_sae(run.sae, tmp_path))
    archetypes = sae.variant.archetypes()
    points = sae.variant.points.double().numpy()
    bound = relaxation * np.linalg.norm(points, axis=1).mean()
    rows = sae.decoder_weight * torch.linalg.vector_norm(archetypes, dim=1, keepdim=True)
    torch.testing.assert_close(rows, archetypes)
    distances = [distance_to_hull(row, points) for row in rows.double().numpy()[:20]]
    assert max(distances) <= bound + 1e-5
    if relaxation:
        norms = torch.linalg.vector_norm(sae.variant.departures, dim=1)
        assert float(norms.max()) == pytest.approx(bound, rel=1e-4)  # the bound binds
        assert max(distances) > 1e-3
    assert distance_to_hull(3 * np.abs(points).max() * np.ones(D_MODEL), points) > 1  # the program can tell
    inputs = sae.normalized(data).double().numpy()
    assert max(distance_to_hull(point, inputs) for point in points[:3]) < 1e-5


def test_cluster_means_are_the_means_of_what_is_nearest():
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (corners.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=torch.Generator().manual_seed(1)))[
        torch.randperm(150, generator=torch.Generator().manual_seed(2))
    ]
    found = cluster_means(points, 3, torch.Generator().manual_seed(5))
    nearest = torch.cdist(points, found).argmin(1)
    for number in range(3):
        torch.testing.assert_close(found[number], points[nearest == number].mean(0), atol=1e-5, rtol=1e-5)


def test_fewer_tokens_than_points_are_refused():
    settings = ArchetypalSettings(variant="archetypal", points=400, k=2, **SHARED)
    with pytest.raises(TrainingError, match=r"saes\.\*\.points: 400, but the sample has 100 tokens"):
        initial_sae(settings, planted(100, seed=1), seed=0)


@pytest.mark.parametrize("variant", ["topk", "batchtopk", "matryoshka", "archetypal"])
def test_k_above_the_width_is_refused(variant):
    settings = parse_section(AnySae, {"variant": variant, "k": 17, "expansion": 2}, "saes")
    with pytest.raises(ConfigError, match=r"saes\.\*\.k: 17 latents kept of only 16; allowed: 1 to 16"):
        empty_sae(settings, 8)


@pytest.mark.parametrize("prefixes", [[4, 8], [8, 4, 16], [4, 4, 16], [0, 16], [4, 20]])
def test_prefixes_that_do_not_grow_to_the_width_are_refused(prefixes):
    settings = MatryoshkaSettings(variant="matryoshka", k=2, expansion=2, prefixes=prefixes)
    with pytest.raises(ConfigError, match=r"saes\.\*\.prefixes: .* allowed: numbers that grow from 1 or more to 16"):
        empty_sae(settings, 8)


def test_prefixes_that_do_not_grow_are_refused_before_anything_is_trained():
    sae = {"variant": "matryoshka", "prefixes": [8, 4]}
    study = {"model": "m", "layer": 0, "train_on": "d", "saes": ["s"], "describe": ["d"]}
    config = {
        "datasets": {"d": {"kind": "scenes"}},
        "models": {"m": {"architecture": "a"}},
        "saes": {"s": sae},
        "studies": {"x": study},
    }
    with pytest.raises(ConfigError, match=r"saes: s: prefixes: \[8, 4\]: each must be 1 or more and larger"):
        parse_config(config)
    sae["prefixes"] = [4, 8]
    assert parse_config(config).saes["s"].prefixes == [4, 8]


def test_more_drawn_prefixes_than_latents_are_refused():
    settings = MatryoshkaSettings(variant="matryoshka", k=2, expansion=1, drawn_prefixes=9)
    with pytest.raises(ConfigError, match=r"saes\.\*\.drawn_prefixes: 9: allowed: 1 to 8"):
        empty_sae(settings, 8)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_expansion_of_zero_is_refused_by_its_key(case):
    with pytest.raises(ConfigError, match="expansion: 0 is less than the minimum of 1"):
        parse_section(AnySae, {"variant": case.settings.variant, "expansion": 0}, "saes")


@pytest.mark.parametrize(
    ("variant", "key", "value"),
    [
        ("batchtopk", "threshold_rate", 0),
        ("batchtopk", "threshold_rate", 1.5),
        ("jumprelu", "bandwidth", 0),
        ("jumprelu", "penalty", "l2"),
        ("jumprelu", "sparsity", -1),
        ("gated", "l1", -1),
        ("archetypal", "points", 1),
        ("archetypal", "relaxation", -0.1),
        ("matryoshka", "over", "relu"),
        ("topk", "clamp", 0),
    ],
)
def test_values_out_of_range_are_refused_by_their_key(variant, key, value):
    with pytest.raises(ConfigError, match=f"{key}: "):
        parse_section(AnySae, {"variant": variant, key: value}, "saes")


def test_files_of_before_clamping_and_transcoders_still_load(tmp_path):
    config = save_sae(SparseAutoencoder(8, 16, TopK(2)), tmp_path)
    text = config.read_text().replace('  "d_target": null,\n', "").replace('  "clamp": null,\n', "")
    assert "clamp" not in text
    config.write_text(text)
    assert load_sae(config).clamp is None


def test_a_new_batchtopk_starts_with_a_threshold_of_zero():
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BatchTopK(2).dense(inputs, torch.eye(4), torch.zeros(4)), inputs.relu())
