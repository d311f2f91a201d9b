"""Where an SAE belongs: found again for SAEs trained at known places, whatever is claimed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from proof_for_tests import SIZE, pictures, small_vit, tokens_of, trained

from visae.cli import main
from visae.config.saes import Normalization, TokenKinds
from visae.config.settings import BatchTopKSettings, JumpReluSettings, ModelIdentity, ReluSettings, TopKSettings
from visae.errors import ConfigError, DataError, ModelError
from visae.sae.autoencoder import SparseAutoencoder, load_sae, save_sae
from visae.sae.foreign.transfer import import_sae
from visae.sae.initial import initial_sae
from visae.sae.metrics import quality
from visae.sae.place import Place
from visae.sae.proof.command import place_found, sae_place
from visae.sae.proof.fits import fit
from visae.sae.proof.hypotheses import Hypothesis, Setup, moments_of, own_setup, placed
from visae.sae.proof.prove import prove
from visae.sae.proof.settings import Claim, ProofSettings
from visae.sae.proof.tokens import PointTokens
from visae.sae.proof.verdict import Resampled, error_of
from visae.sae.variants.topk import TopK
from visae.vision.model import HookPoint, VisionModel, load_model, prepare_model

pytestmark = pytest.mark.usefixtures("one_thread")

POINTS = [HookPoint(layer, hook) for layer in range(4) for hook in ("residual", "attention", "mlp", "norm")]
SHORT = {"expansion": 4, "steps": 200, "batch_size": 256}


@pytest.fixture(scope="module")
def model() -> VisionModel:
    return small_vit()


@pytest.fixture(scope="module")
def read(model: VisionModel, tmp_path_factory: pytest.TempPathFactory) -> dict[HookPoint, PointTokens]:
    folder = tmp_path_factory.mktemp("train")
    return tokens_of(model, POINTS, pictures(folder / "pictures", 600, 1), folder / "tokens")


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> ProofSettings:
    folder = tmp_path_factory.mktemp("pictures") / "pictures"
    pictures(folder, 100, 2)
    return ProofSettings(pictures=folder, workers=0)


def topk(**more: object) -> TopKSettings:
    return TopKSettings(variant="topk", k=6, **SHORT, **more)


def of_residual_2(read: dict[HookPoint, PointTokens], **more: object) -> SparseAutoencoder:
    settings = topk(**more)
    return trained(settings, read[HookPoint(2)], HookPoint(2), settings.tokens, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [16, 301])
def test_thirty_misplaced_saes_are_all_put_right(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    kinds, normalizations = get_args(TokenKinds), get_args(Normalization)
    told = 0
    for number in range(30):
        point, claimed = (POINTS[place] for place in generator.choice(len(POINTS), 2, replace=False))
        kind, claimed_kind = (kinds[generator.integers(len(kinds))] for _ in range(2))
        normalization = normalizations[generator.integers(len(normalizations))]
        more = {"normalization": normalization, "tokens": kind, **SHORT}
        settings = (
            TopKSettings(variant="topk", k=6, **more),
            BatchTopKSettings(variant="batchtopk", k=6, **more),
            ReluSettings(variant="relu", l1=0.01, **more),
            JumpReluSettings(variant="jumprelu", **more),
        )[number % 4]
        sae = trained(settings, read[point], point, kind, number)
        if normalization == "scale" and number % 2:  # as a file that has lost them
            sae.mean.zero_()
            sae.scale.fill_(1)
        claim = Place(layer=claimed.layer, hook=claimed.hook, tokens=claimed_kind)
        proof = prove(sae, model, claim, looked_at, seed=number)
        best = proof.verdict.best.hypothesis
        case = f"{number}: {settings.variant}, {point}, {kind}, {normalization}; claimed {claimed}; found {best}"
        assert (best.point, best.setup.normalization) == (point, normalization), case
        assert proof.verdict.word == "another", case
        assert kind in proof.verdict.kinds, case
        told += len(proof.verdict.kinds) == 1
    # The others are at attention, where class tokens of this network are like patches.
    assert told >= 20


@pytest.mark.parametrize("normalization", get_args(Normalization))
def test_a_right_claim_is_confirmed(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings, normalization: Normalization
) -> None:
    sae = of_residual_2(read, normalization=normalization)
    proof = prove(sae, model, sae.place, looked_at)
    assert (proof.verdict.word, proof.verdict.differs) == ("claimed", [])
    assert proof.fits[0].hypothesis == proof.claimed
    places = {each.hypothesis.setup for each in proof.fits}
    own = own_setup(sae, HookPoint(2))
    # Its neighbours are among what is ranked: blocks, hook points, normalizations; and all kinds of tokens.
    assert {own._replace(point=point) for point in (HookPoint(1), HookPoint(3), *POINTS[9:12])} <= places
    assert {place.normalization for place in places if place.point == HookPoint(2)} == set(get_args(Normalization))
    assert {each.hypothesis.tokens for each in proof.fits} == {"patches", "class", "all"}
    assert {each.hypothesis.setup.clamp for each in proof.fits} >= {None, 2.0, 3.0, 5.0}


def test_without_a_claim_the_place_is_found(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    sae = of_residual_2(read, tokens="class")
    proof = prove(sae, model, Place(), looked_at)
    best = proof.verdict.best.hypothesis
    assert (proof.verdict.word, best.point, best.tokens) == ("found", HookPoint(2), "class")


def test_an_sae_of_another_model_or_of_nothing_fits_nowhere(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    sae = of_residual_2(read)
    assert prove(sae, small_vit(seed=7), sae.place, looked_at).verdict.word == "none"
    dead = SparseAutoencoder(48, 96, TopK(4)).eval().requires_grad_(False)
    proof = prove(dead, model, Place(layer=2), looked_at)
    assert proof.verdict.word == "none"
    measured = [each for each in proof.fits if each.hypothesis.setup.statistics == "pictures"]
    # Its mean alone is what it gives: an error of 1, whatever the place and however large it is there.
    assert [error_of(each) for each in measured] == pytest.approx([1] * len(measured), rel=1e-4)
    assert all(each.silent == 96 for each in measured)


def test_a_clamp_that_hides_everything_is_found(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    sae = of_residual_2(read)
    narrow = SparseAutoencoder(48, sae.width, sae.variant, None, 1e-5)
    state = {**narrow.state_dict(), **sae.state_dict(), "limit": torch.full((48,), 1e-5)}
    narrow.load_state_dict(state)
    proof = prove(narrow.eval().requires_grad_(False), model, sae.place, looked_at)
    assert (proof.verdict.word, proof.verdict.differs) == ("another", ["clamp"])
    assert proof.verdict.best.hypothesis.setup == own_setup(sae, HookPoint(2))


def test_a_scale_that_a_file_has_lost_is_found(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    there = read[HookPoint(2)]
    length = float(np.sqrt((there.rows[:, 1:] ** 2).mean()))
    scaled = PointTokens(there.rows / length, 1, 1.0)
    sae = trained(topk(normalization="none"), scaled, HookPoint(2), "patches", 0)
    best = prove(sae, model, sae.place, looked_at).verdict.best.hypothesis
    assert (best.point, best.tokens, best.setup.statistics) == (HookPoint(2), "patches", "length")


def test_more_codes_are_no_better_place(
    model: VisionModel, read: dict[HookPoint, PointTokens], looked_at: ProofSettings
) -> None:
    settings = BatchTopKSettings(variant="batchtopk", k=6, **SHORT)
    sae = trained(settings, read[HookPoint(2)], HookPoint(2), "patches", 0)
    proof = prove(sae, model, sae.place, looked_at)
    assert proof.most_codes == 9
    assert all(error_of(each) >= each.normalized_mse for each in proof.fits)
    # Of places with more codes what is left after a cut; of others all.
    best = proof.verdict.best
    assert best.l0 == pytest.approx(6, rel=0.2)
    assert error_of(best) == pytest.approx(best.normalized_mse, rel=0.03)
    there = PointTokens(read[HookPoint(2)].rows[:50], 1, 1.0)
    mean = moments_of(there, "patches").mean
    free, cut = (fit(sae, best.hypothesis, there, mean, most) for most in (None, 2.0))
    assert (free.l0, free.normalized_mse) == (cut.l0, cut.normalized_mse)
    assert error_of(cut) > 1.2 * error_of(free)


@pytest.mark.parametrize("tokens", get_args(TokenKinds))
def test_errors_are_those_of_all_tokens_together(read: dict[HookPoint, PointTokens], tokens: TokenKinds) -> None:
    sae = of_residual_2(read)
    there = PointTokens(read[HookPoint(2)].rows[:40], 1, 1.0)
    moments = moments_of(there, tokens)
    found = fit(sae, Hypothesis(own_setup(sae, HookPoint(2)), tokens), there, moments.mean)
    chosen = {"patches": slice(1, None), "class": slice(0, 1), "all": slice(None)}[tokens]
    expected = quality(sae, torch.from_numpy(np.array(there.rows[:, chosen])).flatten(0, 1))
    assert found.normalized_mse == pytest.approx(expected.normalized_mse, rel=1e-5)
    assert found.l0 == pytest.approx(expected.l0)
    assert found.silent / found.width == pytest.approx(expected.silent_share)
    # A patch that stands for three counts three times.
    weighted = fit(sae, found.hypothesis, PointTokens(there.rows, 1, 3.0), moments.mean)
    assert weighted.tokens.tolist() == [{"patches": 48, "class": 1, "all": 49}[tokens]] * 40


@pytest.mark.parametrize("normalization", ["scale", "per_dimension"])
def test_statistics_of_the_pictures_are_those_that_training_takes(
    read: dict[HookPoint, PointTokens], normalization: Normalization
) -> None:
    there = read[HookPoint(1)]
    rows = torch.from_numpy(np.array(there.rows[:, 1:])).flatten(0, 1)
    wanted = initial_sae(topk(normalization=normalization, clamp=3.0), rows, 0)
    setup = Setup(HookPoint(1), normalization, "pictures", 3.0)
    made = placed(of_residual_2(read), Hypothesis(setup, "patches"), there, moments_of(there, "patches"))
    for name in ("mean", "scale", "limit"):
        torch.testing.assert_close(getattr(made, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)


def test_the_interval_of_a_dead_share_holds_what_more_pictures_give(read: dict[HookPoint, PointTokens]) -> None:
    # The share among so many pictures, over samples of that many: 95 % of the intervals hold it.
    sae, there = of_residual_2(read), read[HookPoint(2)]
    hypothesis = Hypothesis(own_setup(sae, HookPoint(2)), "class")
    mean = moments_of(there, "class").mean
    found = []
    for first in range(0, 600, 20):
        one = fit(sae, hypothesis, PointTokens(there.rows[first : first + 20], 1, 1.0), mean)
        found.append(Resampled(20, 0).dead_share(one))
    usual = np.mean([each.value for each in found])
    assert np.mean([each.low <= usual <= each.high for each in found]) > 0.85


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
