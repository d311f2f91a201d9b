"""What a dump on each device holds, beside the model's own float32 activations on the CPU."""

from pathlib import Path

import pytest
import torch

from visae.activations.extract import StoreSource, extract_shard, publish_store
from visae.activations.store import ActivationStore
from visae.config.settings import ModelSettings, ScenesSettings
from visae.data.images import pixels
from visae.data.index import build_index, read_index
from visae.vision.model import HookPoint, load_model, prepare_model

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LAYER = 5


def model_of(folder: Path, precision: str) -> tuple[ModelSettings, Path]:
    settings = ModelSettings(
        architecture="vit_tiny_patch16_224",
        weights="random",
        image_size=64,
        batch_size=4,
        workers=0,
        precision=precision,
    )
    card = folder / precision / "model.json"
    prepare_model(settings.identity(), card.with_name("weights.safetensors"), card)
    return settings, card


@pytest.mark.parametrize("device", DEVICES)
# Stored in 11 bits; GPUs round the factors of a convolution to as many (TF32), and bfloat16 has 8.
@pytest.mark.parametrize(("precision", "close"), [("float32", 5e-3), ("bfloat16", 5e-2)])
def test_a_dump_holds_the_models_activations(device: str, precision: str, close: float, tmp_path: Path) -> None:
    index = tmp_path / "index.parquet"
    build_index(ScenesSettings(kind="scenes", train=6, val=2, test=2, image_size=64), index)
    settings, card = model_of(tmp_path, precision)
    folder = tmp_path / f"layer{LAYER}"
    source = StoreSource(index, card, 1)
    extract_shard(settings, source, 0, str(LAYER), [], folder / "receipt-0.json", device=device)
    publish_store(settings, source, str(LAYER), folder / "manifest.json", device=device)
    found = ActivationStore.open(folder / "manifest.json").read(range(10), "all").float()

    model = load_model(model_of(tmp_path, "float32")[1])
    pictures = torch.stack([pixels(path, model.card) for path in read_index(index)["path"]])
    expected = model.read(pictures, [HookPoint(LAYER)])[HookPoint(LAYER)]
    assert found.shape == expected.shape
    off = (found - expected).norm() / expected.norm()
    assert float(off) < close
    if precision == "bfloat16":
        assert float(off) > 5e-4  # it is bfloat16 that ran
