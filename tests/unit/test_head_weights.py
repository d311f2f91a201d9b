"""Weights of heads: files that are cut, of another head or of another version are refused by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

from visae.config.settings import ModelSettings
from visae.errors import ModelError
from visae.heads.probe import load_probe
from visae.heads.segmentation_head import load_segmentation_head
from visae.vision.model import prepare_model

CLASSES = [{"id": 1, "name": "sky"}, {"id": 2, "name": "road"}, {"id": 3, "name": "car"}]


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    settings = ModelSettings(architecture="test_vit", weights="random", image_size=64)
    return prepare_model(settings, folder / "weights.safetensors", folder / "model.json")


def written(folder, card, **changed):
    """Files of a head over the model's mean patch or patches; None takes a tensor out."""
    origin = {"architecture": card.architecture, "weights_sha256": card.weights_sha256, "image_size": card.image_size}
    metrics = {"classes": CLASSES, "n_prefix": card.n_prefix, "grid": list(card.grid), "pooling": "mean", **origin}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    tensors = {"weight": torch.randn(3, card.d_final), "bias": torch.zeros(3), **changed}
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / "weights.safetensors")
    return folder / "metrics.json"


@pytest.mark.parametrize("load", [load_probe, load_segmentation_head])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gate": torch.zeros(3)}, "has: gate; what they do would be left out"),
        ({"bias": None}, "'bias' is missing for"),
        ({"hidden.bias": torch.zeros(3)}, "hidden"),
        ({"bias": torch.zeros(4)}, r"bias has shape \[4\] where \[3\] belongs"),
        ({"weight": torch.zeros(4, 64), "bias": torch.zeros(4)}, r"weight has shape \[4, 64\] where \[3, 64\] belongs"),
        ({"weight": torch.full((3, 64), torch.nan)}, "weight: 192 of 192 values are NaN or infinite"),
        ({"weight": torch.zeros(3, 64, dtype=torch.int8)}, "weight has dtype int8; allowed: float32"),
    ],
    ids=str,
)
def test_tensors_that_a_head_has_not_are_refused_by_name(load, changed, message, card, tmp_path):
    metrics = written(tmp_path, card, **changed)
    with pytest.raises(ModelError, match=rf"weights\.safetensors: .*{message}"):
        load(metrics, card)


@pytest.mark.parametrize("load", [load_probe, load_segmentation_head])
def test_whole_files_are_read_and_cut_ones_are_named(load, card, tmp_path):
    metrics = written(tmp_path, card)
    assert load(metrics, card).weight.shape == (3, card.d_final)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ModelError, match=r"weights\.safetensors: damaged, or no safetensors file"):
        load(metrics, card)
    weights.unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors: no such file"):
        load(metrics, card)
