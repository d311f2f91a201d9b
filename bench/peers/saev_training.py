"""saev's training step, in the order of its training.py: its module (ReLU, the only one that it has) and fused Adam.

One SAE is trained, not a parallel set; decoder rows are normalized before the forward pass and parallel gradients
removed after the backward pass, both its defaults.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from torch import Tensor
from training_protocol import Batches, CannotRun, Trainee, serve_training


def prepare(given: dict[str, Any], batches: Batches) -> Trainee:
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
    rate = Warmup(0.0, training.lr, training.n_lr_warmup)
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

    return Trainee(
        step,
        lambda rows: sae(rows)[1],
        sae.b_enc.data,
        lambda rows: (rows - sae.b_dec) @ sae.W_enc + sae.b_enc,
    )


if __name__ == "__main__":
    serve_training(prepare)
