"""What files beside weights say that shapes do not: activation functions, heads, epsilons, arguments."""

from pathlib import Path

import pytest
import torch
from owners_for_tests import TINY_CLIP, TINY_CLIP_SHAPE, clip, prepared
from safetensors.torch import save_file

from visae.errors import ModelError
from visae.vision.origins import beside
from visae.vision.owners import Meaning, owner_notices, said_of, set_activation
from visae.vision.weights import created


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "clip", "vision_config": {}}, Meaning("quick_gelu", 1e-5, 12, 224)),
        ({"model_type": "siglip", "vision_config": {"image_size": 256}}, Meaning("gelu_tanh", 1e-6, 12, 256)),
        ({"model_type": "siglip_vision_model", "hidden_act": "gelu"}, Meaning("gelu", 1e-6, 12, 224)),
        ({"model_type": "dinov2_with_registers", "image_size": 518}, Meaning("gelu", 1e-6, 12, 518)),
        ({"model_type": "dinov2", "use_swiglu_ffn": True, "hidden_act": "gelu"}, Meaning("silu", 1e-6, 12, 224)),
        ({"model_type": "vit"}, Meaning("gelu", 1e-12, 12, 224)),
        ({"architecture": "vit_base_patch16_224", "num_classes": 10}, Meaning()),
    ],
)
def test_defaults_that_transformers_leaves_out_are_known(config: dict, expected: Meaning) -> None:
    assert said_of(config, None) == expected


def test_the_known_defaults_are_those_of_transformers() -> None:
    import transformers

    for kind in ("CLIPVision", "SiglipVision", "Dinov2", "Dinov2WithRegisters", "ViT"):
        config = getattr(transformers, f"{kind}Config")()
        said = said_of({"model_type": config.model_type}, None)
        acts = {"gelu_pytorch_tanh": "gelu_tanh"}
        assert said.activation == acts.get(config.hidden_act, config.hidden_act)
        assert (said.epsilon, said.heads, said.image_size) == (
            config.layer_norm_eps,
            config.num_attention_heads,
            config.image_size,
        )


@pytest.mark.parametrize(
    ("clip_config", "expected"),
    [
        ({"vision_cfg": {"width": 768, "image_size": 224}, "quick_gelu": True}, Meaning("quick_gelu", 1e-5, 12, 224)),
        ({"vision_cfg": {"width": 1280, "head_width": 80, "image_size": [224, 224]}}, Meaning("gelu", 1e-5, 16, 224)),
        (
            {"vision_cfg": {"width": 64, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6}}},
            Meaning("gelu_tanh", 1e-6, 1, None),
        ),
        ({"vision_cfg": {"timm_model_name": "vit_base_patch16_siglip_224"}}, Meaning()),
    ],
)
def test_what_open_clip_says(clip_config: dict, expected: Meaning) -> None:
    assert said_of(None, {"model_cfg": clip_config}) == expected


def test_other_heads_and_epsilons_are_warned_of() -> None:
    module = created(TINY_CLIP, 224)
    assert owner_notices(module, Meaning("gelu", 1e-5, 4, 224)) == []
    notices = owner_notices(module, Meaning("gelu", 1e-6, 8, 336))
    assert [notice.level for notice in notices] == ["warning", "warning", "note"]
    assert "8 attention heads, and this architecture has 4" in notices[0].text
    assert "1e-06 to the variance, and this architecture adds 1e-05" in notices[1].text
    assert "for pictures of 336 px, and this model sees 224 px" in notices[2].text


@pytest.mark.slow
def test_the_owners_activation_function_is_warned_of_and_set(tmp_path: Path) -> None:
    theirs = clip("quick_gelu", **TINY_CLIP_SHAPE)
    theirs.save_pretrained(tmp_path / "owner")
    weights = tmp_path / "owner" / "model.safetensors"
    other, same_function = (
        prepared(tmp_path / str(name), TINY_CLIP, weights, image_size=224, activation_function=name)
        for name in (None, "quick_gelu")
    )
    said = [notice.text for notice in other.card.notices if "activation_function: quick_gelu" in notice.text]
    assert len(said) == 1
    assert not [notice for notice in same_function.card.notices if "activation_function" in notice.text]
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs.get_image_features(pixel_values=same_function.normalized(images)).pooler_output
    assert (same_function.logits(same_function(images)) - expected).abs().max() < 1e-4
    assert (other.logits(other(images)) - expected).abs().max() > 1e-2


def test_an_activation_function_needs_mlps() -> None:
    with pytest.raises(ModelError, match=r"activation_function: quick_gelu: ResNet has no blocks"):
        set_activation(created("resnet18", 32), "quick_gelu")


def test_arguments_of_an_architecture_that_are_not_applied_are_warned_of(tmp_path: Path) -> None:
    save_file(created("test_vit.r160_in1k", 32).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "test_vit", "model_args": {"act_layer": "relu"}}')
    texts = [notice.text for notice in beside(str(tmp_path / "model.safetensors")).notices]
    assert any("changes its architecture by act_layer: relu: not applied here" in text for text in texts)
