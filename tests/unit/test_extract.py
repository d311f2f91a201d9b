"""Reading activations into shards with a real (small, random) ViT: rows, resuming, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visae.activations.extract import extract_shard, publish_store
from visae.activations.schema import shard_name
from visae.activations.store import ActivationStore
from visae.config.settings import ModelSettings, ScenesSettings
from visae.data.images import pixels
from visae.data.index import build_index, read_index
from visae.errors import ModelError, StoreError
from visae.files import read_json
from visae.vision.model import HookPoint, load_model, prepare_model

MODEL = ModelSettings(architecture="vit_tiny_patch16_224", weights="random", image_size=64, batch_size=8)
SHARDS = 3


class Made:
    """An index of made pictures and a model."""

    kept: int | None = None

    def __init__(self, folder: Path) -> None:
        self.index = folder / "datasets" / "index.parquet"
        self.card = folder / "model" / "model.json"
        self.root = folder / "activations"
        build_index(ScenesSettings(kind="scenes", train=16, val=8, test=8, image_size=64), self.index)
        prepare_model(MODEL.identity(), self.card.with_name("weights.safetensors"), self.card)

    def extract(self, layers: list[int], shard: int, settings: ModelSettings = MODEL) -> Path:
        receipt = self.root / f"layer{layers[0]}" / f"receipt-{shard}.json"
        names = [str(layer) for layer in layers]
        extract_shard(
            settings, shard, SHARDS, names[0], names[1:], self.index, self.card, receipt, self.kept, device="cpu"
        )
        return receipt

    def publish(self, layer: int) -> ActivationStore:
        manifest = self.root / f"layer{layer}" / "manifest.json"
        publish_store(MODEL, str(layer), SHARDS, self.index, self.card, manifest, self.kept, device="cpu")
        return ActivationStore.open(manifest)

    def shard(self, layer: int, shard: int) -> Path:
        return self.root / f"layer{layer}" / shard_name(shard)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("extract"))
    for shard in range(SHARDS):
        made.extract([3, 11], shard)
    return made


def test_rows_are_the_models_tokens(made: Made) -> None:
    model = load_model(made.card)
    pictures = read_index(made.index)["path"].to_list()
    batch = torch.stack([pixels(pictures[i], model.card) for i in (0, 10, 11, 31)])
    for point, expected in model.read(batch, [HookPoint(3), HookPoint(11)]).items():
        store = made.publish(point.layer)
        assert store.splits == {"train": range(16), "val": range(16, 24), "test": range(24, 32)}
        assert store.choice.tokens == (-1, *range(16))
        found = torch.cat([store.read(range(i, i + 1), "all") for i in (0, 10, 11, 31)])
        # float16 keeps 11 bits: half a unit in the last place is a relative 2^-11; batches of another size sum
        # in another order, about 1e-5.
        assert torch.allclose(found, expected, rtol=2**-11, atol=1e-4)


def test_a_new_layer_leaves_the_old_ones_untouched(made: Made) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in made.root.glob("layer*/*.parquet")}
    receipt = made.extract([5, 3, 11], 1)
    assert read_json(receipt)["n_images"] == 11
    assert all((path.stat().st_mtime_ns, path.read_bytes()) == kept for path, kept in before.items())
    assert made.shard(5, 1).is_file()


def test_a_dump_goes_on_at_its_first_missing_shard(made: Made, tmp_path: Path) -> None:
    copy = Made.__new__(Made)
    copy.index, copy.card, copy.root = made.index, made.card, tmp_path
    copy.extract([3], 0)
    kept = copy.shard(3, 0).stat().st_mtime_ns
    with pytest.raises(StoreError, match=r"layer3/shard-00001\.parquet is missing or was made from other"):
        copy.publish(3)
    for shard in range(SHARDS):
        copy.extract([3], shard)
    assert copy.shard(3, 0).stat().st_mtime_ns == kept
    whole, again = made.publish(3).read(range(32), "all"), copy.publish(3).read(range(32), "all")
    assert np.array_equal(whole.numpy(), again.numpy())


def test_another_dtype_is_another_store(made: Made, tmp_path: Path) -> None:
    copy = Made.__new__(Made)
    copy.index, copy.card, copy.root = made.index, made.card, tmp_path
    for shard in range(SHARDS):
        copy.extract([3], shard, ModelSettings(**{**vars(MODEL), "dtype": "float32"}))
    with pytest.raises(StoreError, match="made from other pictures, weights or settings"):
        copy.publish(3)


def test_a_layer_that_is_not_there_is_refused_before_any_work(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 12 blocks, so layers go from 0 to 11"):
        extract_shard(MODEL, 0, 1, "3", ["12"], made.index, made.card, tmp_path / "layer3" / "receipt-0.json")
    assert list(tmp_path.iterdir()) == []
