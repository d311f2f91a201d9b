"""What a configuration will need: counted, told, and in hours; tests/workflow compares it with what is made."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from visae.cli import main
from visae.config.parse import parse_config
from visae.errors import ModelError
from visae.planning.models import PlannedModel
from visae.planning.needs import Needs
from visae.planning.plan import planned
from visae.planning.speed import StatedSpeed

TINY = {"architecture": "vit_tiny_patch16_224", "weights": "random", "image_size": 64}
CONFIG = {
    "device": "cpu",
    "datasets": {
        "photos": {"kind": "image_folder", "root": "photos", "labels": "none"},
        "web": {"kind": "webdataset", "root": "${NO_SUCH_ROOT}", "tokens_per_image": 4},
        "both": {"kind": "union", "members": ["photos", "web"]},
    },
    "models": {"tiny": TINY},
    "saes": {
        "topk": {"variant": "topk", "k": 6, "expansion": 2, "steps": 10, "batch_size": 64},
        "relu": {"variant": "relu", "expansion": 2, "steps": 10, "batch_size": 64},
    },
    "sweeps": {"swept": {"base": "relu", "grid": {"l1": [0.1, 0.2, 0.3]}}},
    "studies": {
        "small": {"model": "tiny", "layer": 10, "train_on": "both", "saes": ["topk", "swept"], "describe": ["photos"]},
        "again": {"model": "tiny", "layer": 10, "train_on": "both", "saes": ["topk"], "describe": ["photos"]},
    },
}


def needs_of(config=CONFIG, **pictures: int) -> Needs:
    return Needs(parse_config(config), {"photos": 30, "web": 100, **pictures}, active=50)


@pytest.fixture
def configfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        path = Path(f"photos/{number % 2}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    Path("study.yaml").write_text(yaml.safe_dump(CONFIG))
    return "study.yaml"


def test_stores_have_their_tokens_and_bytes() -> None:
    photos, web = needs_of().stores()
    assert (photos.dataset, photos.layers, photos.pictures, photos.tokens) == ("photos", ["10"], 30, 30 * 17)
    assert photos.bytes == 30 * 17 * (192 * 2 + 8)
    assert (web.dataset, web.tokens) == ("web", 100 * (1 + 4))


def test_what_studies_share_is_needed_once_and_a_sweep_is_its_members() -> None:
    topk, swept = needs_of().saes()
    assert (topk.sae, topk.count, topk.width, topk.tokens) == ("topk", 1, 384, 640)
    assert (swept.sae, swept.count, swept.tokens) == ("swept", 3, 3 * 640)
    parameters = 2 * 384 * 192 + 384 + 192
    assert topk.memory_bytes == 16 * parameters
    assert swept.memory_bytes == 3 * topk.memory_bytes
    assert topk.flop == 640 * 10 * 384 * 192
    # Three members and a copy of one.
    assert swept.bytes == pytest.approx(4 * 4 * parameters, rel=0.01)
    assert swept.checkpoint_bytes == pytest.approx(2 * 3 * 12 * parameters, rel=0.01)


def test_codes_are_bounded_by_k_by_the_limit_on_l0_or_by_what_is_said() -> None:
    assert [codes.active for codes in needs_of().codes()] == [6, 50]
    limited = json.loads(json.dumps(CONFIG))
    limited["sweeps"]["swept"]["select"] = {"at_most": {"l0": 20}}
    assert [codes.active for codes in needs_of(limited).codes()] == [6, 20]
    assert {codes.tokens for codes in needs_of().codes()} == {30 * 16}


@pytest.mark.parametrize(("kinds", "of_picture"), [("patches", 16), ("class", 1), ("all", 17)])
def test_codes_are_of_the_tokens_that_an_sae_is_of(kinds, of_picture) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["saes"]["topk"]["tokens"] = kinds
    codes = next(codes for codes in needs_of(config).codes() if codes.sae == "topk")
    assert codes.tokens == 30 * of_picture


def test_a_model_without_a_class_token_is_named_before_anything_is_read() -> None:
    config = json.loads(json.dumps(CONFIG))
    config["models"]["tiny"] = {**TINY, "architecture": "vit_base_patch16_siglip_224", "image_size": 64}
    config["saes"]["topk"]["tokens"] = "class"
    with pytest.raises(ModelError, match=r"tokens: class: vit_base_patch16_siglip_224\S* has no \[CLS\] token"):
        needs_of(config).codes()


def test_a_transcoder_needs_both_layers() -> None:
    config = json.loads(json.dumps(CONFIG))
    config["saes"]["topk"]["target_layer"] = 11
    needs = needs_of(config)
    assert [store.layers for store in needs.stores()] == [["10", "11"]] * 2
    assert needs.saes()[0].flop == needs_of().saes()[0].flop


@pytest.mark.parametrize("variant", ["batchtopk", "matryoshka", "archetypal", "jumprelu", "gated"])
def test_every_variant_can_be_planned(variant: str) -> None:
    config = json.loads(json.dumps(CONFIG))
    config["saes"]["topk"] = {"variant": variant, "expansion": 2, "steps": 10, "batch_size": 64}
    found = needs_of(config).saes()[0]
    assert found.width == 384
    assert found.memory_bytes >= 16 * 2 * 384 * 192


def test_a_forward_passs_operations_grow_with_depth_and_count_attention() -> None:
    model = PlannedModel(parse_config(CONFIG).models["tiny"])
    n, d = 17, 192
    block = 2 * n * 12 * d * d + 2 * 2 * n * n * d
    assert model.flop(["11"]) - model.flop(["10"]) == block
    assert model.flop(["3", "10"]) == model.flop(["10"])


def test_networks_of_stages_can_be_planned() -> None:
    config = json.loads(json.dumps(CONFIG))
    config["models"]["tiny"]["architecture"] = "resnet18"
    config["studies"] = {"small": {**config["studies"]["small"], "layer": 4}}
    assert needs_of(config).stores()[0].tokens == 30 * 4


def test_hours_are_operations_over_the_stated_rate() -> None:
    found = planned(needs_of(), StatedSpeed(tflops=0.5))
    assert found["saes"][0]["hours"] == pytest.approx(found["saes"][0]["flop"] / 0.5e12 / 3600)
    rows = [row for name in ("stores", "saes", "codes") for row in found[name]]
    assert found["total"]["hours"] == pytest.approx(sum(row["hours"] for row in rows))
    assert found["total"]["bytes"] == sum(row["bytes"] for row in rows)
    assert planned(needs_of())["total"]["hours"] is None


def test_pictures_are_counted_or_told(configfile: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--configfile", configfile, "--pictures", "web=1000", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [store["pictures"] for store in found["stores"]] == [7, 1000]
    assert found["hours_are"] == "unknown: give --tflops or --measure"


def test_the_tables_say_what_hours_are(configfile: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--configfile", configfile, "--pictures", "web=1000", "--tflops", "2.5"])
    said = capsys.readouterr().out
    assert "| photos   | tiny  | 10     |        7 |" in said
    assert "| swept | both       | tiny  | 10    |    3 |" in said
    assert "Hours are at 2.5 TFLOP/s, which is an assumption (--tflops)." in said


def test_measured_hours_are_of_this_machine(configfile: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("visae.planning.speed._SECONDS", 0.1)
    main(["plan", "--configfile", configfile, "--pictures", "web=1000", "--measure", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert f"cpu ({torch.get_num_threads()} threads)" in found["hours_are"]
    # Between 10^8 and 10^15 operations a second: a slip in units would leave this range.
    for name in ("stores", "saes", "codes"):
        for row in found[name]:
            assert 1e8 < row["flop"] / (row["hours"] * 3600) < 1e15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"datasets: web: root: \$\{NO_SUCH_ROOT\}: the environment .*--pictures web=NUMBER"),
        (
            ["--pictures", "wep=3"],
            r"--pictures wep=3: write NAME=NUMBER with a name from datasets \(both, photos, web\)",
        ),
        (["--pictures", "web=many"], "--pictures web=many: write NAME=NUMBER"),
        (["--measure", "--tflops", "3"], "--measure and --tflops: give one of them"),
    ],
)
def test_what_is_missing_is_named(configfile: str, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["plan", "--configfile", configfile, *arguments])
