"""Class vectors beside a model's own projection: CLIP-like, random weights, the truth planted."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from tasks_for_tests import CPU, save_rows

from visae.activations.extract import StoreSource, extract_shard, publish_store
from visae.activations.store import ActivationStore
from visae.config.settings import ModelSettings, ScenesSettings
from visae.data.index import build_index, read_classes, read_index
from visae.errors import DataError, ModelError, StoreError
from visae.tasks.files import TaskFiles
from visae.tasks.members import open_task
from visae.tasks.zero_shot import ZeroShot
from visae.vision.model import load_model, prepare_model

# The smallest of timm's models that were trained beside texts; its head projects to 512.
CLIP = ModelSettings(architecture="vit_pe_core_tiny_patch16_384.fb", weights="random", image_size=64, workers=0)
# No projection: its pooled features are what class vectors stand beside.
PLAIN = ModelSettings(architecture="vit_small_patch14_dinov2", weights="random", image_size=56, workers=0)
LAYER = 3


class Scenes:
    """A store of made pictures, and class vectors that are the projected means of train's pictures of each class."""

    def __init__(self, folder, settings: ModelSettings) -> None:
        self.folder = folder
        index, card = folder / "data" / "index.parquet", folder / "model" / "model.json"
        build_index(ScenesSettings(kind="scenes", train=24, val=12, test=1, image_size=64), index)
        prepare_model(settings.identity(), card.with_name("weights.safetensors"), card)
        manifest = folder / f"layer{LAYER}" / "manifest.json"
        receipt = manifest.with_name("receipt-0.json")
        source = StoreSource(index, card, 1)
        extract_shard(settings, source, 0, str(LAYER), [], receipt, device="cpu")
        publish_store(settings, source, str(LAYER), manifest, device="cpu")
        self.model = load_model(card, CPU)
        self.names = list(read_classes(index).values())[:-1]  # no picture is of class background
        self.labels = np.array(read_index(index)["label_name"].to_list())
        self.files = TaskFiles(manifest=str(manifest), readout="", index=str(index), card=str(card))
        self.projected = self._projected()
        own = [self.projected[self.labels == name].mean(dim=0) for name in self.names]
        self.vectors = torch.stack(own) - self.projected.mean(dim=0)

    @torch.inference_mode()
    def _projected(self) -> torch.Tensor:
        store = ActivationStore.open(self.files.manifest)
        return self.model.logits(self.model.resume(store.read(range(store.n_images), "all"), LAYER))

    def opened(self, vectors: torch.Tensor | None = None, names: list[str] | None = None, layer=LAYER, **metadata: str):
        path = self.folder / "vectors.safetensors"
        rows = self.vectors if vectors is None else vectors
        files = dataclasses.replace(
            self.files, readout=save_rows(path, "vectors", rows, names or self.names, **metadata)
        )
        return open_task("zero_shot", files, self.model, layer, CPU)


@pytest.fixture(scope="module", params=["clip", "plain"])
def scenes(request, tmp_path_factory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp(request.param), CLIP if request.param == "clip" else PLAIN)


def test_logits_are_scaled_cosines_with_the_models_own_projection(scenes):
    task = scenes.opened(logit_scale="20", architecture=scenes.model.card.architecture)
    assert isinstance(task, ZeroShot)
    assert [c["name"] for c in task.classes] == scenes.names
    ids, tokens = next(task.batches(range(30)))
    cosines = torch.nn.functional.cosine_similarity(scenes.projected[ids][:, None], scenes.vectors[None], dim=2)
    assert torch.allclose(task.logits(tokens), 20 * cosines, atol=1e-3)
    assert torch.allclose(task.read(tokens).sum(dim=1), torch.ones(30))
    assert scenes.opened().scale == 100


def test_no_class_is_nearer_to_a_picture_than_the_one_whose_vector_it_is(scenes):
    task = scenes.opened()
    task.vectors = torch.nn.functional.normalize(scenes.projected[: len(scenes.names)], dim=1)
    _, tokens = next(task.batches(range(len(scenes.names))))
    logits = task.logits(tokens)
    # Of a network with random weights pictures differ little; 100 times a cosine has five digits.
    assert torch.allclose(logits.max(dim=1).values, logits.diag(), atol=1e-4)
    assert torch.allclose(logits.diag(), torch.tensor(100.0), atol=1e-3)


def test_class_vectors_of_another_projection_are_refused(scenes):
    width = scenes.vectors.shape[1]
    said = rf"vectors of {width + 1} values, but {scenes.model.card.architecture} projects pictures to {width}"
    with pytest.raises(ModelError, match=said):
        scenes.opened(torch.randn(len(scenes.names), width + 1))


def test_class_vectors_of_another_architecture_are_refused(scenes):
    with pytest.raises(ModelError, match=f"class vectors of RN50, not of {scenes.model.card.architecture}"):
        scenes.opened(architecture="RN50")


def test_names_that_are_not_the_data_sets_are_refused(scenes):
    with pytest.raises(DataError, match=r"vectors.safetensors: no class 'zebra' in .*index.parquet, which has "):
        scenes.opened(names=[*scenes.names[1:], "zebra"])


def test_a_scale_that_is_no_number_is_refused(scenes):
    for scale in ("warm", "nan", "-3", "0"):
        with pytest.raises(DataError, match=rf"logit_scale: '{scale}': write a number above 0"):
            scenes.opened(logit_scale=scale)


def test_vectors_without_a_direction_are_refused(scenes):
    with pytest.raises(DataError, match=r"vectors: row 0 is zero, and has no direction"):
        scenes.opened(torch.zeros_like(scenes.vectors))


def test_one_class_alone_is_refused(scenes):
    with pytest.raises(DataError, match=r"one class alone"):
        scenes.opened(scenes.vectors[:1], scenes.names[:1])


def test_a_store_of_another_layer_is_refused(scenes):
    with pytest.raises(StoreError, match=f"tokens of layer {LAYER}, but those of layer {LAYER + 1} are needed"):
        scenes.opened(layer=LAYER + 1)


def test_pictures_of_classes_without_a_vector_are_others(scenes):
    task = scenes.opened(scenes.vectors[:3], scenes.names[:3])
    task.look(range(24, 36))
    assert (len(task.measured), len(task.classes)) == (12, 3)
    assert set(task.known) - set(task.numbers)


def test_a_file_that_is_no_safetensors_is_refused(scenes):
    path = scenes.folder / "text.safetensors"
    path.write_text(json.dumps({"vectors": [[1.0]]}))
    with pytest.raises(DataError, match=r"text.safetensors: it cannot be read as safetensors with names"):
        open_task("zero_shot", dataclasses.replace(scenes.files, readout=str(path)), scenes.model, LAYER, CPU)
    with pytest.raises(DataError, match=r"cannot be read"):
        open_task("zero_shot", dataclasses.replace(scenes.files, readout=str(path) + "x"), scenes.model, LAYER, CPU)
