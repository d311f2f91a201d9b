"""SAELens's training: SAETrainer.step, and its bookkeeping between steps, with the defaults of its configuration."""

from __future__ import annotations

from typing import Any

import torchvision_operators  # noqa: F401
from torch import Tensor
from trainee import SomeBatches, Trainee
from training_protocol import serve_training

# A run long enough that no schedule ends within the benchmark.
STEPS = 100_000


def prepare(given: dict[str, Any], batches: SomeBatches) -> Trainee:
    """Make the SAE and its trainer."""
    from sae_lens import (
        BatchTopKTrainingSAEConfig,
        JumpReLUTrainingSAEConfig,
        StandardTrainingSAEConfig,
        TopKTrainingSAEConfig,
    )
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.sae import TrainingSAE
    from sae_lens.training.sae_trainer import SAETrainer

    shape = {"d_in": given["d_model"], "d_sae": given["width"], "dtype": "float32", "device": "cpu"}
    sparsity = {"l1_coefficient": given["l1"]} if "l1" in given else {}
    config = {
        "topk": lambda: TopKTrainingSAEConfig(**shape, k=given["k"]),
        "batchtopk": lambda: BatchTopKTrainingSAEConfig(**shape, k=given["k"]),
        "jumprelu": lambda: JumpReLUTrainingSAEConfig(**shape),
        "relu": lambda: StandardTrainingSAEConfig(**shape, **sparsity),
    }[given["variant"]]()
    sae = TrainingSAE.get_sae_class_for_architecture(config.architecture())(config)
    rate = given.get("learning_rate", SAETrainerConfig.__dataclass_fields__["lr"].default)
    training = SAETrainerConfig(
        total_training_samples=given.get("steps", STEPS) * batches.size,
        train_batch_size_samples=batches.size,
        lr=rate,
        lr_end=rate / 10,  # what the runner's configuration sets where none is given
        device="cpu",
    )
    trainer = SAETrainer(training, sae, iter(()))

    def step(rows: Tensor) -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(rows)
        trainer.n_training_steps += 1

    l1 = trainer.coefficient_schedulers.get("l1")

    def set_l1(weight: float) -> None:
        l1.final_value = l1.current_value = weight

    return Trainee(
        step,
        sae.encode,
        sae.b_enc.data,
        lambda rows: sae.encode_with_hidden_pre(rows)[1],
        sae.encode,
        sae.decode,
        l1.final_value if l1 else None,
        set_l1,
    )


if __name__ == "__main__":
    serve_training(prepare)
