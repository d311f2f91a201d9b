"""A training run: its state, one step of it, and how the state is kept and restored."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from visae.config.settings import AnySae
from visae.device import in_bfloat16
from visae.errors import TrainingError
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.checkpoints import Checkpoint
from visae.sae.metrics import DENSE_ABOVE
from visae.sae.parallel import ALONE, Ranks
from visae.sae.variants.sparse import sums_by_group
from visae.sae.variants.variant import Step, without_parallel


class NotFinite(TrainingError):
    """The loss or its gradient is not a finite number."""


def learning_rate(settings: AnySae, number: int) -> float:
    """Learning rate of step `number` (from 0): linear warm-up, constant, linear fall to zero."""
    rising = (number + 1) / max(1, settings.warmup_steps)
    falling = (settings.steps - number) / max(1.0, settings.decay_share * settings.steps)
    return settings.peak_learning_rate * min(1.0, rising, falling)


class TrainingRun:
    """Weights, optimizer and counters of a run.

    Parameters
    ----------
    settings
        How to train.
    sae
        Where to start from, on its device.
    ranks
        The processes that train it together; all must be at the same step.

    Attributes
    ----------
    step
        Steps done.
    silent
        int64 (width,), tokens since each latent was last active.
    rows
        Rows of metrics.parquet so far.
    """

    def __init__(self, settings: AnySae, sae: SparseAutoencoder, ranks: Ranks = ALONE) -> None:
        self.settings, self.sae, self.ranks = settings, sae, ranks
        for module in sae.variant.modules():
            module.ranks = ranks  # type: ignore[assignment]
        device = sae.decoder_bias.device
        narrow = in_bfloat16(settings.precision, device)
        self._precision = torch.autocast(device.type, torch.bfloat16, enabled=narrow)
        groups = [
            {"params": [parameter], "multiple": settings.bias_multiple if name.endswith("bias") else 1.0}
            for name, parameter in sae.named_parameters()
        ]
        self.optimizer = torch.optim.Adam(groups, lr=settings.peak_learning_rate, fused=True)
        self.step = 0
        self.silent = torch.zeros(sae.width, dtype=torch.int64, device=device)
        self.rows: list[dict[str, Any]] = []

    @torch.no_grad()
    def advance(self, activations: Tensor, target: Tensor | None = None) -> dict[str, Any]:
        """Train on one batch of raw activations (n, d_model), the same in all processes; returns what to log of it.

        Parameters
        ----------
        target
            (n, d_target), raw activations of the same tokens that a transcoder shall give.

        Raises
        ------
        NotFinite
            If the loss or the gradient is not a finite number; weights are then as before the step.
        """
        settings, sae = self.settings, self.sae
        inputs = sae.normalized(self.ranks.part(activations).to(self.silent.device, non_blocking=True))
        wanted = inputs
        if target is not None:
            wanted = sae.normalized_target(self.ranks.part(target).to(self.silent.device, non_blocking=True))
        dead = self.silent >= settings.dead_after_tokens
        with self._precision:
            done = sae.variant.step(sae.weights, inputs, self.step, dead, wanted)
        if self.ranks.count > 1:
            for gradient in done.all_gradients:
                gradient.copy_(self.ranks.mean(gradient))
        losses = self.ranks.mean(torch.stack([*done.losses.values()]))
        without_parallel(done.gradients.decoder, sae.weights.decoder)
        gradient_norm = torch.nn.utils.get_total_norm(done.all_gradients)
        active = (done.codes.values > 0).double()
        counts = self.ranks.total(sums_by_group(done.codes.latents, active, sae.width))
        n_tokens = len(inputs) * self.ranks.count
        silent = (self.silent + n_tokens).masked_fill_(counts > 0, 0)
        dead_share = self._dead_share(silent, self.step + 1)
        # Asked for together, and before the update: an answer is waited for until a GPU has done all it was told.
        answers = [losses, gradient_norm.view(1), dead_share.view(1), self._described(done, wanted, counts, n_tokens)]
        found = torch.cat([answer.double() for answer in answers]).tolist()
        named, (norm, dead_now, *described) = found[: len(losses)], found[len(losses) :]
        if not (math.isfinite(norm) and math.isfinite(sum(named))):
            raise NotFinite(
                f"step {self.step + 1}: the loss or its gradient is not a finite number; try a lower learning_rate "
                f"(now {settings.peak_learning_rate:g}) or a longer warmup_steps (now {settings.warmup_steps})"
            )
        rate = learning_rate(settings, self.step)
        self._update(done, rate, min(1.0, settings.gradient_clip / max(norm, 1e-30)))
        self.silent = silent
        self.step += 1
        deviation, squared, about_mean, l1, n_active, dense_share = described
        return {
            **dict(zip(done.losses, named, strict=True)),
            "normalized_mse": squared / deviation,
            "explained_variance": 1 - about_mean / deviation,
            "l0": n_active / n_tokens,
            "l1": l1 / n_tokens,
            "dead_share": dead_now,
            "dense_share": dense_share,
            "gradient_norm": norm,
            "learning_rate": rate,
        }

    def _update(self, done: Step, rate: float, shrink: float) -> None:
        for parameter, gradient in zip(self.sae.parameters(), done.all_gradients, strict=True):
            parameter.grad = gradient if shrink == 1 else gradient.mul_(shrink)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["multiple"]
        self.optimizer.step()
        self.optimizer.zero_grad()  # gives back what gradients take before the next ones are made
        variant = self.sae.variant
        for name, value in done.buffers.items():
            variant.get_buffer(name).copy_(value)
        variant.project(self.sae.weights)

    def _described(self, done: Step, target: Tensor, counts: Tensor, n_tokens: int) -> Tensor:
        """Of a batch, all processes' parts together, float64 (6,).

        Sums of squares of the target's deviations, of the error, and of the error's deviations; sum and number of
        codes; share of dense latents. Deviations are about the batch's own mean.
        """
        means = self.ranks.mean(torch.stack([target.mean(0), done.error.mean(0)]))
        sums = (
            (target - means[0]).square().sum(),
            done.error.square().sum(),
            (done.error - means[1]).square().sum(),
            done.codes.values.sum(),
        )
        dense = (counts > DENSE_ABOVE * n_tokens).double().mean()
        return torch.cat([self.ranks.total(torch.stack(sums)).double(), torch.stack([counts.sum(), dense])])

    def dead_share(self) -> float:
        """Share of latents silent for the last `dead_after_tokens` tokens, or for all tokens if those are fewer."""
        return float(self._dead_share(self.silent, self.step))

    def _dead_share(self, silent: Tensor, steps: int) -> Tensor:
        limit = min(self.settings.dead_after_tokens, max(1, steps * self.settings.batch_size))
        return (silent >= limit).double().mean()

    def checkpoint(self) -> Checkpoint:
        """State as tensors and rows."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors.update({f"adam.{number}.{name}": tensor for name, tensor in state.items()})
        return Checkpoint(self.step, {**tensors, "silent": self.silent}, list(self.rows))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        weights, state = {}, cast(dict[int, dict[str, Tensor]], {})
        for name, tensor in checkpoint.tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "sae":
                weights[rest] = tensor
            elif kind == "adam":
                number, _, entry = rest.partition(".")
                state.setdefault(int(number), {})[entry] = tensor
        # Copied into tensors of our own: products may round differently on memory aligned differently.
        self.sae.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": _cloned(state)})
        self.silent.copy_(checkpoint.tensors["silent"])
        self.step, self.rows = checkpoint.step, list(checkpoint.rows)


def _cloned(state: dict[int, dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
    return {number: {name: tensor.clone() for name, tensor in entry.items()} for number, entry in state.items()}
