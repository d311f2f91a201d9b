"""SAELens's reading of cached activations: ActivationsStore over a Hugging Face data set on disk.

The data set is written as CacheActivationsRunner writes it, joined by its own function: one row a context (here a
picture's patches), a column named after the hook, of type Array2D, and one of token ids. It is read through the
class's own constructor with `dataset=None`, its way for cached activations, and the defaults of
LanguageModelSAERunnerConfig; the language model is never run then, and an empty HookedRootModule stands in for it.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Array2D, Dataset, Features, Sequence, Value
from protocol import rows_a_second, serve, settings
from sae_lens.cache_activations_runner import CacheActivationsRunner
from sae_lens.config import LanguageModelSAERunnerConfig
from sae_lens.training.activations_store import ActivationsStore
from transformer_lens.HookedTransformer import HookedRootModule

HOOK = "blocks.10.hook_resid_post"


def write_data_set(raw: Path, folder: Path, shape: list[int], shards: int) -> tuple[int, int]:
    """Turn raw shards into a data set of the same patch rows; returns its context size and rows."""
    images, tokens, d_model = shape
    context = tokens - 1
    features = Features(
        {
            HOOK: Array2D(shape=(context, d_model), dtype="float32"),
            "token_ids": Sequence(Value(dtype="int32"), length=context),
        }
    )
    ids = np.tile(np.arange(context, dtype=np.int32), (images, 1))
    for shard in range(shards):
        values = np.fromfile(raw / f"acts{shard:06d}.bin", dtype=np.float32).reshape(shape)[:, 1:]
        part = Dataset.from_dict({HOOK: torch.from_numpy(values), "token_ids": ids}, features=features)
        part.save_to_disk(folder / "parts" / f"shard_{shard:05d}", num_shards=1)
    (folder / "whole").mkdir()
    CacheActivationsRunner._consolidate_shards(folder / "parts", folder / "whole", copy_files=False)
    return context, shards * images * context


def defaults() -> dict:
    """Default values of the training configuration."""
    return {
        field.name: field.default
        for field in dataclasses.fields(LanguageModelSAERunnerConfig)
        if field.default is not dataclasses.MISSING
    }


def main() -> None:
    given = settings()
    torch.set_num_threads(given["threads"])
    folder = Path(given["folder"])
    context, available = write_data_set(Path(given["raw"]), folder, given["shape"], given["shards"])
    default = defaults()
    print({name: default[name] for name in ("n_batches_in_buffer", "store_batch_size_prompts")}, file=sys.stderr)

    def repeat(rows: int, mixed_rows: int | None) -> dict:
        """Read some rows, mixed in a buffer of the default size or of so many rows."""
        buffered = -(-mixed_rows // context) if mixed_rows else default["n_batches_in_buffer"]
        started = time.perf_counter()
        store = ActivationsStore(
            model=HookedRootModule(),
            dataset=None,
            streaming=default["streaming"],
            hook_name=HOOK,
            hook_head_index=None,
            context_size=context,
            d_in=given["shape"][2],
            n_batches_in_buffer=buffered,
            total_training_tokens=available,
            store_batch_size_prompts=default["store_batch_size_prompts"],
            train_batch_size_tokens=given["batch_size"],
            prepend_bos=default["prepend_bos"],
            normalize_activations="none",
            device=torch.device("cpu"),
            dtype="float32",
            cached_activations_path=str(folder / "whole"),
            activations_mixing_fraction=default["activations_mixing_fraction"],
        )
        return rows_a_second(store, rows, started)

    serve(repeat)


if __name__ == "__main__":
    main()
