"""How fast arms of edits are run, beside a full forward pass an arm, and in how much memory.

arms    edits of one class by nine arms, ViT-S/14 (random weights) with one block to resume: visae's way, which begins
        at the edited layer and runs edits of few pictures together, beside the naive one, a forward pass of the whole
        network an arm with a hook on the edited block
table   the whole table of the street study: 11 classes x 9 arms x 101 pictures, as if each had every class
memory  peak memory of all arms of a class, on some pictures and on four times as many

Weights, activations and latents are drawn at random, which changes no time. Contenders take turns; values are medians
over repetitions, ratios medians of the quotients within a repetition, visae's over the naive way's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.harness import (
    FOLDER,
    Measurement,
    Target,
    interleaved,
    measurement,
    median_ratio,
    parser,
    repetitions,
    run_in_scratch,
)
from bench.peak_memory import own_peak
from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.arms.arms import Unedited, outcomes
from visae.arms.changes import Draws, Reconstruction, SetCoordinate, SetLatents, situation
from visae.config.settings import ModelSettings
from visae.edits.edit import moved, patch_rows, with_rows
from visae.heads.segmentation_head import SegmentationHead
from visae.sae import SparseAutoencoder
from visae.sae.variants.topk import TopK
from visae.tasks.segmentation import Segmentation
from visae.vision.model import load_model, prepare_model

LAYER, WIDTH, K, BATCH = 10, 3072, 32, 32
N_CLASSES, N_IMAGES, PATCHES_OF_CLASS = 11, 101, 23
VIT = ModelSettings(architecture="vit_small_patch14_dinov2", weights="random")
SIX_MINUTES, HALF = Target("value", "<", 360), Target("ratio", "<", 0.5)
FLAT = Target("ratio", "<", 1.25)


class Bench:
    """A network, its activations of random pictures, and nine arms."""

    def __init__(self, folder: Path, n_images: int) -> None:
        if not (folder / "model.json").is_file():
            prepare_model(VIT, folder / "weights.safetensors", folder / "model.json")
        model = load_model(folder / "model.json")
        card, generator = model.card, torch.Generator().manual_seed(0)
        d_model, manifest = card.layers[LAYER].d_model, folder / f"store-{n_images}" / "manifest.json"
        # The process whose memory is measured finds the activations written.
        if not manifest.is_file():
            tokens = torch.randn(n_images, len(card.tokens(LAYER)), d_model, generator=generator).half()
            write_store(manifest.parent, tokens, card.tokens(LAYER), {"val": n_images}, dtype="float16")
        head = SegmentationHead(
            torch.randn(N_CLASSES, d_model, generator=generator), torch.zeros(N_CLASSES), card.n_prefix, card.grid
        )
        head.classes = [{"id": c, "name": str(c)} for c in range(1, N_CLASSES + 1)]
        store = ActivationStore.open(manifest)
        self.model = model
        self.task = Segmentation(model.resumed(LAYER), head.requires_grad_(False), store, {}, BATCH)
        self.sae = SparseAutoencoder(d_model, WIDTH, TopK(K)).requires_grad_(False)
        for weight in (self.sae.encoder_weight, self.sae.decoder_weight):
            weight.copy_(normalize(torch.randn(weight.shape, generator=generator)))
        vectors = normalize(torch.randn(4, d_model, generator=generator))
        names = ("random_vector", "neuron", "class_difference", "head_weight")
        latents = ("random_latent", "frequency_matched", "automatic")
        self.draws: Draws = {
            "reconstruction": [Reconstruction()],
            **{name: [SetCoordinate(vector, 0.0, 3.0)] for name, vector in zip(names, vectors, strict=True)},
            **{name: [SetLatents((number,), (3.0,))] for number, name in enumerate(latents)},
        }

    def patches(self, n: int, class_number: int) -> Tensor:
        """Bool (n, n_patches): patches that are edited, other ones for each class."""
        found = torch.zeros(n, self.model.card.layers[LAYER].n_patches, dtype=torch.bool)
        found[:, class_number * PATCHES_OF_CLASS :][:, :PATCHES_OF_CLASS] = True
        return found

    def table(self, classes: int, n_images: int) -> None:
        """Run all arms of some classes on some pictures, visae's way."""
        for number in range(classes):
            for _, tokens in self.task.batches(np.arange(n_images)):
                patches = self.patches(len(tokens), number)
                here = situation(self.sae, patch_rows(tokens, patches), self.draws)
                before = self.task.read(tokens)
                read = self.task.read
                batch = Unedited(tokens, patches, before, here)
                for outcome in outcomes(batch, self.draws, (-2.0,), read=read, sizes=("natural",)):
                    int((outcome.after != before).sum())

    @torch.inference_mode()
    def naive(self, classes: int, n_images: int) -> None:
        """The same with a forward pass of the whole network an arm, and a hook that edits."""
        model, pixels = self.model, torch.zeros(n_images, 3, *self.model.card.image_size)
        for number in range(classes):
            for start in range(0, n_images, BATCH):
                part = pixels[start : start + BATCH].to(torch.uint8)
                patches = self.patches(len(part), number)
                for changes in ([None], *self.draws.values()):

                    def hook(_module: object, _inputs: object, tokens: Tensor, change=changes[0]) -> Tensor:
                        here = situation(self.sae, patch_rows(tokens, patches), self.draws)  # noqa: B023
                        added = torch.zeros_like(here.rows) if change is None else change(here, -2.0)
                        return with_rows(tokens, patches, moved(here.rows, added))  # noqa: B023

                    handle = model.module.blocks[LAYER].register_forward_hook(hook)
                    self.task.head(model(part)).flatten(2).argmax(dim=1)
                    handle.remove()


def seconds(function, *arguments: int) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def peak(folder: Path, n_images: int, threads: int) -> float:
    """Peak memory in MB of a process that runs all arms of a class."""
    given = json.dumps({"folder": str(folder), "n_images": n_images, "threads": threads})
    command = [sys.executable, "-m", "bench.interventions", given]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measured_arms(folder: Path, n_images: int, times: int) -> list[Measurement]:
    """All arms of one class, visae's way and the naive one."""
    bench = Bench(folder, n_images)
    ways = {
        "visae": lambda: seconds(bench.table, 1, n_images),
        "a full pass an arm": lambda: seconds(bench.naive, 1, n_images),
    }
    found, at = interleaved(ways, times), f"arms, 9 on {n_images} pictures"
    return [
        measurement(f"{at}: visae", median(found["visae"]), "s", median_ratio(found, *ways), HALF),
        measurement(f"{at}: a full pass an arm", median(found["a full pass an arm"]), "s"),
    ]


def measured_table(folder: Path, n_images: int) -> list[Measurement]:
    """All arms of all classes."""
    name = f"table, {N_CLASSES} classes x 9 arms x {n_images} pictures"
    return [measurement(name, seconds(Bench(folder, n_images).table, N_CLASSES, n_images), "s", None, SIX_MINUTES)]


def measured_memory(folder: Path, few: int, threads: int) -> list[Measurement]:
    """Peak memory on some pictures and on four times as many."""
    for n_images in (few, 4 * few):
        Bench(folder, n_images)
    low, high = (peak(folder, n, threads) for n in (few, 4 * few))
    return [
        measurement(f"memory, {few} pictures", low, "MB"),
        measurement(f"memory, {4 * few} pictures", high, "MB", high / low, FLAT),
    ]


def main() -> int:
    return run_in_scratch(parser(__doc__ or "", "interventions.json"), _parts)


def _parts(arguments: argparse.Namespace, scratch: Path) -> dict[str, Callable[[], list[Measurement]]]:
    """Name to what measures it."""
    quick, times, threads = arguments.quick, repetitions(arguments), arguments.threads
    torch.set_num_threads(threads)
    return {
        "arms": lambda: measured_arms(scratch, 8 if quick else 32, times),
        "table": lambda: measured_table(scratch, 16 if quick else N_IMAGES),
        "memory": lambda: measured_memory(scratch, 32 if quick else N_IMAGES, threads),
    }


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        job = json.loads(sys.argv[1])
        torch.set_num_threads(job["threads"])
        Bench(Path(job["folder"]), job["n_images"]).table(1, job["n_images"])
        print(own_peak())
    else:
        sys.exit(main())
