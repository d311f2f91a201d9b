"""Files of other libraries: whose names they have, what stands beside the vision tower, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from owners_for_tests import clip, dinov2, lively, metas_names, open_clip_model, vits_names
from safetensors.torch import save_file
from torch import Tensor, nn

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.vision.checkpoints import read_checkpoint
from visae.vision.foreign_names import timm_names
from visae.vision.model import VisionModel, load_model, prepare_model
from visae.vision.origins import beside
from visae.vision.owners import Meaning, owner_notices, said_of, set_activation
from visae.vision.weights import created

State = dict[str, Tensor]
CLIP = "vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
DINOV2 = "vit_small_patch14_reg4_dinov2.lvd142m"
TINY = "test_vit.r160_in1k"
SHAPE = {"width": 256, "layers": 10, "heads": 4, "patch": 16}


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def clip_module() -> nn.Module:
    return created(CLIP, 224)


@pytest.fixture(scope="module")
def open_clip_state() -> State:
    return open_clip_model(image_size=224, layers=10, width=256, patch_size=16).state_dict()


@pytest.fixture(scope="module")
def clip_state() -> State:
    return clip("gelu", **SHAPE).state_dict()


def loads(state: State, module: nn.Module) -> State:
    """The state under timm's names, as far as it is a whole model's."""
    found = timm_names(state, module)
    module.load_state_dict(found)
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "clip.model."])
def test_open_clips_vision_tower_is_found_under_any_prefix(
    clip_module: nn.Module, open_clip_state: State, prefix: str
) -> None:
    expected = loads(open_clip_state, clip_module)
    assert torch.equal(
        expected["blocks.3.attn.qkv.weight"], open_clip_state["visual.transformer.resblocks.3.attn.in_proj_weight"]
    )
    assert torch.equal(expected["head.weight"], open_clip_state["visual.proj"].T)
    assert same(timm_names({prefix + name: t for name, t in open_clip_state.items()}, clip_module), expected)


def test_open_clips_vision_tower_alone(clip_module: nn.Module, open_clip_state: State) -> None:
    alone = {name.removeprefix("visual."): t for name, t in open_clip_state.items() if name.startswith("visual.")}
    assert same(timm_names(alone, clip_module), loads(open_clip_state, clip_module))


@pytest.mark.parametrize("prefix", ["", "clip.", "model.clip."])
def test_transformers_clip_is_found_under_any_prefix(clip_module: nn.Module, clip_state: State, prefix: str) -> None:
    expected = loads(clip_state, clip_module)
    start = "vision_model.encoder.layers.3.self_attn."
    parts = torch.cat([clip_state[f"{start}{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(expected["blocks.3.attn.qkv.weight"], parts)
    old = clip_state | {f"{part}.embeddings.position_ids": torch.arange(4) for part in ("text_model", "vision_model")}
    assert same(timm_names({prefix + name: tensor for name, tensor in old.items()}, clip_module), expected)


def test_the_vision_part_of_transformers_clip_alone(clip_module: nn.Module, clip_state: State) -> None:
    """As transformers 5 saves a CLIPVisionModel."""
    start = "vision_model."
    alone = {name.removeprefix(start): tensor for name, tensor in clip_state.items() if name.startswith(start)}
    expected = {name: t for name, t in loads(clip_state, clip_module).items() if not name.startswith("head.")}
    assert same(timm_names(alone, clip_module), expected)


@pytest.fixture(scope="module")
def dinov2_module() -> nn.Module:
    return created(DINOV2, 518)


@pytest.fixture(scope="module")
def metas_state() -> State:
    return metas_names(dinov2())


@pytest.mark.parametrize("blocks", ["{block}", "0.{block}"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "teacher.backbone."])
def test_metas_names_in_chunks_and_in_a_training(
    dinov2_module: nn.Module, metas_state: State, prefix: str, blocks: str
) -> None:
    def named(name: str) -> str:
        if not name.startswith("blocks."):
            return prefix + name
        _, block, inner = name.split(".", maxsplit=2)
        return f"{prefix}blocks.{blocks.format(block=block)}.{inner}"

    expected = loads(metas_state, dinov2_module)
    assert torch.equal(expected["cls_token"], metas_state["cls_token"] + metas_state["pos_embed"][:, :1])
    training = {named(name): tensor for name, tensor in metas_state.items()}
    if prefix:
        training[f"{prefix.removesuffix('backbone.')}dino_head.last_layer.weight"] = torch.zeros(2, 2)
    assert same(timm_names(training, dinov2_module), expected)


def test_transformers_names_of_dinov2_before_version_5(dinov2_module: nn.Module, metas_state: State) -> None:
    swiglu = {"mlp.fc1": "mlp.weights_in", "mlp.fc2": "mlp.weights_out"}
    theirs = dinov2().state_dict()
    for new, old in (("q_proj", "attention.query"), ("k_proj", "attention.key"), ("v_proj", "attention.value")):
        theirs = {name.replace(f"attention.{new}", f"attention.{old}"): tensor for name, tensor in theirs.items()}
    theirs = {name.replace("attention.o_proj", "attention.output.dense"): t for name, t in theirs.items()}
    expected = loads(metas_state, dinov2_module)
    assert same(timm_names({f"dinov2.{name}": tensor for name, tensor in theirs.items()}, dinov2_module), expected)
    for new, old in swiglu.items():
        theirs = {name.replace(new, old): tensor for name, tensor in theirs.items()}
    assert same(timm_names(theirs, dinov2_module), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"adapter.weight": torch.zeros(2)},
            r"1 tensors that visae does not know, such as adapter\.weight",
        ),
        (
            lambda s: s | {f"twin.{name}": t for name, t in s.items()},
            r"several vision towers, under 'twin\.visual\.', 'vis",
        ),
        (
            lambda s: s | {"visual.conv1.weight": torch.zeros(256, 3, 32, 32)},
            r"its patches have 32 x 32 px, and those of this architecture 16 x 16 px",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    clip_module: nn.Module, open_clip_state: State, change: Callable[[State], State], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        timm_names(change(open_clip_state), clip_module)


def test_queries_without_keys_are_refused(clip_module: nn.Module, clip_state: State) -> None:
    gone = "vision_model.encoder.layers.2.self_attn.k_proj.weight"
    with pytest.raises(ModelError, match=r"it has blocks\.2\.attn\.[qv]\.weight and not blocks\.2\.attn\.k\.weight"):
        timm_names({name: tensor for name, tensor in clip_state.items() if name != gone}, clip_module)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> State:
    return lively(created(TINY, 32)).state_dict()


def prepared(folder: Path, weights: Path, architecture: str = TINY, size: int = 32, **settings: Any) -> VisionModel:
    identity = ModelIdentity(architecture=architecture, weights=str(weights), image_size=size, **settings)
    prepare_model(identity, folder / "weights.safetensors", folder / "model.json")
    return load_model(folder / "model.json")


def test_transformers_vit_is_timms(tmp_path: Path, tiny: State) -> None:
    save_file(vits_names(tiny) | {"pooler.dense.weight": torch.zeros(64, 64)}, tmp_path / "model.safetensors")
    model = prepared(tmp_path / "model", tmp_path / "model.safetensors")
    expected = {name: tensor for name, tensor in tiny.items() if not name.startswith("head.")}
    assert same(dict(model.module.state_dict()), expected)


@pytest.mark.parametrize(
    ("content", "member"),
    [
        (lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {}}, "lr_scheduler": None}, ""),
        (lambda s: {"model": s, "model_ema": {"state_dict": s}}, "model_ema"),
        (
            lambda s: {"teacher": {f"module.{n}": t for n, t in s.items()}, "student": {}, "fp16_scaler": None},
            "teacher",
        ),
        (lambda s: {"epoch": 1, "model": {"state_dict": s}}, ""),
        (lambda s: {f"_orig_mod.module.{name}": tensor for name, tensor in s.items()}, ""),
    ],
)
def test_checkpoints_of_trainings(tmp_path: Path, tiny: State, content: Callable[[State], Any], member: str) -> None:
    torch.save(content(tiny), tmp_path / "checkpoint.pt")
    found, said = read_checkpoint(tmp_path / "checkpoint.pt")
    assert same(found, tiny)
    assert said == member


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda s: {"model": s, "hypernetwork": s},
            r"holds model and, beside it, hypernetwork, which visae does not know",
        ),
        (lambda s: {"weights_of_mine": s}, r"holds weights_of_mine, which is no tensor"),
        (lambda s: list(s.values()), r"holds a list, not names and tensors"),
        (lambda _: {}, r"holds nothing"),
    ],
)
def test_unknown_checkpoints_are_refused_by_name(
    tmp_path: Path, tiny: State, content: Callable[[State], Any], message: str
) -> None:
    torch.save(content(tiny), tmp_path / "checkpoint.pt")
    with pytest.raises(ModelError, match=rf"checkpoint\.pt {message}"):
        read_checkpoint(tmp_path / "checkpoint.pt")


def test_the_content_tells_the_format_and_not_the_suffix(tmp_path: Path, tiny: State) -> None:
    save_file(tiny, tmp_path / "model.bin")
    torch.save(tiny, tmp_path / "model.safetensors")
    assert all(same(read_checkpoint(tmp_path / name)[0], tiny) for name in ("model.bin", "model.safetensors"))


def test_a_torchscript_archive_and_a_pointer_say_what_to_do(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "ViT-B-32.pt")
    with pytest.raises(ModelError, match=r"ViT-B-32\.pt .*TorchScript archive.*torch\.jit\.load"):
        read_checkpoint(tmp_path / "ViT-B-32.pt")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match=r"model\.safetensors .*a pointer of Git LFS.*git lfs pull"):
        read_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_width_are_summed_in_float32(
    dinov2_module: nn.Module, metas_state: State, tmp_path: Path, dtype: torch.dtype
) -> None:
    save_file({name: tensor.to(dtype) for name, tensor in metas_state.items()}, tmp_path / "meta.safetensors")
    found = timm_names(read_checkpoint(tmp_path / "meta.safetensors")[0], dinov2_module)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    token, positions = (metas_state[name].to(dtype).float() for name in ("cls_token", "pos_embed"))
    assert torch.equal(found["cls_token"], token + positions[:, :1])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda tensor: tensor.to(torch.int8), r"blocks\.1\.mlp\.fc1\.weight holds torch\.int8, which is quantized"),
        (lambda tensor: tensor * float("nan"), r"blocks\.1\.mlp\.fc1\.weight holds values that are not finite"),
    ],
)
def test_numbers_that_are_no_weights_are_refused(
    tmp_path: Path, tiny: State, value: Callable[[Tensor], Tensor], message: str
) -> None:
    name = "blocks.1.mlp.fc1.weight"
    save_file(tiny | {name: value(tiny[name])}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        prepared(tmp_path / "model", tmp_path / "model.safetensors")


def test_the_head_has_as_many_classes_as_the_file(tmp_path: Path, tiny: State) -> None:
    head = {"head.weight": torch.ones(7, 64), "head.bias": torch.arange(7.0)}
    save_file(tiny | head, tmp_path / "tuned.safetensors")
    model = prepared(tmp_path / "model", tmp_path / "tuned.safetensors")
    assert model.card.n_classes == 7
    assert torch.equal(model.module.head.bias, torch.arange(7.0))


# --- what shapes do not say -----------------------------------------------------------------------


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


def test_other_heads_and_epsilons_are_warned_of(clip_module: nn.Module) -> None:
    assert owner_notices(clip_module, Meaning("gelu", 1e-5, 4, 224)) == []
    notices = owner_notices(clip_module, Meaning("gelu", 1e-6, 8, 336))
    assert [notice.level for notice in notices] == ["warning", "warning", "note"]
    assert "8 attention heads, and this architecture has 4" in notices[0].text
    assert "1e-06 to the variance, and this architecture adds 1e-05" in notices[1].text
    assert "for pictures of 336 px, and this model sees 224 px" in notices[2].text


@pytest.mark.slow
def test_the_owners_activation_function_is_warned_of_and_set(tmp_path: Path) -> None:
    theirs = clip("quick_gelu", **SHAPE)
    theirs.save_pretrained(tmp_path / "owner")
    weights = tmp_path / "owner" / "model.safetensors"
    other, same_function = (
        prepared(tmp_path / str(name), weights, CLIP, 224, activation_function=name) for name in (None, "quick_gelu")
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


def test_arguments_of_an_architecture_that_are_not_applied_are_warned_of(tmp_path: Path, tiny: State) -> None:
    save_file(tiny, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"architecture": "test_vit", "model_args": {"act_layer": "relu"}}')
    texts = [notice.text for notice in beside(str(tmp_path / "model.safetensors")).notices]
    assert any("changes its architecture by act_layer: relu: not applied here" in text for text in texts)
