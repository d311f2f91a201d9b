"""Every variant of SAE, for tests that run over all: its settings, and its loss written densely from its paper.

Adding a variant is one line in `CASES`, and a loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import normalize

from visae.config.settings import (
    AnySae,
    ArchetypalSettings,
    BatchTopKSettings,
    FrozenDecoderSettings,
    GatedSettings,
    JumpReluSettings,
    MatryoshkaSettings,
    ReluSettings,
    TopKSettings,
)
from visae.sae.initial import initial_sae
from visae.sae.run import TrainingRun
from visae.sae.variants.baselines import BASELINES
from visae.sae.variants.members import GIVEN_RULES, VARIANTS

D_MODEL, EXPANSION = 16, 6
WIDTH = D_MODEL * EXPANSION
SHARED = {"expansion": EXPANSION, "steps": 200, "batch_size": 256, "learning_rate": 5e-3, "warmup_steps": 5}
KEPT = {"k": 5, "auxk": 8, "auxk_weight": 0.5, **SHARED}


@dataclass(frozen=True)
class Batch:
    """What a loss is of: weights and own parameters by name with gradients, inputs, target, dead latents."""

    weights: dict[str, torch.Tensor]
    own: dict[str, torch.Tensor]
    inputs: torch.Tensor
    target: torch.Tensor
    dead: torch.Tensor
    variant: Any
    number: int

    @property
    def pre_activations(self):
        return self.inputs @ self.weights["encoder"].T + self.weights["encoder_bias"]

    def error(self, codes, decoder=None):
        decoder = self.weights["decoder"] if decoder is None else decoder
        return codes @ decoder + self.weights["decoder_bias"] - self.target


@dataclass(frozen=True)
class Case:
    name: str
    settings: AnySae
    loss: Callable[[Batch], torch.Tensor]


def per_token(pre, k):
    values, latents = pre.topk(k)
    return torch.zeros_like(pre).scatter(1, latents, values.relu())


def per_batch(pre, k):
    flat = pre.flatten()
    values, places = flat.topk(k * len(pre))
    return torch.zeros_like(flat).scatter(0, places, values.relu()).view_as(pre)


def auxiliary(batch, error, decoder=None):
    """arXiv 2406.04093, relative to the residual."""
    decoder = batch.weights["decoder"] if decoder is None else decoder
    dead, residual = batch.dead, -error.detach()
    if not dead.any():
        return torch.zeros(())
    spare = per_token(batch.pre_activations[:, dead], min(8, int(dead.sum()))) @ decoder[dead]
    return 0.5 * (spare - residual).square().mean() / residual.square().mean()


def topk_loss(batch, chosen=per_token):
    error = batch.error(chosen(batch.pre_activations, 5))
    return error.square().mean() + auxiliary(batch, error)


def frozen_decoder_loss(batch):
    batch.weights["decoder"] = batch.weights["decoder"].detach()
    return topk_loss(batch)


def batchtopk_loss(batch):
    return topk_loss(batch, per_batch)


def matryoshka_loss(batch, chosen=per_token):
    """arXiv 2503.17547, as a mean: every prefix multiplied out on its own."""
    codes, errors = chosen(batch.pre_activations, 5), []
    for length in batch.variant.prefixes_of(batch.number, WIDTH):
        errors.append(batch.error(torch.cat([codes[:, :length], torch.zeros_like(codes[:, length:])], 1)))
    return torch.stack([error.square().mean() for error in errors]).mean() + auxiliary(batch, errors[-1])


def matryoshka_over_batchtopk_loss(batch):
    return matryoshka_loss(batch, per_batch)


def archetypal_loss(batch):
    """arXiv 2502.12892, rows at unit norm."""
    archetypes = torch.softmax(batch.own["logits"], 1) @ batch.variant.points
    if "departures" in batch.own:
        archetypes = archetypes + batch.own["departures"]
    decoder = normalize(archetypes)
    error = batch.error(per_token(batch.pre_activations, 5), decoder)
    return error.square().mean() + auxiliary(batch, error, decoder)


def relu_loss(batch):
    codes = batch.pre_activations.relu()
    return batch.error(codes).square().mean() + 0.02 * codes.sum(1).mean()


class Step(torch.autograd.Function):
    """H(z - t) with the estimator of arXiv 2407.14435."""

    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return (z > threshold).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        z, threshold = ctx.saved_tensors
        kernel = (((z - threshold) / ctx.bandwidth).abs() < 0.5).to(z.dtype)
        return None, (-kernel / ctx.bandwidth * gradient).sum(0), None


class Jump(torch.autograd.Function):
    """z H(z - t) with the estimator of arXiv 2407.14435."""

    @staticmethod
    def forward(ctx, z, threshold, bandwidth):
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    def backward(ctx, gradient):
        z, threshold = ctx.saved_tensors
        kernel = (((z - threshold) / ctx.bandwidth).abs() < 0.5).to(z.dtype)
        return gradient * (z > threshold), (-threshold / ctx.bandwidth * kernel * gradient).sum(0), None


def jumprelu_loss(batch):
    threshold = batch.own["log_threshold"].exp()
    codes = Jump.apply(batch.pre_activations, threshold, 0.3)
    if batch.variant.penalty == "tanh":
        penalty = torch.tanh(4 * codes)
    else:
        penalty = Step.apply(batch.pre_activations, threshold, 0.3)
    return batch.error(codes).square().mean() + 0.02 * penalty.sum(1).mean()


def gated_loss(batch):
    """arXiv 2404.16014."""
    projected = batch.inputs @ batch.weights["encoder"].T
    gate = projected + batch.weights["encoder_bias"]
    magnitude = projected * batch.own["log_scale"].exp() + batch.own["magnitude_bias"]
    frozen = gate.relu() @ batch.weights["decoder"].detach() + batch.weights["decoder_bias"].detach() - batch.target
    error = batch.error((gate > 0) * magnitude.relu())
    return error.square().mean() + 0.02 * gate.relu().sum(1).mean() + frozen.square().mean()


PREFIXES = [7, 30, WIDTH]
STRONG = {"sparsity": 0.02, "sparsity_warmup_steps": 0, "bandwidth": 0.3}
CASES = [
    Case("topk", TopKSettings(variant="topk", **KEPT), topk_loss),
    Case("frozen_decoder", FrozenDecoderSettings(variant="frozen_decoder", **KEPT), frozen_decoder_loss),
    Case("batchtopk", BatchTopKSettings(variant="batchtopk", **KEPT), batchtopk_loss),
    Case("matryoshka", MatryoshkaSettings(variant="matryoshka", prefixes=PREFIXES, **KEPT), matryoshka_loss),
    Case(
        "matryoshka-batchtopk-drawn",
        MatryoshkaSettings(variant="matryoshka", over="batchtopk", drawn_prefixes=4, **KEPT),
        matryoshka_over_batchtopk_loss,
    ),
    Case("archetypal", ArchetypalSettings(variant="archetypal", points=40, **KEPT), archetypal_loss),
    Case(
        "archetypal-relaxed",
        ArchetypalSettings(variant="archetypal", points=40, relaxation=0.5, **KEPT),
        archetypal_loss,
    ),
    Case("relu", ReluSettings(variant="relu", l1=0.02, l1_warmup_steps=0, **SHARED), relu_loss),
    Case("jumprelu", JumpReluSettings(variant="jumprelu", **STRONG, **SHARED), jumprelu_loss),
    Case("jumprelu-tanh", JumpReluSettings(variant="jumprelu", penalty="tanh", **STRONG, **SHARED), jumprelu_loss),
    Case("gated", GatedSettings(variant="gated", l1=0.02, l1_warmup_steps=0, **SHARED), gated_loss),
]
assert {case.settings.variant for case in CASES} == set(VARIANTS) - set(BASELINES) - set(GIVEN_RULES), (
    "a variant without a case"
)


def planted(n_tokens, seed, d_model=D_MODEL, active=3, scale=1.0, shift=0.0):
    """Sparse mixtures (n_tokens, d_model) of known directions."""
    directions = normalize(torch.randn(24, d_model, generator=torch.Generator().manual_seed(99)))
    generator = torch.Generator().manual_seed(seed)
    codes = torch.rand(n_tokens, 24, generator=generator)
    rank = torch.rand(n_tokens, 24, generator=generator).argsort(1).argsort(1)
    return ((1 + codes) * (rank < active)) @ directions * scale + shift


def trained(settings, steps, data, target=None):
    """A run of `settings` after some steps on rows of `data`."""
    run = TrainingRun(settings, initial_sae(settings, data, seed=0, target=target))
    advance(run, steps, data, target)
    return run


def advance(run, steps, data, target=None):
    size = run.settings.batch_size
    for _ in range(steps):
        first = run.step * size % (len(data) - size)
        part = slice(first, first + size)
        run.advance(data[part], None if target is None else target[part])
