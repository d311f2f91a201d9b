"""What another project's file does not say: asked for, said by hand, or computed from a store."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_for_tests import inputs, same
from published_for_tests import D_MODEL, WIDTH, WRITTEN

from visae import cli
from visae.activations.given import write_store
from visae.errors import ModelError
from visae.sae import load_sae
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.transfer import import_sae
from visae.sae.foreign.unsaid import Unsaid


def store(tmp_path, shift=3.0):
    values = np.random.default_rng(0).normal(size=(200, 6, D_MODEL)).astype(np.float32) * 2 + shift
    return values, write_store(tmp_path / "store", values, list(range(6)), {"train": 150, "val": 50})


def test_a_threshold_that_was_lost_is_asked_for_or_learned_again_and_said(tmp_path):
    written, x = WRITTEN["overcomplete-topk"], inputs()
    tensors = written.make()
    folder = written.write(tmp_path / "theirs", tensors)
    with pytest.raises(ModelError, match=r"code: None; allowed: --code relu, topk \(with --k\) or batchtopk"):
        read_foreign(folder)
    with pytest.raises(ModelError, match=r"threshold: None; .*--threshold, or say with --k .* --manifests"):
        import_sae(folder, tmp_path / "ours", Unsaid(code="batchtopk"))
    with pytest.raises(ModelError, match=r"threshold: it has been lost .* a token has 4 codes .* give --manifests"):
        import_sae(folder, tmp_path / "ours", Unsaid(code="batchtopk", k=4))
    assert not (tmp_path / "ours").exists()
    import_sae(folder, tmp_path / "said", Unsaid(code="batchtopk", threshold=0.9))
    pre = (x @ tensors["encoder.final_block.0.weight"].T + tensors["encoder.final_block.0.bias"]).relu()
    assert same(load_sae(tmp_path / "said/config.json").encode(x), pre * (pre >= 0.9))
    values, manifest = store(tmp_path, shift=0.0)
    cli.main(["import-sae", str(folder), str(tmp_path / "ours"), "--code", "batchtopk", "--k", "4",
              "--manifests", str(manifest)])  # fmt: skip
    sae = load_sae(tmp_path / "ours/config.json")
    train = torch.from_numpy(values[:150]).view(-1, D_MODEL)
    assert float((sae.encode(train) > 0).sum()) / len(train) == pytest.approx(4, abs=0.01)
    (notice,) = json.loads((tmp_path / "ours/config.json").read_text())["notices"][:1]
    assert notice["level"] == "warning"
    assert "lost from the file, and was learned again from 900 tokens" in notice["text"]


@pytest.mark.parametrize("name", ["visaebench", "saev"])
def test_a_mean_that_was_lost_is_warned_of_or_computed_again_and_said(name, tmp_path):
    written, x = WRITTEN[name], inputs() + 3
    tensors = written.make()
    folder = written.write(tmp_path / "theirs", tensors)
    import_sae(folder, tmp_path / "ours", written.unsaid)
    (notice,) = json.loads((tmp_path / "ours/config.json").read_text())["notices"]
    assert "a mean was subtracted and a scale divided by" in notice["text"]
    assert "--normalization gives them, or with --manifests" in notice["text"]
    values, manifest = store(tmp_path)
    import_sae(folder, tmp_path / "measured", written.unsaid, [manifest])
    train = torch.from_numpy(values[:150]).view(-1, D_MODEL)
    mean = train.mean(0)
    scale = (train - mean).square().mean().sqrt()
    if name == "saev":
        scale = (train - mean).norm(dim=1).mean() / D_MODEL**0.5
    sae = load_sae(tmp_path / "measured/config.json")
    assert same(sae.encode(x), written.codes(tensors, (x - mean) / scale), 1e-4)
    kept = json.loads((tmp_path / "measured/config.json").read_text())["notices"]
    assert "were computed from 900 tokens of the store" in kept[0]["text"]
    # Said by hand, nothing is computed, and nothing is to be warned of.
    import_sae(folder, tmp_path / "none", replace(written.unsaid, normalization=Path("none")))
    assert same(load_sae(tmp_path / "none/config.json").encode(x), written.codes(tensors, x))
    assert json.loads((tmp_path / "none/config.json").read_text())["notices"] == []
    (tmp_path / "own.json").write_text(json.dumps({"mean": mean.tolist(), "scale": [2.0] * D_MODEL}))
    import_sae(folder, tmp_path / "own", replace(written.unsaid, normalization=tmp_path / "own.json"))
    own = load_sae(tmp_path / "own/config.json")
    assert own.normalization == "per_dimension"
    assert same(own.encode(x), written.codes(tensors, (x - mean) / 2))


def test_a_store_gives_the_place_that_a_file_lacks_and_is_compared_with_the_one_that_it_names(tmp_path):
    values = np.random.default_rng(0).normal(size=(200, 6, D_MODEL)).astype(np.float32)
    manifest = write_store(tmp_path / "store", values, list(range(6)), {"train": 150, "val": 50}, layer=10)
    import_sae(WRITTEN["visaebench"].write(tmp_path / "silent"), tmp_path / "ours", manifests=[manifest])
    assert load_sae(tmp_path / "ours/config.json").place.layer == 10
    named = WRITTEN["dictionary_learning-topk"].write(tmp_path / "named")
    with pytest.raises(ModelError, match=r"trained on layer 3, and .*manifest\.json has layer 10"):
        import_sae(named, tmp_path / "named-ours", None, [manifest])
    assert not (tmp_path / "named-ours").exists()


def test_a_normalization_of_each_token_is_said_by_hand(tmp_path):
    written, x = WRITTEN["patchsae"], inputs()
    tensors = written.make()
    folder = written.write(tmp_path / "theirs", tensors)
    cli.main(["import-sae", str(folder), str(tmp_path / "ours"), "--normalization", "per_token"])
    centred = x - x.mean(1, keepdim=True)
    codes = written.codes(tensors, centred / (centred.std(1, keepdim=True) + 1e-5))
    assert same(load_sae(tmp_path / "ours/config.json").encode(x), codes)
    with pytest.raises(ModelError, match="--normalization data: computed from a store; give --manifests"):
        import_sae(folder, tmp_path / "ours", Unsaid(normalization=Path("data")))


@pytest.mark.parametrize("name", ["saev-5", "dictionary_learning-matryoshka", "sae-for-vlm"])
def test_a_threshold_that_is_missing_is_named_and_learned_again_where_there_is_data(name, tmp_path):
    written = WRITTEN[name]
    key = "activation.threshold" if name == "saev-5" else "threshold"
    folder = written.write(tmp_path / "theirs", {n: t for n, t in written.make().items() if n != key})
    with pytest.raises(
        ModelError, match=r"threshold: it has been lost .* 4 codes .*--manifests of a store, or .*--thres"
    ):
        import_sae(folder, tmp_path / "ours", written.unsaid)
    assert not (tmp_path / "ours").exists()
    import_sae(folder, tmp_path / "said", replace(written.unsaid, threshold=0.9))
    full = read_foreign(written.write(tmp_path / "full", written.make() | {key: torch.tensor(0.9)}), written.unsaid)
    assert torch.equal(load_sae(tmp_path / "said/config.json").encode(inputs()), full.given.sae.encode(inputs()))
    _, manifest = store(tmp_path, shift=0.0)
    import_sae(folder, tmp_path / "ours", replace(written.unsaid, tokens="patches", layer=0), [manifest])
    sae = load_sae(tmp_path / "ours/config.json")
    assert sae.variant.name == full.given.sae.variant.name
    assert json.loads((tmp_path / "ours/summary.json").read_text())["l0"] == pytest.approx(4, abs=0.7)


def test_thresholds_that_visaebench_would_take_for_granted_are_asked_for(tmp_path):
    written = WRITTEN["visaebench"]
    said = written.said(D_MODEL, WIDTH)
    del said["threshold"]
    folder = written.write(tmp_path / "theirs")
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=r"threshold: it has been lost from the file; .* give --manifests"):
        import_sae(folder, tmp_path / "ours")
    (folder / "config.json").write_text(json.dumps({**said, "activation": "jumprelu"}))
    with pytest.raises(ModelError, match="'jump_thresholds' or 'thresholds' is missing for jumprelu"):
        import_sae(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
