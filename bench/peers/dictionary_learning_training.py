"""dictionary_learning's training: the `update` of its own trainer classes, with their defaults."""

from __future__ import annotations

import os
from itertools import count
from typing import Any

import torchvision_operators  # noqa: F401
from torch import Tensor
from training_protocol import Batches, Trainee, serve_training

# A run long enough that no schedule ends within the benchmark.
STEPS = 100_000


def prepare(given: dict[str, Any], batches: Batches) -> Trainee:
    """Make the trainer, which makes the SAE."""
    os.environ["WANDB_MODE"] = "disabled"
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    kinds = {
        "topk": TopKTrainer,
        "batchtopk": BatchTopKTrainer,
        "jumprelu": JumpReluTrainer,
        "relu": StandardTrainer,
    }
    sparsity = {"k": given["k"]} if given["variant"] in ("topk", "batchtopk") else {}
    trainer = kinds[given["variant"]](
        steps=STEPS,
        activation_dim=given["d_model"],
        dict_size=given["width"],
        layer=0,
        lm_name="planted",
        device="cpu",
        **sparsity,
    )
    numbers, ae = count(), trainer.ae

    def codes(rows: Tensor) -> Tensor:
        return ae.encode(rows, use_threshold=False) if given["variant"] == "batchtopk" else ae.encode(rows)

    bias = ae.encoder.bias.data if given["variant"] == "relu" else None
    return Trainee(
        lambda rows: trainer.update(next(numbers), rows), codes, bias, lambda rows: ae.encoder(rows - ae.bias)
    )


if __name__ == "__main__":
    serve_training(prepare)
