"""SAEs from elsewhere are taken in where they belong, and as what was wanted, or are refused by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sae_variants import D_MODEL, planted
from safetensors.torch import save_file
from torch.nn.functional import normalize

from visae.activations.given import write_store
from visae.config.published import PublishedSettings
from visae.errors import ModelError
from visae.files import file_sha256, read_json
from visae.sae import load_sae
from visae.sae.foreign.fitting import check_wanted
from visae.sae.foreign.published_sae import import_published
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.transfer import import_sae
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.place import Place

WIDTH = 40


def of_sparsify(folder: Path, d_model: int = D_MODEL) -> Path:
    """Files of sparsify; their folder tells the block."""
    generator = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(WIDTH, d_model, generator=generator))
    tensors = {"encoder.weight": rows, "encoder.bias": torch.zeros(WIDTH), "W_dec": rows.clone()}
    folder.mkdir(parents=True)
    save_file(tensors | {"b_dec": torch.zeros(d_model)}, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"num_latents": WIDTH, "k": 4, "d_in": d_model}))
    return folder


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return of_sparsify(tmp_path / "theirs/layers.7")


def store(folder: Path, **said) -> Path:
    """Manifest of a store of block 7, or as it says."""
    values = planted(40 * 16, seed=1).view(40, 16, D_MODEL).numpy()
    manifest = write_store(folder, values, list(range(16)), {"train": 30, "val": 10})
    known = {"layer": 7, "hook": "residual", "model": {"architecture": "a-vit", "weights_sha256": "aa"}}
    manifest.write_text(json.dumps(read_json(manifest) | known | said))
    return manifest


def place_of(folder: Path) -> Place:
    return load_sae(folder / "config.json").place


def test_what_its_file_does_not_say_of_its_place_the_store_says(theirs, tmp_path):
    import_sae(theirs, tmp_path / "alone")
    assert place_of(tmp_path / "alone") == Place(layer=7)
    import_sae(theirs, tmp_path / "out", manifests=[store(tmp_path / "store")])
    assert place_of(tmp_path / "out") == Place("a-vit", "aa", 7)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"layer": 8}, "it was trained on layer 7, and .*manifest.json has layer 8"),
        ({"hook": "mlp"}, "it was trained on hook residual, and .*manifest.json has hook mlp"),
    ],
)
def test_a_store_of_another_place_is_refused(theirs, tmp_path, said, message):
    manifest = store(tmp_path / "store", **said)
    with pytest.raises(ModelError, match=message):
        import_sae(theirs, tmp_path / "out", manifests=[manifest])
    assert not (tmp_path / "out").exists()
    # What is said by hand overrules a file.
    import_sae(theirs, tmp_path / "out", manifests=[manifest], unsaid=Unsaid(**said))
    assert place_of(tmp_path / "out") == Place("a-vit", "aa", said.get("layer", 7), said.get("hook", "residual"))


def test_activations_of_another_width_are_refused(tmp_path):
    other = of_sparsify(tmp_path / "theirs/layers.7", D_MODEL + 1)
    with pytest.raises(ModelError, match=f"has activations of {D_MODEL} numbers, and .* is for {D_MODEL + 1}"):
        import_sae(other, tmp_path / "out", manifests=[store(tmp_path / "store")])
    assert not (tmp_path / "out").exists()


def test_a_section_of_a_study_writes_what_training_would(theirs, tmp_path):
    sha256 = file_sha256(theirs / "sae.safetensors")
    section = {"kind": "published", "source": str(theirs), "as_": "sparsify", "sha256": sha256, "width": WIDTH}
    manifest = store(tmp_path / "store")
    import_published(PublishedSettings(**section, tokens="all"), tmp_path / "out", [manifest])
    config = read_json(tmp_path / "out/config.json")
    assert (config["imported"]["format"], config["imported"]["sha256"]) == ("sparsify", sha256)
    assert place_of(tmp_path / "out").tokens == "all"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "sae.safetensors", "summary.json", "metrics.parquet")
    }
    for change, message in (
        ({"sha256": "0" * 64}, f"saes: not: .*layers.7: sha256: its weights have {sha256}, and 000"),
        ({"width": WIDTH + 1}, f"saes: not: .*layers.7: width: it has {WIDTH} latents, and {WIDTH + 1} were wanted"),
        ({"as_": "saev"}, "saes: not: "),
        ({"source": str(tmp_path / "gone")}, "saes: not: .*gone: no such file or folder"),
    ):
        with pytest.raises(ModelError, match=message):
            import_published(PublishedSettings(**{**section, **change}), tmp_path / "not", [manifest])
    assert not (tmp_path / "not").exists()


def test_an_sae_of_class_tokens_is_taken_in_where_the_section_says_so(theirs):
    sae = read_foreign(theirs, Unsaid(tokens="class")).given.sae
    section = PublishedSettings(kind="published", source=str(theirs))
    with pytest.raises(
        ModelError, match=r"tokens: it was trained on class tokens, as its file says; write tokens: class"
    ):
        check_wanted(sae, "", section.wanted, "theirs")
    check_wanted(sae, "", replace(section, tokens="class").wanted, "theirs")
