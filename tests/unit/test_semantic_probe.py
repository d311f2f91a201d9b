"""The probe of a concept: planted latents, calibration, and folders with bad files, through a real model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from scipy.stats import kstest, rankdata
from sklearn.metrics import roc_auc_score

from visae.cli import main
from visae.config.concepts import ConceptSettings
from visae.config.settings import ModelIdentity
from visae.errors import ConfigError, DataError, ModelError
from visae.features import semantic_probe
from visae.features.semantic_probe import all_aucs, probe_concept, probed, untrained
from visae.sae.autoencoder import SparseAutoencoder, save_sae
from visae.sae.variants.topk import TopK
from visae.vision.model import prepare_model

IS_POSITIVE = np.repeat([True, False], 20)


def noise(random: np.random.Generator, width: int = 30) -> np.ndarray:
    return random.random((40, width)) * (random.random((40, width)) < 0.6)


def test_aucs_are_those_of_scikit_learn() -> None:
    values = noise(np.random.default_rng(0)).round(1)
    found = all_aucs(rankdata(values, axis=0), np.stack([IS_POSITIVE, ~IS_POSITIVE]))
    assert found[0] == pytest.approx([roc_auc_score(IS_POSITIVE, column) for column in values.T])
    assert found[1] == pytest.approx(1 - found[0])


def test_a_planted_latent_is_chosen_on_both_halves() -> None:
    values = noise(np.random.default_rng(1))
    values[:, 7] = IS_POSITIVE + 0.1 * values[:, 7]
    found = probed(values, IS_POSITIVE, 199, 0)
    assert found.latents == (7, 7)
    assert found.best_latent == 7
    assert found.auc == found.low == found.high == found.best_auc == 1
    assert found.p == found.p_best == 1 / 200
    assert found.null == pytest.approx(0.5, abs=0.05)
    assert 0.6 < found.null_best < 0.9


def test_noise_is_found_significant_no_more_often_than_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_probe, "RESAMPLES", 2)  # intervals are not looked at here
    random = np.random.default_rng(3)
    ties = np.random.default_rng(4)
    found = [probed(noise(random), IS_POSITIVE, 59, seed, ties) for seed in range(120)]
    for p in ([one.p for one in found], [one.p_best for one in found]):
        # Expected at 5 %: 6 of 120; more than 13 has a probability below 0.5 %.
        assert (np.array(p) <= 0.05).sum() <= 13
        assert kstest(p, "uniform").pvalue > 0.01
    # Scored where they were chosen, the same latents look good.
    assert np.mean([one.best_auc for one in found]) > 0.65
    assert np.mean([one.auc for one in found]) == pytest.approx(0.5, abs=0.03)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, an SAE of its layer 2, bright and dark pictures."""
    folder = tmp_path_factory.mktemp("probe")
    identity = ModelIdentity(architecture="vit_tiny_patch16_224", weights="random", image_size=32)
    prepare_model(identity, folder / "weights.safetensors", folder / "model.json")
    torch.manual_seed(0)
    sae = SparseAutoencoder(192, 64, TopK(4))
    with torch.no_grad():
        sae.decoder_weight.copy_(torch.nn.functional.normalize(torch.randn(64, 192)))
        sae.encoder_weight.copy_(sae.decoder_weight)
    save_sae(sae, folder / "sae", layer=2, hook=None)
    random = np.random.default_rng(0)
    for name, base in (("bright", 170), ("dark", 10)):
        (folder / name).mkdir()
        for number in range(6):
            picture = (base + random.integers(0, 60, (32, 32, 3))).astype(np.uint8)
            Image.fromarray(picture).save(folder / name / f"{number}.png")
    return folder


def probe(parts: Path, positives: str, negatives: str, **more: object) -> None:
    given = {"sae": parts / "sae" / "config.json", "model": parts / "model.json", "device": "cpu", "permutations": 49}
    concept = ConceptSettings(positives=str(parts / positives), negatives=str(parts / negatives))
    probe_concept(concept, **{**given, **more})


def test_folders_are_probed_from_the_command_line(parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (parts / "bright" / "broken.jpg").write_bytes(b"not a picture")
    shutil.copy(parts / "bright" / "1.png", parts / "bright" / "again.png")
    command = f"features probe --positives {parts}/bright --negatives {parts}/dark --sae {parts}/sae/config.json"
    main([*command.split(), "--model", f"{parts}/model.json", "--output", f"{parts}/out", "--permutations", "49"])
    said = capsys.readouterr().out
    assert "6 positive and 6 negative pictures, 2 skipped" in said
    assert "broken.jpg: unreadable picture" in said
    summary = json.loads((parts / "out" / "summary.json").read_text())
    assert {Path(entry["path"]).name for entry in summary["skipped"]} == {"broken.jpg", "again.png"}
    assert len(summary["positives"]) == len(summary["negatives"]) == 6
    provenance = summary["provenance"]
    assert provenance["inputs"].keys() == {"config.json", "model.json"}
    assert provenance["settings"] == {"positives": f"{parts}/bright", "negatives": f"{parts}/dark"}
    table = pl.read_parquet(parts / "out" / "probe.parquet")
    assert table["dictionary"].to_list() == ["trained", "always-on", "untrained"]
    assert (table["low"] <= table["auc"]).all()
    latents = pl.read_parquet(parts / "out" / "latents.parquet")
    assert latents.height == 64
    assert latents["auc"][0] == table["best_auc"][0]
    always_on = latents.filter(pl.col("frequency") == pl.col("frequency").max())["latent"].min()
    assert table["best_latent"][1] == always_on


def test_what_cannot_be_probed_is_a_clear_error(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"positives: .*nowhere: there is no such folder"):
        probe(parts, "nowhere", "dark")
    shutil.copytree(parts / "bright", parts / "mixed")
    shutil.copy(parts / "dark" / "0.png", parts / "mixed" / "renamed.png")
    with pytest.raises(DataError, match=r"renamed\.png is the same picture as .*0\.png"):
        probe(parts, "dark", "mixed")
    few = parts / "few"
    few.mkdir()
    shutil.copy(parts / "bright" / "2.png", few)
    with pytest.raises(DataError, match=r"positives: .*few: 1 pictures, 4 are needed"):
        probe(parts, "few", "dark")
    for name in ("bad.png", "worse.png", "worst.png"):
        (few / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)1 readable pictures, 4 are needed.*skipped: .*bad.png"):
        probe(parts, "few", "dark")
    with pytest.raises(ModelError, match="--layer: 40"):
        probe(parts, "bright", "dark", layer="40")
    sae = SparseAutoencoder(16, 8, TopK(2))
    save_sae(sae, tmp_path / "narrow")
    with pytest.raises(ConfigError, match="give it with --layer"):
        probe(parts, "bright", "dark", sae=tmp_path / "narrow" / "config.json")
    with pytest.raises(ModelError, match=r"16 dimensions, layer 2 of .* has 192"):
        probe(parts, "bright", "dark", sae=tmp_path / "narrow" / "config.json", layer="2")


def test_an_untrained_twin_differs_in_its_directions_alone(parts: Path) -> None:
    sae = SparseAutoencoder(16, 8, TopK(2))
    with torch.no_grad():
        sae.encoder_weight.normal_()
    twin = untrained(sae, 0)
    assert torch.allclose(twin.encoder_weight.norm(dim=1), sae.encoder_weight.norm(dim=1))
    assert not torch.allclose(twin.encoder_weight, sae.encoder_weight)
    assert torch.equal(untrained(sae, 0).encoder_weight, twin.encoder_weight)
