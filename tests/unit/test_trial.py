"""Every layer is tried before anything depends on it: what can be read, what can be edited, and what is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from visae.activations.extract import StoreSource, extract_shard
from visae.config.parse import parse_config
from visae.config.settings import ModelIdentity, ModelSettings, ScenesSettings
from visae.config.stored import edited_layers, points_of
from visae.data.index import build_index
from visae.errors import ModelError
from visae.files import read_json, write_json
from visae.vision.model import HookPoint, ModelCard, VisionModel, card_of, load_model, prepare_model
from visae.vision.timm_import import import_timm
from visae.vision.trial import tried
from visae.vision.weights import created

# By module of timm: a small member, the size that it is tried at, and how many of its layers can be read and edited;
# none where it is refused. A module that a new version of timm brings gets a line.
MEMBERS = json.loads((Path(__file__).parent / "timm_modules_for_tests.json").read_text())


def tried_card(architecture: str, image_size: int | None) -> ModelCard:
    import_timm()
    torch.manual_seed(0)
    module = created(architecture, image_size).eval()
    settings = ModelIdentity(architecture=architecture, weights="random", image_size=image_size)
    return tried(module, card_of(module, settings, "", ""))


def prepared(folder: Path, architecture: str, image_size: int = 64, **uses: list[str]) -> Path:
    settings = ModelIdentity(architecture=architecture, weights="random", image_size=image_size)
    prepare_model(settings, folder / "weights.safetensors", folder / "model.json", **uses)
    return folder / "model.json"


def layers(card: ModelCard, what: str) -> list[int]:
    return [number for number, layer in enumerate(card.layers) if getattr(layer, what)]


def test_a_transformer_can_be_read_and_edited_everywhere() -> None:
    card = tried_card("test_vit", 64)
    assert layers(card, "can_read") == layers(card, "can_edit") == list(range(card.depth))
    assert all(layer.why_not == "" for layer in card.layers)


@pytest.fixture(scope="module")
def convit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its class token joins the patches at block 10."""
    return prepared(tmp_path_factory.mktemp("convit"), "convit_tiny")


def test_layers_of_other_tokens_are_refused_by_name(convit: Path) -> None:
    card = ModelCard.read(convit)
    assert layers(card, "can_read") == layers(card, "can_edit") == [10, 11]
    with pytest.raises(
        ModelError, match=r"studies: layer: 9: convit_tiny cannot be read there: it has 16 x 192 .* 10, 11"
    ):
        card.check(HookPoint(9), "studies: layer")


def test_the_class_token_that_joins_late_is_the_row_that_it_should_be(convit: Path) -> None:
    model = load_model(convit)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = model.read(images, [HookPoint(10)])[HookPoint(10)]
    model.module.cls_token.data.add_(5)
    moved = (model.read(images, [HookPoint(10)])[HookPoint(10)] - before).norm(dim=2)
    assert model.card.tokens(10)[0] == -1
    assert (moved.argmax(dim=1) == 0).all()


@pytest.mark.parametrize("tokens_per_image", [None, 4])
def test_nothing_is_extracted_where_a_layer_cannot_be_read(convit: Path, tmp_path: Path, tokens_per_image: int) -> None:
    settings = ModelSettings(architecture="convit_tiny", weights="random", image_size=64, batch_size=4, workers=0)
    build_index(ScenesSettings(kind="scenes", train=4, val=2, test=2, image_size=64), tmp_path / "index.parquet")
    receipt = tmp_path / "layer5" / "receipt-0.json"
    source = StoreSource(tmp_path / "index.parquet", convit, 1, tokens_per_image)
    with pytest.raises(ModelError, match="cannot be read there"):
        extract_shard(settings, source, 0, "5", [], receipt, device="cpu")
    # And if a card said otherwise, what is read of the first batch does not fit it.
    folder = tmp_path / "told"
    folder.mkdir()
    card = read_json(convit)
    card["layers"] = [layer | {"can_read": True} for layer in card["layers"]]
    write_json(folder / "model.json", card)
    (folder / "weights.safetensors").symlink_to(convit.with_name("weights.safetensors"))
    told = replace(source, card_path=folder / "model.json")
    with pytest.raises(ModelError, match=r"layer 5: convit_tiny gave 16 x 192 .* its card says 17 tokens of 192"):
        extract_shard(settings, told, 0, "5", [], receipt, device="cpu")
    assert not list((tmp_path / "layer5").glob("*.parquet"))


def test_a_layer_that_cannot_be_edited_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """HRNet's stages hand several grids on, of which timm shows one."""
    card = ModelCard.read(prepared(tmp_path / "read", "hrnet_w18_small", read=["4"]))
    assert (layers(card, "can_read"), layers(card, "can_edit")) == ([0, 1, 2, 3, 4], [])
    with pytest.raises(ModelError, match=r"layer: 4: hrnet_w18_small cannot be edited there: no pass can be resumed"):
        prepared(tmp_path / "edited", "hrnet_w18_small", read=["4"], edited=["4"])
    assert not list((tmp_path / "edited").glob("*"))


def test_a_card_of_another_version_is_named(tmp_path: Path) -> None:
    card = read_json(prepared(tmp_path, "test_vit"))
    for changed in ({**card, "colour": "red"}, {key: value for key, value in card.items() if key != "crop_share"}):
        write_json(tmp_path / "model.json", changed)
        with pytest.raises(ModelError, match=r"model\.json: of another version of visae .*--force"):
            ModelCard.read(tmp_path / "model.json")


def test_the_workflow_asks_the_card_for_what_studies_read_and_edit() -> None:
    demo = yaml.safe_load((Path(__file__).parents[2] / "config" / "config.yaml").read_text())
    (name,) = demo["models"]
    demo["studies"]["parts"] = {**demo["studies"]["relu"], "layer": 3, "hook": "mlp"}
    settings = parse_config(demo)
    assert points_of(settings, name) == ["10", "11", "3-mlp"]
    assert edited_layers(settings, name) == ["10"]


def test_a_pass_that_does_not_end_where_it_should_is_found() -> None:
    """A network whose last block looks at the picture again: what is resumed there has a blank one."""
    import_timm()
    torch.manual_seed(0)
    module = created("test_vit", 64).eval()
    settings = ModelIdentity(architecture="test_vit", weights="random", image_size=64)
    card = card_of(module, settings, "", "")
    seen: list[torch.Tensor] = []
    ramp = torch.linspace(-1, 1, 64)  # unlike a constant, no norm takes it away
    module.patch_embed.register_forward_hook(
        lambda _m, _i, output: seen.append(output.flatten(1).std(1)[:, None, None])
    )
    module.blocks[-1].register_forward_pre_hook(lambda _m, inputs: (inputs[0] + seen[-1] * ramp,))
    found = tried(module, card)
    assert layers(found, "can_read") == list(range(card.depth))
    assert layers(found, "can_edit") == [card.depth - 1]
    assert "later layers read more than its tokens" in found.layers[0].why_not


def test_what_is_read_has_to_be_what_the_card_says() -> None:
    card = tried_card("test_vit", 64)
    model = VisionModel(created("test_vit", 64), replace(card, n_prefix=2))
    with pytest.raises(ModelError, match=r"layer 3: test_vit gave 17 x 64 values a picture, .* 18 tokens of 64"):
        model.read(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), [HookPoint(3)])


@pytest.mark.parametrize("architecture", ["cait_xxs24_224", "coat_tiny", "efficientvim_m1", "pit_ti_224"])
def test_networks_that_are_not_read_say_so_in_one_line(architecture: str) -> None:
    with pytest.raises(ModelError, match=rf"architecture: {architecture} \(\w+\) cannot be read: [^\n]+$"):
        tried_card(architecture, None)


def outcome(architecture: str, image_size: int) -> list[int]:
    """How many layers can be read and edited; none where the network is refused in one line."""
    try:
        card = tried_card(architecture, image_size)
    except ModelError as error:
        return [] if "\n" not in str(error) else [-1]
    return [len(layers(card, what)) for what in ("can_read", "can_edit")]


@pytest.mark.slow
@pytest.mark.parametrize("module", MEMBERS)
def test_a_member_of_each_of_timms_modules_gives_a_card_or_one_line(module: str) -> None:
    architecture, image_size, expected = MEMBERS[module]
    assert outcome(architecture, image_size) == expected
