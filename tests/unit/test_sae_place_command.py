"""The commands that say where an SAE belongs, and the files that keep it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from proof_for_tests import SIZE, pictures, tokens_of, trained

from visae.cli import main
from visae.config.settings import ModelIdentity, TopKSettings
from visae.errors import ConfigError, DataError, ModelError
from visae.sae.autoencoder import SparseAutoencoder, load_sae, save_sae
from visae.sae.foreign.transfer import import_sae
from visae.sae.place import Place
from visae.sae.proof.command import place_found, sae_place
from visae.sae.proof.settings import Claim, ProofSettings
from visae.sae.variants.topk import TopK
from visae.vision.model import HookPoint, load_model, prepare_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> ProofSettings:
    folder = tmp_path_factory.mktemp("pictures") / "pictures"
    pictures(folder, 100, 2)
    return ProofSettings(pictures=folder, workers=0)


@pytest.fixture
def on_disk(tmp_path: Path) -> tuple[Path, str]:
    """SAE of a random ViT's block 5, its config.json, and the model's."""
    identity = ModelIdentity(architecture="vit_tiny_patch16_224", weights="random", image_size=SIZE)
    prepare_model(identity, tmp_path / "weights.safetensors", tmp_path / "model.json")
    sae = SparseAutoencoder(192, 192, TopK(8))
    torch.nn.init.orthogonal_(sae.encoder_weight)
    with torch.no_grad():
        sae.decoder_weight.copy_(sae.encoder_weight)
    sae.place = Place(layer=5)
    return save_sae(sae, tmp_path / "sae"), str(tmp_path / "model.json")


def test_the_command_prints_and_writes_what_it_found(
    on_disk: tuple[Path, str], looked_at: ProofSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, model = on_disk
    output = tmp_path / "place.json"
    folder = tmp_path / "pictures"
    pictures(folder, 8, 3)
    (folder / "torn.png").write_bytes((folder / "0000.png").read_bytes()[:90])
    arguments = ["--pictures", str(folder), "--workers", "0", "--patches", "2", "--output", str(output)]
    main(["sae-place", str(config.parent), "--model", model, *arguments])
    said, found = capsys.readouterr().out, json.loads(output.read_text())
    assert f"verdict: {found['reason']}" in said
    assert "claimed" in said
    assert found["n_pictures"] == 8
    assert [Path(problem.split(": ")[0]).name for problem in found["unreadable"]] == ["torn.png"]
    assert any("torn.png" in notice["text"] for notice in found["notices"])
    assert found["claimed"]["layer"] == 5
    for row in found["rows"]:
        for name in ("error", "normalized_mse", "l0", "dead_share"):
            assert row[f"{name}_low"] <= row[name] + 1e-9
            assert row[name] <= row[f"{name}_high"] + 1e-9
    errors = [row["error"] for row in found["rows"]]
    assert errors[1:] == sorted(errors[1:])


def test_bad_input_is_named(on_disk: tuple[Path, str], looked_at: ProofSettings, tmp_path: Path) -> None:
    config, card = on_disk
    there = replace(looked_at, model=card, limit=4, patches=1)
    with pytest.raises(ConfigError, match=r"--model .* and --pictures"):
        sae_place(str(config))
    with pytest.raises(ModelError, match="layers go from 0 to 11"):
        sae_place(str(config), there, Claim(layer=12))
    with pytest.raises(DataError, match="there is no such folder"):
        sae_place(str(config), replace(there, pictures=tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"no pictures in it \(.*\.txt"):
        sae_place(str(config), replace(there, pictures=tmp_path / "empty"))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/one.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"0 of 1 pictures could be read, such as .*one\.png"):
        sae_place(str(config), replace(there, pictures=tmp_path / "torn"))
    with pytest.raises(ConfigError, match=r"none\.json"):
        sae_place(str(config), replace(there, model=str(tmp_path / "none.json")))
    with pytest.raises(ConfigError, match="--patches"):
        sae_place(str(config), replace(there, patches=0))
    narrow = save_sae(SparseAutoencoder(64, 64, TopK(4)), tmp_path / "narrow")
    with pytest.raises(ModelError, match="its layers have 192 dimensions, and the SAE is for 64"):
        sae_place(str(narrow), there)
    across = save_sae(SparseAutoencoder(192, 64, TopK(4), 192), tmp_path / "across")
    with pytest.raises(ModelError, match="transcoder"):
        sae_place(str(across), there)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"image_size": 64}, "--image-size 64: --model"),
        ({"model_weights": "hub"}, "--model-weights hub: --model"),
        ({"model_weights": "random", "image_size": SIZE}, f"--model-weights random and --image-size {SIZE}: --model"),
    ],
    ids=str,
)
def test_what_a_model_json_says_itself_is_not_left_out_silently(
    on_disk: tuple[Path, str], looked_at: ProofSettings, tmp_path: Path, said: dict[str, object], named: str
) -> None:
    config, card = on_disk
    match = f"{named} .*says of itself.*; leave that out, or give timm's name"
    for model in (card, str(Path(card).parent)):
        there = replace(looked_at, model=model, limit=4, patches=1, **said)
        with pytest.raises(ConfigError, match=match):
            sae_place(str(config), there)
        with pytest.raises(ConfigError, match=match):
            import_sae(config.parent, tmp_path / "taken", looked_at=there)
    options = [part for name, value in said.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    where = ["--model", card, "--pictures", str(looked_at.pictures)]
    with pytest.raises(SystemExit, match=match):
        main(["sae-place", str(config), *where, *options])
    with pytest.raises(SystemExit, match=match):
        main(["import-sae", str(config.parent), str(tmp_path / "taken"), *where, *options])
    assert not (tmp_path / "taken").exists()


def test_how_pictures_are_looked_at_is_refused_where_none_are(on_disk: tuple[Path, str], tmp_path: Path) -> None:
    config, card = on_disk
    arguments = ["import-sae", str(config.parent), str(tmp_path / "taken")]
    with pytest.raises(SystemExit, match=r"--image-size 64, --limit 3: .*; give --model and --pictures too, or leave"):
        main([*arguments, "--limit", "3", "--image-size", "64"])
    with pytest.raises(SystemExit, match="give both --model"):
        main([*arguments, "--model", card])
    assert not (tmp_path / "taken").exists()
    main(arguments)
    assert "proof" not in json.loads((tmp_path / "taken/config.json").read_text())


def test_timms_name_takes_a_size_and_weights(on_disk: tuple[Path, str], looked_at: ProofSettings) -> None:
    config, _ = on_disk
    name = "vit_tiny_patch16_224"
    there = replace(looked_at, model=name, model_weights="random", image_size=2 * SIZE, limit=4, patches=1)
    found = place_found(load_sae(config), Place(layer=5), there, torch.device("cpu"))
    assert (found["model"]["architecture"], found["n_pictures"]) == (name, 4)


def test_a_block_that_the_model_has_not_is_refused_by_name(
    on_disk: tuple[Path, str], looked_at: ProofSettings, tmp_path: Path
) -> None:
    config, card = on_disk
    there = replace(looked_at, model=card, limit=4, patches=1)
    message = "layer: 12: vit_tiny_patch16_224 has 12 blocks, so layers go from 0 to 11"
    where = ["--model", card, "--pictures", str(looked_at.pictures), "--layer", "12"]
    with pytest.raises(SystemExit, match=message):
        main(["sae-place", str(config), *where])
    with pytest.raises(SystemExit, match=message):
        main(["import-sae", str(config.parent), str(tmp_path / "taken"), *where])
    assert not (tmp_path / "taken/config.json").exists()
    with pytest.raises(ModelError, match=message):  # a hook point of another project
        place_found(load_sae(config), Place(layer=12, hook="hook_q"), there, torch.device("cpu"))
    found = place_found(load_sae(config), Place(layer=11, hook="hook_q"), there, torch.device("cpu"))
    assert any("cannot be read here: layer 11, hook_q" in notice["text"] for notice in found["notices"])


def test_what_an_import_finds_is_kept_in_the_file(
    on_disk: tuple[Path, str], looked_at: ProofSettings, tmp_path: Path
) -> None:
    config, card = on_disk
    there = replace(looked_at, model=card, limit=8, patches=2)
    import_sae(config.parent, tmp_path / "taken", looked_at=there)
    kept = json.loads((tmp_path / "taken/config.json").read_text())
    found = place_found(load_sae(config), Place(layer=5), there, torch.device("cpu"))
    assert kept["proof"]["best"] == found["best"]
    assert kept["proof"]["verdict"] == found["verdict"]
    assert any(notice["text"] == f"sae-place: {found['reason']}" for notice in kept["notices"])
    assert len(kept["proof"]["rows"]) <= 13
    again = load_sae(tmp_path / "taken/config.json")
    assert torch.equal(again.encoder_weight, load_sae(config).encoder_weight)


@pytest.mark.slow
def test_an_sae_of_the_embedded_network_is_put_right(tmp_path: Path) -> None:
    identity = ModelIdentity(architecture="vit_small_patch14_dinov2", weights="embedded", image_size=112)
    prepare_model(identity, tmp_path / "weights.safetensors", tmp_path / "model.json")
    network = load_model(tmp_path / "model.json")
    point = HookPoint(8, "mlp")
    there = tokens_of(network, [point], pictures(tmp_path / "train", 100, 1, 112), tmp_path / "tokens")[point]
    pictures(tmp_path / "test", 40, 2, 112)
    settings = TopKSettings(variant="topk", k=16, expansion=2, steps=100, batch_size=512, normalization="per_token")
    sae = trained(settings, there, point, "patches", 0)
    card = str(tmp_path / "model.json")
    looked_at = ProofSettings(model=card, pictures=tmp_path / "test", workers=0, patches=16)
    found = place_found(sae, Place(layer=10), looked_at, torch.device("cpu"))
    assert (found["verdict"], found["differs"]) == ("another", ["layer", "hook"])
    best = {name: found["best"][name] for name in ("layer", "hook", "tokens", "normalization", "clamp")}
    assert best == {"layer": 8, "hook": "mlp", "tokens": "patches", "normalization": "per_token", "clamp": None}
    assert found["rows"][0]["error_high"] < 0.9 * found["null_mse"]
    assert place_found(sae, sae.place, looked_at, torch.device("cpu"))["verdict"] == "claimed"
