"""saev's training step, in the order of its training.py: its module (ReLU, the only one that it has) and fused Adam.

One SAE is trained, not a parallel set; decoder rows are normalized before the forward pass and parallel gradients
removed after the backward pass, both its defaults.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from torch import Tensor
from trainee import CannotRun, SomeBatches, Trainee, warm_up
from training_protocol import serve_training

# A run long enough that no schedule ends within the benchmark.
STEPS = 100_000


def prepare(given: dict[str, Any], batches: SomeBatches) -> Trainee:
    """Make the SAE and what train() makes for it."""
    if given["variant"] != "relu":
        raise CannotRun("saev 0.1.0 has ReLU only")
    # Its training imports it, its wheel does not ask for it, and nothing is logged here.
    sys.modules.setdefault("wandb", ModuleType("wandb"))
    from saev import config
    from saev.training import Warmup, make_saes

    training = config.Train(device="cpu")
    expansion = given["width"] // given["d_model"]
    saes, groups = make_saes([config.SparseAutoencoder(d_vit=given["d_model"], exp_factor=expansion)])
    optimizer = torch.optim.Adam(groups, fused=True)
    warming = warm_up(training.n_lr_warmup, given.get("steps", STEPS))
    rate = Warmup(0.0, given.get("learning_rate", training.lr), warming)
    sparsity = Warmup(0.0, training.sae.sparsity_coeff, training.n_sparsity_warmup)
    saes.train()
    (sae,) = saes

    def step(rows: Tensor) -> None:
        sae.normalize_w_dec()
        _, _, losses = sae(rows)
        losses.loss.backward()
        sae.remove_parallel_grads()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = rate.step()
        sae.sparsity_coeff = sparsity.step()
        optimizer.zero_grad()

    def set_penalty(weight: float) -> None:
        sae.cfg = replace(sae.cfg, sparsity_coeff=weight)  # what its loss reads

    return Trainee(
        step,
        lambda rows: sae(rows)[1],
        sae.b_enc.data,
        lambda rows: (rows - sae.b_dec) @ sae.W_enc + sae.b_enc,
        lambda rows: sae(rows)[1],
        sae.decode,
        sae.cfg.sparsity_coeff,
        set_penalty,
        sae.normalize_w_dec,
    )


if __name__ == "__main__":
    serve_training(prepare)
