"""What a dump costs beside its forward passes, what memory it takes, and what float16 costs in precision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from bench.harness import FOLDER, Measurement, Target, measurement, median_ratio
from visae.activations.extract import StoreSource, extract_shard
from visae.config.settings import ImageFolderSettings, ModelSettings, ScenesSettings
from visae.data.images import pixels
from visae.data.index import build_index, read_index
from visae.vision.model import HookPoint, VisionModel, load_model, prepare_model

LAYER, BATCH = 10, 32
NETWORK = ModelSettings(architecture="vit_small_patch14_dinov2", weights="embedded", image_size=224, batch_size=BATCH)
TINY = ModelSettings(architecture="vit_tiny_patch16_224", weights="random", image_size=64, batch_size=BATCH)
NEARLY_ALL, LITTLE_GROWTH = Target("ratio", ">=", 0.93), Target("value", "<", 50)


def read_layer(model: VisionModel, batch: torch.Tensor, layer: int = LAYER) -> torch.Tensor:
    """Activations (b, n_tokens, d_model) of uint8 pixels (b, 3, height, width): the bare forward pass."""
    return model.read(batch, [HookPoint(layer)])[HookPoint(layer)]


def dump(settings: ModelSettings, layer: int, index: Path, card: Path, folder: Path, device: str = "cpu") -> None:
    """Read all pictures of an index into one shard below `folder`, as `visae` does: load, decode, run, write."""
    receipt = folder / f"layer{layer}" / "receipt-0.json"
    extract_shard(settings, StoreSource(index, card, 1), 0, str(layer), [], receipt, device=device)


def prepared(settings: ModelSettings, folder: Path) -> Path:
    """Make the model's files; returns its card."""
    card = folder / "model.json"
    prepare_model(settings.identity(), card.with_name("weights.safetensors"), card)
    return card


def made_pictures(folder: Path, count: int, size: int = 224) -> Path:
    """Make `count` pictures of visae's own scenes; returns their index."""
    index = folder / "index.parquet"
    build_index(ScenesSettings(kind="scenes", train=count - 2, val=1, test=1, image_size=size), index)
    return index


def decoded(index: Path, model: VisionModel, count: int) -> torch.Tensor:
    """Read the first pictures of an index as uint8 (count, 3, height, width)."""
    return torch.stack([pixels(path, model.card) for path in read_index(index)["path"].to_list()[:count]])


def activations(model: VisionModel, pictures: torch.Tensor) -> np.ndarray:
    """Float32 (pictures * n_tokens, d_model) at the benchmark's layer."""
    read = [read_layer(model, batch) for batch in pictures.split(BATCH)]
    return torch.cat(read).flatten(0, 1).numpy()


# --- throughput ----------------------------------------------------------------------------------


def measure_throughput(folder: Path, card: Path, count: int, repetitions: int) -> list[Measurement]:
    """Compare the bare forward passes of `count` decoded pictures with a dump of the same pictures on disk.

    From a dump's time that of a dump of one picture is taken off, and one picture from the count: what happens once
    (loading the model, starting the decoding process) is on neither side. That the first batch must be decoded
    before any forward pass stays. Half of the bare passes run before the dump and half after it, so that a machine
    that gets slower or faster meanwhile does so for both.
    """
    model = load_model(card)
    index = made_pictures(folder / "pictures", count)
    one = first_pictures(index, 1, folder / "one")
    batches = decoded(index, model, count).split(BATCH)
    halves = [half for batch in batches for half in batch.chunk(2)] if len(batches) == 1 else list(batches)
    middle = len(halves) // 2
    read_layer(model, batches[0])
    seconds: dict[str, list[float]] = {"forward": [], "one": [], "all": []}
    for repetition in range(repetitions):
        before = _seconds(lambda: [read_layer(model, batch) for batch in halves[:middle]])
        for name, pictures in (("one", one), ("all", index)):
            output = folder / f"dump-{name}-{repetition}"
            seconds[name].append(
                _seconds(lambda pictures=pictures, output=output: dump(NETWORK, LAYER, pictures, card, output))
            )
        seconds["forward"].append(before + _seconds(lambda: [read_layer(model, batch) for batch in halves[middle:]]))
    samples = {
        "forward": [count / forward for forward in seconds["forward"]],
        "dump": [(count - 1) / (whole - start) for whole, start in zip(seconds["all"], seconds["one"], strict=True)],
    }
    ratio = median_ratio(samples, "dump", "forward")
    return [
        measurement("extraction: bare forward passes", median(samples["forward"]), "images/s"),
        measurement("extraction: dump", median(samples["dump"]), "images/s", ratio, NEARLY_ALL),
        measurement(f"extraction: dump of {count} with its start", count / median(seconds["all"]), "images/s"),
    ]


def first_pictures(index: Path, count: int, folder: Path) -> Path:
    """Index only the first pictures of another index, whose paths become absolute."""
    folder.mkdir(parents=True)
    read_index(index).head(count).write_parquet(folder / "index.parquet")
    return folder / "index.parquet"


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# --- memory --------------------------------------------------------------------------------------


def measure_memory(folder: Path, few: int, many: int, threads: int, repetitions: int) -> list[Measurement]:
    """Peak memory of dumps of few and of many pictures, each in a process of its own, in turns.

    The allocator alone makes it differ by tens of MB from one dump to the next of the same pictures.
    """
    card = prepared(TINY, folder / "tiny")
    source = read_index(made_pictures(folder / "scenes", 10, size=64))["path"].to_list()
    indexes = {count: linked_pictures(source, count, folder / f"{count}") for count in (few, many)}
    found: dict[int, list[float]] = {few: [], many: []}
    for repetition in range(repetitions):
        for count, index in indexes.items():
            output = folder / f"dump-{count}-{repetition}"
            command = [sys.executable, "-m", "bench.store.peak_memory", index, card, output, str(threads)]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, cwd=FOLDER.parent, env=_environment()
            )
            found[count].append(json.loads(done.stdout.splitlines()[-1])["megabytes"])
    peaks = {count: median(megabytes) for count, megabytes in found.items()}
    growth = peaks[many] - peaks[few]
    return [
        *(measurement(f"memory: peak of a dump of {count} pictures", peak, "MB") for count, peak in peaks.items()),
        measurement(
            f"memory: growth from {few} to {many} pictures", growth, "MB", peaks[many] / peaks[few], LITTLE_GROWTH
        ),
    ]


def linked_pictures(source: list[str], count: int, folder: Path) -> Path:
    """Index `count` names of a few pictures."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    for number in range(count):
        path = Path(source[number % len(source)])
        os.link(path, pictures / f"{number:06d}{path.suffix}")
    index = folder / "index" / "index.parquet"
    build_index(ImageFolderSettings(kind="image_folder", root=str(pictures), labels="none"), index)
    return index


def _environment() -> dict[str, str]:
    """This process's environment, with the same modules to be found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


# --- precision -----------------------------------------------------------------------------------


def measure_precision(values: np.ndarray) -> list[Measurement]:
    """Tell what storing float32 activations (rows, d_model) in 16 bits loses, and where."""
    exact = torch.from_numpy(values).double()
    deviation = (exact - exact.mean(0)).square().sum(0)
    share = float(deviation.max() / deviation.sum())
    rows = [
        measurement(f"precision: layer {LAYER}, largest absolute activation", float(exact.abs().max()), ""),
        measurement(f"precision: layer {LAYER}, share of variance in the largest dimension", share, ""),
    ]
    for dtype in (torch.float16, torch.bfloat16):
        error = (exact - torch.from_numpy(values).to(dtype).double()).square().sum(0)
        name = str(dtype).removeprefix("torch.")
        rows.append(measurement(f"precision: {name}, all dimensions", float(error.sum() / deviation.sum()), "NMSE"))
        rows.append(measurement(f"precision: {name}, worst dimension", float((error / deviation).max()), "NMSE"))
    return rows
