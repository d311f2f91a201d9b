"""What a model assumes of pictures and of its activation function: whose word counts, and what is said of it."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub_for_tests import only_this_hub, served
from PIL import Image
from safetensors.torch import save_file
from transforms_for_tests import CLIP_MEAN, CLIP_PROCESSOR, HALF, OPEN_CLIP, SIGLIP, VIT

from visae.config.parse import parse_config
from visae.config.settings import ModelIdentity
from visae.data.images import pixels
from visae.errors import ConfigError, ModelError
from visae.notices import Notice
from visae.vision.assumptions import Assumptions, assumed
from visae.vision.card import ModelCard
from visae.vision.model import prepare_model
from visae.vision.origins import Origin
from visae.vision.timm_import import import_timm
from visae.vision.transforms import Transform, of_open_clip
from visae.vision.weights import check_name, created

NAME = "test_vit.r160_in1k"
PAPER = Path(__file__).parents[2] / "config" / "paper.yaml"


def of(architecture: str, origin: Origin | None = None, **settings: object) -> Assumptions:
    """Assumptions of a model without its weights."""
    import_timm()
    with torch.device("meta"):
        module = created(architecture, None)
    identity = ModelIdentity(architecture=architecture, **{"weights": "hub", **settings})
    return assumed(module, identity, origin or Origin())


def warnings(notices: tuple[Notice, ...]) -> str:
    return "\n".join(notice.text for notice in notices if notice.level == "warning")


def notes(notices: tuple[Notice, ...]) -> str:
    return "\n".join(notice.text for notice in notices if notice.level == "note")


def test_pictures_are_open_clips(tmp_path: Path) -> None:
    """From a picture file to normalized input, cut and squashed, as open_clip's own transform gives it."""
    import_timm()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    noise = np.random.default_rng(0).integers(0, 256, (211, 340, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    for said in ({"resize_mode": "shortest"}, SIGLIP):
        transform = of("vit_base_patch16_224.mae", Origin("x", of_open_clip(OPEN_CLIP | {"preprocess_cfg": said}, "x")))
        theirs = image_transform_v2(PreprocessCfg(size=224, **said), is_train=False)(Image.open(tmp_path / "a.png"))
        seen = pixels(tmp_path / "a.png", transform.transform).float() / 255  # type: ignore[arg-type]
        mean, std = (torch.tensor(getattr(transform.transform, key)).view(3, 1, 1) for key in ("mean", "std"))
        assert ((seen - mean) / std - theirs).abs().max() < 1e-6


def test_settings_come_before_everything_else() -> None:
    said = Transform((96, 96), "squash", 0.9, "bilinear", HALF, HALF)
    assert of(NAME, Origin("x", said)).transform == said
    settings = {"image_size": [32, 48], "fit": "crop", "crop_share": 0.8, "interpolation": "lanczos"}
    settings |= {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    expected = Transform((32, 48), "crop", 0.8, "lanczos", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert of(NAME, Origin("x", said), **settings).transform == expected


def test_timms_own_say_counts_where_there_is_no_other() -> None:
    squashed = of("vit_base_patch16_siglip_384.webli", fit="squash", crop_share=1.0)
    assert (squashed.transform.fit, squashed.transform.mean) == ("squash", HALF)
    found = of("vit_base_patch16_siglip_224.webli")
    assert (found.transform.fit, found.transform.crop_share) == ("crop", 0.9)
    assert (found.tag, found.hub_id) == ("webli", "timm/vit_base_patch16_siglip_224.webli")
    assert "open_clip does set models: fit: squash, crop_share: 1.0" in notes(found.notices)
    assert not warnings(found.notices)


@pytest.mark.parametrize(
    ("architecture", "theirs"),
    [
        ("vit_base_patch16_clip_quickgelu_224.openai", ("ViT-B-16", "openai")),
        ("vit_base_patch16_siglip_224.webli", ("ViT-B-16-SigLIP", "webli")),
        ("vit_base_patch16_siglip_224.v2_webli", ("ViT-B-16-SigLIP2", "webli")),
        ("vit_pe_core_base_patch16_224.fb", ("PE-Core-B-16", "meta")),
    ],
)
def test_where_open_clip_prepares_pictures_otherwise_the_line_for_it_is_given(architecture: str, theirs: tuple) -> None:
    import_timm()
    import open_clip

    wanted = of_open_clip({"preprocess_cfg": open_clip.get_pretrained_cfg(*theirs)}, "open_clip")
    found = of(architecture)
    (line,) = [notice.text for notice in found.notices if "open_clip" in notice.text]
    told = yaml.safe_load("{" + line.split("set models: ")[1] + "}")
    followed = of(architecture, **told)
    assert not followed.transform.differences(wanted)
    assert "open_clip" not in notes(followed.notices)


@pytest.mark.parametrize("weights", ["random", "embedded"])
def test_nothing_is_cut_off_without_a_checkpoint_that_did(weights: str) -> None:
    found = of("vit_tiny_patch16_224.augreg_in21k", weights=weights, image_size=224)
    assert (found.transform.fit, found.transform.crop_share, found.tag) == ("crop", 1.0, None)


@pytest.mark.parametrize(
    ("architecture", "activation"),
    [
        ("vit_base_patch32_clip_quickgelu_224.openai", "quick_gelu"),
        ("vit_base_patch32_clip_224.laion2b", "gelu"),
        ("vit_small_patch16_224.dino", "gelu"),
        ("eva02_tiny_patch14_224.mim_in22k", "silu"),
        ("vit_base_patch16_siglip_224.v2_webli", "gelu"),
        ("test_convnext.r160_in1k", "gelu_tanh"),
        ("resnet18.a1_in1k", "relu"),
        ("vit_relpos_small_patch16_224.sw_in1k", "gelu"),
        ("swinv2_tiny_window8_256.ms_in1k", "gelu"),
    ],
)
def test_the_activation_function_is_read_off_the_network(architecture: str, activation: str) -> None:
    found = of(architecture)
    assert found.activation_function == activation
    assert not warnings(found.notices)


@pytest.mark.parametrize("tag", ["openai", "metaclip_400m", "laion400m_e32"])
def test_clip_under_the_wrong_activation_function_is_warned_of(tag: str) -> None:
    found = of(f"vit_base_patch32_clip_224.{tag}")
    assert found.timm_notes == ("natively QuickGELU, use quickgelu model variant for original results",)
    assert f"built with gelu; take architecture: vit_base_patch32_clip_quickgelu_224.{tag}" in warnings(found.notices)


def test_the_papers_clip_is_openais_with_its_own_activation_function() -> None:
    """timm's names may come to mean something else: then this fails, and config/paper.yaml has to follow."""
    models = yaml.safe_load(PAPER.read_text())["models"]
    clip = of(models["clip"]["architecture"])
    assert (clip.activation_function, clip.tag) == ("quick_gelu", "openai")
    assert clip.hub_id == "timm/vit_base_patch16_clip_224.openai"
    assert clip.transform.mean == CLIP_MEAN
    # BioCLIP's repository names no quick_gelu, which in open_clip means exact GELU.
    bioclip = of(models["bioclip"]["architecture"], weights=models["bioclip"]["weights"])
    assert bioclip.activation_function == "gelu"
    assert models["bioclip"]["weights"] == "hub:imageomics/bioclip/open_clip_pytorch_model.bin"
    dinov2 = of(models["dinov2"]["architecture"])
    assert dinov2.hub_id == "timm/vit_base_patch14_reg4_dinov2.lvd142m"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_base_patch16_siglip_224", r"lacks the tag.* vit_base_patch16_siglip_224\.v2_webli, \S+\.webli"),
        ("vit_small_patch14_dinov2", r"lacks the tag.* one of vit_small_patch14_dinov2\.lvd142m$"),
        ("vit_small_patch14_dinov2.lvd143m", r"no weights of that tag.* vit_small_patch14_dinov2\.lvd142m$"),
        ("hf-hub:someone/some-vit", r"weights: hub:organization/repository"),
    ],
)
def test_a_name_without_a_known_tag_is_refused_with_those_that_exist(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        prepare_model(ModelIdentity(architecture=name), tmp_path / "weights.safetensors", tmp_path / "model.json")


def test_a_name_may_lack_its_tag_where_the_weights_are_others() -> None:
    import_timm()
    for name, weights in ((NAME, "hub"), ("test_vit", "random"), ("test_vit", "hub:someone/some-vit")):
        check_name(name, weights)
    found = of("vit_base_patch16_siglip_224", weights="/my/weights.pt")
    assert "timm's configuration of vit_base_patch16_siglip_224.v2_webli is assumed" in warnings(found.notices)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights of one's own, with nothing beside them."""
    place = tmp_path / "mine"
    place.mkdir()
    torch.manual_seed(0)
    save_file(created(NAME, 32).state_dict(), place / "model.safetensors")
    return place


def card_of_file(path: Path, tmp_path: Path, **settings: object) -> ModelCard:
    identity = ModelIdentity(architecture=NAME, weights=str(path), **{"image_size": 32, **settings})
    return prepare_model(identity, tmp_path / "weights.safetensors", tmp_path / "model.json")


def test_a_file_carries_no_normalization_which_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        card = card_of_file(folder / "model.safetensors", tmp_path)
    assert "nothing beside them says how pictures are prepared" in warnings(card.notices)
    assert str(card.mean) in warnings(card.notices)
    assert warnings(card.notices) in caplog.text
    for said in ("activation function: gelu", "centre crop of 0.95", "mean of pixels: 0.5, 0.5, 0.5"):
        assert said in caplog.text
    card = card_of_file(folder / "model.safetensors", tmp_path, mean=[0.4, 0.4, 0.4], std=[0.2, 0.2, 0.2])
    assert (card.mean, card.std, card.notices) == ((0.4,) * 3, (0.2,) * 3, ())
    assert ModelCard.read(tmp_path / "model.json") == card


def test_what_lies_beside_a_file_counts(folder: Path, tmp_path: Path) -> None:
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": {"quick_gelu": True}, "preprocess_cfg": SIGLIP})
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP_PROCESSOR))
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    card = card_of_file(folder / "model.safetensors", tmp_path)
    assert (card.fit, card.crop_share, card.mean) == ("squash", 1.0, HALF)
    assert "open_clip_config.json is followed" in notes(card.notices)
    assert "fit squash and crop" in notes(card.notices)
    assert "trained with quick_gelu, and test_vit.r160_in1k is built with gelu" in warnings(card.notices)
    assert "are of vit_tiny_patch16_224, not of test_vit.r160_in1k" in warnings(card.notices)


@pytest.mark.parametrize("said", [{"image_mean": [124, 116, 104]}, {"image_std": [0, 0.2, 0.2]}])
def test_a_normalization_that_is_not_of_pixels_from_0_to_1_is_refused(folder: Path, tmp_path: Path, said: dict) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP_PROCESSOR | said))
    with pytest.raises(ModelError, match=r"models: (mean: \[124.*write three numbers from 0 to 1|std: \[0.*above 0)"):
        card_of_file(folder / "model.safetensors", tmp_path)


def test_a_damaged_configuration_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: no JSON"):
        card_of_file(folder / "model.safetensors", tmp_path)


def test_numbers_that_cannot_be_are_refused_by_the_configuration() -> None:
    demo = yaml.safe_load((PAPER.parent / "config.yaml").read_text())
    (name,) = demo["models"]
    demo["models"][name] |= {"mean": [0.5, 0.5], "std": [0.2, 0, 0.2], "crop_share": 1.2, "fit": "border"}
    with pytest.raises(ConfigError, match=r"(?s)'border' is not one of .*crop_share: 1\.2 is greater"):
        parse_config(demo)
    for key in ("crop_share", "fit"):
        demo["models"][name].pop(key)
    with pytest.raises(ConfigError, match=r"(?s)mean: \[0\.5, 0\.5\]: write three numbers.*std: .*above 0"):
        parse_config(demo)


TIMM = {"architecture": "test_vit", "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.3] * 3, "crop_pct": 0.8}}
CONFIGURATIONS = {
    "timm": ("config.json", TIMM, ("crop", 0.8, (0.1, 0.1, 0.1), "bicubic")),
    "open_clip": ("open_clip_config.json", {"preprocess_cfg": SIGLIP}, ("squash", 1.0, HALF, "bicubic")),
    "transformers": ("preprocessor_config.json", VIT, ("squash", 1.0, HALF, "bilinear")),
}


@pytest.mark.slow
@pytest.mark.parametrize("library", CONFIGURATIONS)
def test_a_repositorys_own_configuration_is_followed(folder: Path, tmp_path: Path, library: str) -> None:
    name, config, expected = CONFIGURATIONS[library]
    (folder / name).write_text(json.dumps(config))
    settings = [f"architecture={NAME}", "weights=hub:someone/some-vit", "image_size=32"]
    command = [sys.executable, "-m", "visae", "model", "--settings", *settings, "--card-path"]
    command += [str(tmp_path / "model.json"), "--weights-path", str(tmp_path / "weights.safetensors")]
    with served(folder) as address:
        environment = only_this_hub(address, tmp_path / "hf")
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    card = ModelCard.read(tmp_path / "model.json")
    assert (card.fit, card.crop_share, card.mean, card.interpolation) == expected
    assert card.hub_id == "someone/some-vit"
    assert f"as someone/some-vit: {name} says" in notes(card.notices)
