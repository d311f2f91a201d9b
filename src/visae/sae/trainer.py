"""Training a sparse autoencoder from activation stores, in a way that survives being killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, cast

import polars as pl
import torch
from torch import Tensor

from visae.activations.reader import ShuffledReader
from visae.activations.store import ActivationStore
from visae.config.settings import AnySae
from visae.device import chosen_device, described
from visae.errors import TrainingError
from visae.files import atomic_path, file_sha256, write_json
from visae.progress import progress_bar
from visae.provenance import Provenance, code_fingerprint
from visae.sae.autoencoder import save_sae
from visae.sae.checkpoints import Checkpoints
from visae.sae.initial import empty_sae, initial_sae
from visae.sae.interruption import Interruption
from visae.sae.metrics import quality
from visae.sae.run import TrainingRun

# Tokens that normalization and initial weights are estimated from, and tokens that quality is measured on.
_SAMPLE_TOKENS = 1 << 16
_HELD_OUT_TOKENS = 1 << 14
_METRICS = (
    *("loss", "reconstruction", "auxk", "sparsity", "gate_reconstruction"),
    *("normalized_mse", "explained_variance", "l0", "l1"),
    *("dead_share", "dense_share", "gradient_norm", "learning_rate", "tokens_per_second", "data_wait_share"),
)
# What may differ between the parts of a continued run.
_WITHOUT_EFFECT = ("log_every", "checkpoint_every")


def train(
    settings: AnySae, manifests: list[Path], output: Path, work: Path, device: str = "auto", seed: int = 0
) -> dict[str, Any]:
    """Train an SAE on the patches of split `train`; writes sae.safetensors, config.json, metrics.parquet, summary.json.

    A run that was killed continues from its newest checkpoint in `work`; on CPU it then ends with the very
    weights that it would have had.

    Parameters
    ----------
    settings
        Variant, width and how to train.
    manifests
        Activation stores, read as one.
    output
        Folder of the results; summary.json is written last.
    work
        Folder of the checkpoints; they are deleted when the results are written.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Added to the settings' own seed.

    Returns
    -------
    dict
        What summary.json holds: quality on held-out tokens (split `val` where a store has it).
    """
    where, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, manifests, seed, described(where))
    stores = [ActivationStore.open(path) for path in manifests]
    reader = ShuffledReader(stores, "train", settings.batch_size, seed)
    held_out, measured_on = _held_out(stores, seed)
    checkpoints = Checkpoints(Path(work) / "checkpoints", _identity(settings, manifests, seed, where))
    run = _started(settings, reader, checkpoints, where, seed)
    _loop(run, reader, held_out, checkpoints)
    final = asdict(quality(run.sae, held_out))
    logged = pl.DataFrame([row for row in run.rows if row["split"] == "train"])
    summary = {
        **final,
        "dead_share": run.dead_share(),
        "tokens_per_second": logged["tokens_per_second"].median(),
        "data_wait_share": logged["data_wait_share"].median(),
        "measured_on": measured_on,
        "n_tokens_trained": run.step * settings.batch_size,
        "variant": settings.variant,
        "width": run.sae.width,
        "d_model": run.sae.d_model,
        "provenance": provenance.record(),
    }
    _write(run, Path(output), summary, layer=stores[0].manifest.get("layer"))
    checkpoints.clear()
    return summary


def _loop(run: TrainingRun, reader: ShuffledReader, held_out: Tensor, checkpoints: Checkpoints) -> None:
    """Train to the last step; log, measure and keep checkpoints on the way."""
    settings = run.settings
    bar = progress_bar(settings.steps, f"SAE ({settings.variant})", "steps", initial=run.step)
    began, counted, waited = time.monotonic(), run.step, 0.0
    with _batches(reader, run.step) as batches, Interruption() as interruption, bar:
        while run.step < settings.steps:
            asked = time.monotonic()
            batch = next(batches)
            waited += time.monotonic() - asked
            row = run.advance(batch)
            bar.update()
            if run.step % settings.log_every == 0 or run.step == settings.steps:
                seconds = max(time.monotonic() - began, 1e-9)
                rate = (run.step - counted) * settings.batch_size / seconds
                row |= {"tokens_per_second": rate, "data_wait_share": waited / seconds}
                run.rows.append({"step": run.step, "split": "train", **row})
                bar.set_postfix(loss=f"{row['loss']:.4g}", nmse=f"{row['normalized_mse']:.3f}", l0=f"{row['l0']:.1f}")
                began, counted, waited = time.monotonic(), run.step, 0.0
            if run.step % settings.checkpoint_every == 0 or run.step == settings.steps:
                paused = time.monotonic()
                run.rows.append(_val_row(run, held_out))
                checkpoints.save(run.checkpoint())
                began += time.monotonic() - paused
            elif interruption.asked is not None:
                checkpoints.save(run.checkpoint())
            interruption.raise_if_asked()


def _started(
    settings: AnySae, reader: ShuffledReader, checkpoints: Checkpoints, device: torch.device, seed: int
) -> TrainingRun:
    """Start a run, from its newest checkpoint where there is one."""
    kept = checkpoints.newest()
    if kept is not None:
        run = TrainingRun(settings, empty_sae(settings, reader.stores[0].d_model).to(device))
        run.restore(kept)
        return run
    wanted = min(_SAMPLE_TOKENS, reader.n_tokens)
    with _batches(reader) as batches:
        sample = torch.cat(list(islice(batches, -(-wanted // reader.batch_size))))
    return TrainingRun(settings, initial_sae(settings, sample, seed).to(device))


def _held_out(stores: list[ActivationStore], seed: int) -> tuple[Tensor, str]:
    """Tokens (n, d_model) that quality is measured on, and what they are of."""
    split = "val" if any(store.splits.get("val") for store in stores) else "train"
    size = min(_HELD_OUT_TOKENS, sum(len(s.splits.get(split, ())) * s.n_tokens("patches") for s in stores))
    if not size:
        raise TrainingError(f"{stores[0].folder}: no patches in split train; the stores have nothing to train on")
    with _batches(ShuffledReader(stores, split, size, seed)) as batches:
        tokens = next(batches)
    return tokens, "val" if split == "val" else "train (no store has a split val)"


@contextmanager
def _batches(reader: ShuffledReader, start: int = 0) -> Iterator[Iterator[Tensor]]:
    """Batches from number `start` on; the reading thread ends with the block."""
    with closing(cast(Any, reader.batches(start))) as batches:
        yield batches


def _val_row(run: TrainingRun, held_out: Tensor) -> dict[str, Any]:
    found = asdict(quality(run.sae, held_out))
    row = {"step": run.step, "split": "val", "dead_share": run.dead_share()}
    return row | {name: found[name] for name in found if name in _METRICS}


def _identity(settings: AnySae, manifests: list[Path], seed: int, device: torch.device) -> dict[str, Any]:
    """What a checkpoint must share with the run that continues from it."""
    return {
        "settings": {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_EFFECT},
        "seed": seed,
        "data": [file_sha256(path) for path in manifests],
        "device": device.type,
        "code": code_fingerprint("visae.sae.trainer"),
    }


def _write(run: TrainingRun, output: Path, summary: dict[str, Any], **more: Any) -> None:
    """Write the results, each whole, summary.json last."""
    schema = {"step": pl.Int64, "split": pl.String, **dict.fromkeys(_METRICS, pl.Float64)}
    with atomic_path(output / "metrics.parquet") as temporary:
        pl.DataFrame(run.rows, schema=schema, orient="row").write_parquet(temporary)
    save_sae(run.sae, output, settings=asdict(run.settings), provenance=summary["provenance"], **more)
    write_json(output / "summary.json", summary)
