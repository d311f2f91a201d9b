"""Reading activations into shards with a real (small, random) ViT: rows, resuming, what is refused."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from visae.activations.check import check_store
from visae.activations.extract import StoreSource, extract_shard, publish_store
from visae.activations.schema import shard_name
from visae.activations.store import ActivationStore, scan
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

    @property
    def source(self) -> StoreSource:
        return StoreSource(self.index, self.card, SHARDS, self.kept)

    def extract(self, layers: list[int], shard: int, settings: ModelSettings = MODEL) -> Path:
        receipt = self.root / f"layer{layers[0]}" / f"receipt-{shard}.json"
        names = [str(layer) for layer in layers]
        extract_shard(settings, self.source, shard, names[0], names[1:], receipt, device="cpu")
        return receipt

    def publish(self, layer: int) -> ActivationStore:
        manifest = self.root / f"layer{layer}" / "manifest.json"
        publish_store(MODEL, self.source, str(layer), manifest, device="cpu")
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
        extract_shard(MODEL, made.source, 0, "3", ["12"], tmp_path / "layer3" / "receipt-0.json")
    assert list(tmp_path.iterdir()) == []


def another(made: Made, folder: Path, **options: object) -> Made:
    """Extract the same pictures elsewhere."""
    copy = Made.__new__(Made)
    copy.index, copy.card, copy.root = made.index, made.card, folder
    for name, value in options.items():
        setattr(copy, name, value)
    return copy


def test_part_of_each_pictures_patches_can_be_kept(made: Made, tmp_path: Path) -> None:
    whole = made.publish(3)
    copy = another(made, tmp_path, kept=5)
    for shard in range(SHARDS):
        copy.extract([3, 11], shard)
    part, later = copy.publish(3), copy.publish(11)
    assert (part.choice.n_rows, part.n_tokens("patches"), part.n_tokens("all")) == (6, 5, 6)
    ids = part.token_ids(range(32))
    assert ids.shape == (32, 5)
    assert (np.diff(ids, axis=1) > 0).all()
    assert len({tuple(row) for row in ids.tolist()}) > 20
    # A fair draw: each of 16 patches is kept 10 times in 32 on average, with a standard deviation of 2.6.
    assert np.bincount(ids.ravel(), minlength=16).max() <= 19
    assert np.array_equal(later.token_ids(range(32)), ids)
    expected = whole.read(range(32), "all")
    positions = torch.from_numpy(np.concatenate([np.zeros((32, 1), np.int64), ids + 1], axis=1))
    assert torch.equal(part.read(range(32), "all"), expected.take_along_dim(positions.unsqueeze(2), 1))
    frame = scan(tmp_path / "layer3" / "manifest.json").collect()
    assert frame["token"].to_numpy().reshape(32, 6)[:, 1:].tolist() == ids.tolist()


def test_a_bad_activation_names_the_picture(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(made.card.parent, folder)
    state = load_file(folder / "weights.safetensors")
    state["blocks.3.mlp.fc2.bias"] += 1e6  # more than float16 holds
    save_file(state, folder / "weights.safetensors")
    copy = another(made, tmp_path / "activations", card=folder / "model.json")
    first = read_index(made.index)["path"][10]
    with pytest.raises(StoreError, match=rf"image_id 10 \({first}\) has NaN or infinite activations at layer 3 as"):
        copy.extract([3, 11], 1)
    assert not list(copy.root.rglob("*.parquet*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with room for two pictures' activations."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_refused_before_any_work(made: Made, small_disk: Path) -> None:
    with pytest.raises(StoreError, match=r"0\.1 MB of activations are to be written and 0\.0 MB are free; free some"):
        another(made, small_disk).extract([3], 0)
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_bfloat16_is_close_and_says_so(made: Made, tmp_path: Path) -> None:
    settings = ModelSettings(**{**vars(MODEL), "precision": "bfloat16", "dtype": "bfloat16"})
    card = tmp_path / "model" / "model.json"
    prepare_model(settings.identity(), card.with_name("weights.safetensors"), card)
    copy = another(made, tmp_path / "activations", card=card)
    for shard in range(SHARDS):
        copy.extract([3], shard, settings)
    publish_store(settings, copy.source, "3", copy.root / "layer3" / "manifest.json", device="cpu")
    store = ActivationStore.open(copy.root / "layer3" / "manifest.json")
    assert (store.dtype, store.manifest["model"]["precision"]) == ("bfloat16", "bfloat16")
    expected, found = made.publish(3).read(range(32), "all"), store.read(range(32), "all")
    assert not torch.equal(found, expected)
    # bfloat16 keeps 8 bits; four blocks of rounding add up to a few parts in a thousand of the norm.
    assert (found - expected).norm() / expected.norm() < 0.02


KILLED = """
import sys, time
from pathlib import Path
from visae.activations import extract
from visae.activations.writer import ShardWriter
added = ShardWriter.add
def slow(self, activations):
    added(self, activations)
    print("written", flush=True)
    time.sleep(30)
ShardWriter.add = slow
from tests.unit.test_extract import MODEL
index, card, receipt = map(Path, sys.argv[1:])
extract.extract_shard(MODEL, extract.StoreSource(index, card, 1), 0, "3", ["5"], receipt, device="cpu")
"""


def test_a_killed_dump_leaves_no_shard_and_goes_on(made: Made, tmp_path: Path) -> None:
    receipt = tmp_path / "layer3" / "receipt-0.json"
    command = [sys.executable, "-c", KILLED, str(made.index), str(made.card), str(receipt)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"written\n"
        job.send_signal(signal.SIGKILL)
    assert not receipt.exists()
    assert not list(tmp_path.rglob("shard-*.parquet"))
    for layer in (3, 5):
        source, folder = StoreSource(made.index, made.card, 1), tmp_path / f"layer{layer}"
        extract_shard(MODEL, source, 0, str(layer), ["3", "5"], folder / "receipt-0.json", device="cpu")
        publish_store(MODEL, source, str(layer), folder / "manifest.json", device="cpu")
        assert check_store(tmp_path / f"layer{layer}") == []
    found = ActivationStore.open(tmp_path / "layer3" / "manifest.json").read(range(32), "all")
    # Cut into other shards, batches hold other pictures and sum in another order, then rounded to float16.
    assert torch.allclose(found, made.publish(3).read(range(32), "all"), rtol=2**-10, atol=1e-4)
