"""Pictures a second from disk to a store on a GPU, beside the bare forward passes of the same pictures."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

import torch

from bench.gpu.device import seconds
from bench.gpu.report import Report
from bench.gpu.sizes import Size
from bench.harness import Target, measurement, median_ratio
from bench.store.extraction import decoded, dump, first_pictures, linked_pictures, made_pictures, prepared, read_layer
from visae.config.settings import ModelSettings
from visae.data.index import read_index
from visae.vision.model import load_model

SOURCES = 64
NEARLY_ALL = Target("ratio", ">=", 0.9)


def extraction(size: Size, report: Report) -> None:
    """Dump pictures in both precisions; what a dump of one picture takes, which happens once, is taken off."""
    made = made_pictures(size.scratch / "scenes", min(SOURCES, size.pictures), size.image_size)
    index = linked_pictures(read_index(made)["path"].to_list(), size.pictures, size.scratch / "pictures")
    one = first_pictures(index, 1, size.scratch / "one")
    for precision in ("bfloat16", "float32"):
        _precision(size, precision, index, one, report)
    store = next(size.scratch.glob("float32/all-*/layer*/*.parquet"))
    plain = size.pictures / _plainly_written(store, size.scratch / "plain")
    report.add(measurement("extraction: as many bytes written plainly and flushed", plain, "images/s"))


def _plainly_written(source: Path, target: Path) -> float:
    """Seconds that a file's bytes take to reach the disk: what no dump can be faster than."""
    with source.open("rb") as given, target.open("wb", buffering=0) as file:
        taken = 0.0
        while piece := given.read(1 << 24):
            started = time.perf_counter()
            file.write(piece)
            taken += time.perf_counter() - started
        started = time.perf_counter()
        os.fsync(file.fileno())
    return taken + time.perf_counter() - started


def _precision(size: Size, precision: str, index: Path, one: Path, report: Report) -> None:
    settings = ModelSettings(
        architecture=size.architecture,
        weights="random",
        image_size=size.image_size,
        batch_size=size.image_batch,
        precision=precision,
    )
    folder = size.scratch / precision
    card = prepared(settings, folder / "model")
    model = load_model(card, torch.device(size.device))
    started = time.perf_counter()
    pictures_read = decoded(index, model, size.decoded)
    alone = size.decoded / (time.perf_counter() - started)
    batches = pictures_read.to(size.device).split(size.image_batch)
    read_layer(model, batches[0], size.layer)
    samples: dict[str, list[float]] = {"forward": [], "dump": [], "with start": []}
    peak, held = 0, 0
    for repetition in range(size.dumps):
        bare = seconds(size.device, lambda: [read_layer(model, batch, size.layer) for batch in batches])
        samples["forward"].append(size.decoded / bare)
        if size.device == "cuda":
            held = torch.cuda.memory_allocated()  # by what is here beside the dump: a model of its own, pictures
            torch.cuda.reset_peak_memory_stats()
        taken = {}
        for name, pictures in (("one", one), ("all", index)):
            output = folder / f"{name}-{repetition}"
            taken[name] = seconds(
                size.device, lambda p=pictures, o=output: dump(settings, size.layer, p, card, o, size.device)
            )
        if size.device == "cuda":
            peak = max(peak, torch.cuda.max_memory_allocated() - held)
        samples["dump"].append((size.pictures - 1) / max(taken["all"] - taken["one"], 1e-6))
        samples["with start"].append(size.pictures / taken["all"])
    title, ratio = f"extraction: {precision}", median_ratio(samples, "dump", "forward")
    report.add(
        measurement(f"{title}, decoding alone, one process", alone, "images/s"),
        measurement(f"{title}, bare forward passes", median(samples["forward"]), "images/s"),
        measurement(f"{title}, dump", median(samples["dump"]), "images/s", ratio, NEARLY_ALL),
        measurement(f"{title}, dump of {size.pictures} with its start", median(samples["with start"]), "images/s"),
    )
    if size.device == "cuda":
        report.add(measurement(f"{title}, peak GPU memory of a dump", peak / 1e6, "MB"))
