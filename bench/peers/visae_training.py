"""visae's training step: TrainingRun.advance with the defaults of its settings, in a process like its peers'."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor
from trainee import CannotRun, SomeBatches, Trainee
from training_protocol import serve_training

from visae.config import settings as sections
from visae.sae.initial import initial_sae
from visae.sae.run import TrainingRun

# A run long enough that no schedule ends within the benchmark; as many tokens for the start as in a run from a store.
STEPS, SAMPLE_TOKENS = 100_000, 1 << 16


def sae_settings(given: dict[str, Any]) -> sections.AnySae:
    """Settings of a variant, defaults but for shapes and what `given["options"]` says.

    Raises
    ------
    CannotRun
        If visae has no such variant.
    """
    for section in get_args(sections.AnySae):
        if get_args(get_type_hints(section)["variant"]) == (given["variant"],):
            shape = {"expansion": given["width"] // given["d_model"], "batch_size": given["batch_size"]}
            sparsity = {"k": given["k"]} if "k" in section.__dataclass_fields__ else {}
            options = {"steps": given.get("steps", STEPS), **given.get("options", {})}
            return section(variant=given["variant"], **shape, **sparsity, **options)
    raise CannotRun("not there yet")


def started(given: dict[str, Any], batches: SomeBatches) -> TrainingRun:
    """Make a run at its first step."""
    settings = sae_settings(given)
    tokens = given.get("sample_tokens", SAMPLE_TOKENS)
    sample = torch.cat([batches[number] for number in range(max(1, tokens // batches.size))])
    return TrainingRun(settings, initial_sae(settings, sample.cpu(), given["seed"]).to(given.get("device", "cpu")))


def prepare(given: dict[str, Any], batches: SomeBatches) -> Trainee:
    """Make the run and how it is looked at."""
    run = started(given, batches)
    sae = run.sae

    def pre_activations(rows: Tensor) -> Tensor:
        return sae.normalized(rows) @ sae.encoder_weight.T + sae.encoder_bias

    def codes(rows: Tensor) -> Tensor:
        return sae.sparse_codes(rows).dense()

    def dense_codes(rows: Tensor) -> Tensor:
        return pre_activations(rows).relu() if given["variant"] == "batchtopk" else codes(rows)

    return Trainee(
        run.advance,
        codes,
        sae.encoder_bias.data,
        pre_activations,
        dense_codes,
        sae.decode,
        getattr(sae.variant, "l1", None),
        partial(setattr, sae.variant, "l1"),
    )


if __name__ == "__main__":
    serve_training(prepare)
