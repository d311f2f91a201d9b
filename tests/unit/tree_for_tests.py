"""A whole tree of results of the real parts: made pictures, a small ViT and an SAE with random weights.

Names are those of the demo, so that what the docs say works on it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from visae.activations.given import write_store
from visae.config.settings import FeatureSettings, ModelSettings, ScenesSettings
from visae.data.images import pixels
from visae.data.index import build_index, read_index
from visae.data.patch_labels import write_patch_labels
from visae.features.encoding import encode_store
from visae.features.exemplars import write_exemplars
from visae.features.scores import write_scores
from visae.features.statistics import write_statistics
from visae.sae.autoencoder import SparseAutoencoder, save_sae
from visae.sae.topk import TopK
from visae.vision.hook_points import HookPoint
from visae.vision.model import load_model, prepare_model

SIZE, GRID, WIDTH, LAYER = 64, (4, 4), 24, 10
FEATURES = "features/scenes/dinov2-small/layer10/topk/scenes"


def make_tree(results: Path, width: int = WIDTH) -> Path:
    """Write everything below `results`, and return the folder of the features."""
    index, card = results / "datasets/scenes/index.parquet", results / "models/dinov2-small/model.json"
    build_index(ScenesSettings(kind="scenes", train=12, val=8, test=8, image_size=SIZE), index)
    settings = ModelSettings(architecture="vit_tiny_patch16_224", weights="random", image_size=SIZE)
    prepare_model(settings, card.with_name("weights.safetensors"), card)
    model = load_model(card)
    pictures = torch.stack([pixels(path, model.card) for path in read_index(index)["path"]])
    tokens = model.read(pictures, [HookPoint(LAYER)])[HookPoint(LAYER)]
    store = write_store(
        results / "activations", tokens.numpy(), model.card.tokens(LAYER), {"train": 12, "val": 8, "test": 8}
    )

    torch.manual_seed(0)
    sae = SparseAutoencoder(tokens.shape[-1], width, TopK(4))
    patches = tokens[:, model.card.n_prefix :].flatten(0, 1)
    directions = torch.nn.functional.normalize(torch.randn(width, tokens.shape[-1]))
    state = sae.state_dict() | {"encoder_weight": directions, "decoder_weight": directions}
    sae.load_state_dict(state | {"mean": patches.mean(dim=0), "scale": patches.std()})
    config = save_sae(sae, results / "saes/scenes/dinov2-small/layer10/topk")

    folder = results / FEATURES
    encode_store(store, config, folder / "codes", "cpu")
    codes, labels = (
        folder / "codes/manifest.json",
        results / "datasets/scenes/patch-labels-dinov2-small-layer10.parquet",
    )
    write_patch_labels(index, card, LAYER, labels)
    write_statistics(codes, config, index, folder / "stats.parquet", FeatureSettings())
    write_exemplars(codes, index, folder / "exemplars.parquet", FeatureSettings())
    write_scores(codes, labels, index, folder / "scores.parquet", FeatureSettings(min_purity=0.5))
    return folder
