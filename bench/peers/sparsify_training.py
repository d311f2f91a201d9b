"""sparsify's training step: its SparseCoder and the optimizers that its Trainer makes, in the order of its Trainer.

Its Trainer wants a language model to hook, so what it does in its hook and after it is done here with the same calls:
decoder bias from the first batch, unit decoder rows before the forward pass, the fraction of variance unexplained as
the loss, no AuxK (its default), parallel gradients removed, then the optimizer and the count of silent latents.
`optimizer` is "signum" (its default: schedule-free sign descent) or "adam". On a GPU its forward pass is in bfloat16,
as it is written, and decodes by its Triton kernel but for `triton: false`.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from torch import Tensor
from trainee import CannotRun, SomeBatches, Trainee, warm_up
from training_protocol import serve_training

STEPS = 100_000


def prepare(given: dict[str, Any], batches: SomeBatches) -> Trainee:
    """Make the SAE and its optimizer."""
    if given["variant"] != "topk":
        raise CannotRun("sparsify 1.3.3 has TopK only")
    device = given.get("device", "cpu")
    if device == "cpu" or not given.get("triton", True):
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # a kernel for GPUs, which some torch wheels bring along
    from sparsify import SparseCoder, SparseCoderConfig, TrainConfig

    torch.set_float32_matmul_precision("high")
    config = SparseCoderConfig(num_latents=given["width"], k=given["k"])
    training = TrainConfig(config)
    sae = SparseCoder(given["d_model"], config, device, dtype=torch.float32)
    optimizer, scheduler = _optimizer(sae, given, training)
    silent = torch.zeros(sae.num_latents, dtype=torch.long, device=device)
    fired = torch.zeros(sae.num_latents, dtype=torch.bool, device=device)
    sae.b_dec.data = batches[0].mean(0)

    def step(rows: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        out = sae(rows, y=rows, dead_mask=None, total_variance=(rows - rows.mean(0)).pow(2).sum())
        fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + training.auxk_alpha * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
        with torch.no_grad():
            silent.add_(len(rows))
            silent[fired] = 0
            fired.zero_()

    def dense_codes(rows: Tensor) -> Tensor:
        values, latents = sae.encode(rows)[:2]
        return rows.new_zeros(len(rows), sae.num_latents).scatter_(1, latents, values)

    def decode(codes: Tensor) -> Tensor:
        return codes @ sae.W_dec + sae.b_dec

    def finish() -> None:
        if scheduler is None:
            optimizer.eval()  # the average of the weights, which is what it saves
        sae.set_decoder_norm_to_unit_norm()

    return Trainee(step, lambda rows: sae.encode(rows).top_acts, dense_codes=dense_codes, decode=decode, finish=finish)


def _optimizer(sae: torch.nn.Module, given: dict[str, Any], training: Any) -> tuple[Any, Any]:
    """Optimizer and scheduler, at the learning rates that the Trainer derives from the width."""
    steps, scale = given.get("steps", STEPS), (sae.num_latents / 2**14) ** 0.5
    if given["optimizer"] == "signum":
        from schedulefree import ScheduleFreeWrapper
        from sparsify.sign_sgd import SignSGD

        optimizer = ScheduleFreeWrapper(
            SignSGD(sae.parameters(), lr=given.get("learning_rate", 5e-3 / scale)), momentum=0.95
        )
        optimizer.train()
        return optimizer, None
    from transformers import get_linear_schedule_with_warmup

    adam = torch.optim.Adam(sae.parameters(), lr=given.get("learning_rate", 2e-4 / scale))
    return adam, get_linear_schedule_with_warmup(adam, warm_up(training.lr_warmup_steps, steps), steps)


if __name__ == "__main__":
    serve_training(prepare)
