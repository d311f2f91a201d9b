"""Files of other libraries: whose names they have, what stands beside the vision tower, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from owners_for_tests import (
    TINY_CLIP,
    TINY_CLIP_SHAPE,
    clip,
    dinov2,
    lively,
    metas_names,
    open_clip_model,
    prepared,
    vits_names,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from visae.errors import ModelError
from visae.vision.checkpoints import read_checkpoint
from visae.vision.foreign_names import timm_names
from visae.vision.weights import created

State = dict[str, Tensor]
DINOV2 = "vit_small_patch14_reg4_dinov2.lvd142m"
TINY = "test_vit.r160_in1k"


def same(found: State, expected: State) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def clip_module() -> nn.Module:
    return created(TINY_CLIP, 224)


@pytest.fixture(scope="module")
def open_clip_state() -> State:
    return open_clip_model(image_size=224, layers=10, width=256, patch_size=16).state_dict()


@pytest.fixture(scope="module")
def clip_state() -> State:
    return clip("gelu", **TINY_CLIP_SHAPE).state_dict()


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


def test_transformers_vit_is_timms(tmp_path: Path, tiny: State) -> None:
    save_file(vits_names(tiny) | {"pooler.dense.weight": torch.zeros(64, 64)}, tmp_path / "model.safetensors")
    model = prepared(tmp_path / "model", TINY, tmp_path / "model.safetensors", image_size=32)
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
        (lambda s: {"encoder": {n: -t for n, t in s.items()}, "target_encoder": s, "predictor": {}}, "target_encoder"),
        (
            lambda s: {"state_dict": s, "optimizer_states": [], "hparams_type": None, "pytorch-lightning_version": "2"},
            "",
        ),
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
        (
            lambda s: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in s.items()},
            r"holds cls_token as torch\.float8_e4m3fn, which is quantized",
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
        prepared(tmp_path / "model", TINY, tmp_path / "model.safetensors", image_size=32)


def test_the_head_has_as_many_classes_as_the_file(tmp_path: Path, tiny: State) -> None:
    head = {"head.weight": torch.ones(7, 64), "head.bias": torch.arange(7.0)}
    save_file(tiny | head, tmp_path / "tuned.safetensors")
    model = prepared(tmp_path / "model", TINY, tmp_path / "tuned.safetensors", image_size=32)
    assert model.card.n_classes == 7
    assert torch.equal(model.module.head.bias, torch.arange(7.0))
