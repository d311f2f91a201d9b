"""dictionary_learning's training: the `update` of its own trainer classes, with their defaults.

`autocast` runs it as its `trainSAE` does with `autocast_dtype=torch.bfloat16`, which is not its default.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.util import find_spec
from itertools import count
from types import ModuleType
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from torch import Tensor
from trainee import SomeBatches, Trainee, warm_up
from training_protocol import serve_training

# A run long enough that no schedule ends within the benchmark.
STEPS = 100_000


def prepare(given: dict[str, Any], batches: SomeBatches) -> Trainee:
    """Make the trainer, which makes the SAE."""
    os.environ["WANDB_MODE"] = "disabled"
    if find_spec("nnsight") is None:
        # What reads language models; its package imports the name, its trainers never call it.
        sys.modules["nnsight"] = ModuleType("nnsight")
        sys.modules["nnsight"].LanguageModel = None  # type: ignore[attr-defined]
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
    options = {"k": given["k"]} if given["variant"] in ("topk", "batchtopk") else {}
    steps = given.get("steps", STEPS)
    if "learning_rate" in given:
        options["lr"] = given["learning_rate"]
    if given["variant"] in ("jumprelu", "relu"):
        options["sparsity_warmup_steps"] = warm_up(2000, steps)
    trainer = kinds[given["variant"]](
        steps=steps,
        warmup_steps=warm_up(1000, steps),
        activation_dim=given["d_model"],
        dict_size=given["width"],
        layer=0,
        lm_name="planted",
        device=given.get("device", "cpu"),
        **options,
    )
    numbers, ae = count(), trainer.ae

    def codes(rows: Tensor) -> Tensor:
        return ae.encode(rows, use_threshold=False) if given["variant"] == "batchtopk" else ae.encode(rows)

    bias = ae.encoder.bias.data if given["variant"] == "relu" else None

    def step(rows: Tensor) -> None:
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=given.get("autocast", False)):
            trainer.update(next(numbers), rows)

    return Trainee(
        step,
        codes,
        bias,
        lambda rows: ae.encoder(rows - ae.bias),
        codes,
        ae.decode,
        getattr(trainer, "l1_penalty", None),
        partial(setattr, trainer, "l1_penalty"),
    )


if __name__ == "__main__":
    serve_training(prepare)
