"""The embedded DINOv2 against the ONNX graph that it came from, and reading and resuming on a small random ViT."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.vision import embedded
from visae.vision.model import HookPoint, VisionModel, load_model, prepare_model

TINY = ModelIdentity(architecture="vit_tiny_patch16_224", weights="random", image_size=64)
# tanh-approximated or fused kernels aside, both sides are the same float32 sums in another order.
SAME_SUMS = 1e-5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    folder = tmp_path_factory.mktemp("tiny")
    prepare_model(TINY, folder / "weights.safetensors", folder / "model.json", seed=1)
    return load_model(folder / "model.json")


def pictures(n: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_layers_are_what_hooks_see(tiny: VisionModel) -> None:
    seen = {}
    for index in (0, 5, 11):
        tiny.module.blocks[index].register_forward_hook(lambda _m, _i, out, index=index: seen.update({index: out}))
    whole = tiny(pictures(3, 64))
    read = tiny.read(pictures(3, 64), [HookPoint(layer) for layer in (0, 5, 11)])
    assert whole.shape == (3, 17, 192)
    for point, tokens in read.items():
        assert torch.equal(tokens, seen[point.layer])


@pytest.mark.parametrize("layer", [0, 5, 10, 11])
def test_resuming_gives_what_the_whole_pass_gives(tiny: VisionModel, layer: int) -> None:
    images = pictures(3, 64)
    resumed = tiny.resume(tiny.read(images, [HookPoint(layer)])[HookPoint(layer)], after=layer)
    assert (resumed - tiny(images)).abs().max() < SAME_SUMS


def test_the_card_says_what_the_model_is(tiny: VisionModel) -> None:
    card = tiny.card
    assert (card.depth, card.layers[3].d_model, card.grid, card.n_prefix) == (12, 192, (4, 4), 1)
    assert card.tokens(3) == [-1, *range(16)]


def test_a_layer_that_is_not_there_is_named(tiny: VisionModel) -> None:
    with pytest.raises(ModelError, match=r"studies: layer: 12: vit_tiny_patch16_224 has 12 blocks, .* from 0 to 11"):
        tiny.card.check(HookPoint(12), "studies: layer")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModelIdentity(architecture="vit_tinny"), "architecture: vit_tinny"),
        (
            ModelIdentity(architecture="vit_tiny_patch16_224", weights="/no/such.safetensors"),
            "neither hub, hub:…, embedded",
        ),
        (ModelIdentity(architecture="vit_tiny_patch16_224", weights="embedded"), "embedded holds vit_small_patch14"),
    ],
)
def test_a_model_that_cannot_be_had_is_named(tmp_path: Path, settings: ModelIdentity, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        prepare_model(settings, tmp_path / "weights.safetensors", tmp_path / "model.json")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    folder = tmp_path_factory.mktemp("dinov2")
    settings = ModelIdentity(architecture="vit_small_patch14_dinov2", weights="embedded")
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
    return load_model(folder / "model.json")


def test_embedded_dinov2_gives_what_its_onnx_graph_gives(dinov2: VisionModel) -> None:
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(embedded.download_graph())
    name = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = pictures(2, 224)
    normalized = dinov2.normalized(images).numpy()
    theirs = np.concatenate([session.run([name], {"input_image": normalized[i : i + 1]})[0] for i in range(2)])
    # Tokens after the final norm reach about 10: 1e-4 is float32 rounding over twelve blocks.
    assert np.abs(theirs - dinov2(images).numpy()).max() < 1e-4


def test_embedded_dinov2_resumes_from_the_second_to_last_block(dinov2: VisionModel) -> None:
    images = pictures(2, 224)
    tokens = dinov2.read(images, [HookPoint(10)])[HookPoint(10)]
    assert (dinov2.resume(tokens, after=10) - dinov2(images)).abs().max() < SAME_SUMS
