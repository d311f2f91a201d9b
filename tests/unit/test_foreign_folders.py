"""What is found in another project's file or folder: which SAE of several, its format, its settings and its place."""

import json

import pytest
import torch
from foreign_for_tests import inputs, same
from published_for_tests import D_MODEL, WIDTH, WRITTEN

from visae import cli
from visae.errors import ModelError
from visae.files import file_sha256
from visae.sae import load_sae
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.transfer import import_sae
from visae.sae.foreign.unsaid import Unsaid


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("saev", (None, None, "residual", "patches")),
        ("dictionary_learning-topk", ("a-vit", 3, "residual", "patches")),
        ("sae-for-vlm", ("openai/clip-vit-large-patch14-336", 22, "residual", "class")),
        ("vision-interp", ("a-vit", 3, "residual", "class")),
        ("ViSAE", ("openai/clip-vit-base-patch32", 7, "residual", "class")),
        ("prisma", ("open-clip:a/vit", 9, "mlp", "all")),
        ("prisma-topk", ("open-clip:a/vit", 9, "mlp", "class")),
        ("patchsae", ("openai/clip-vit-base-patch32", 10, "residual", "all")),
        ("saelens", ("a-vit", 3, "residual", "patches")),
    ],
)
def test_a_place_is_what_the_file_says(name, place, tmp_path):
    written = WRITTEN[name]
    import_sae(written.write(tmp_path / "theirs"), tmp_path / "ours", written.unsaid)
    found = load_sae(tmp_path / "ours/config.json").place
    assert (found.model, found.layer, found.hook, found.tokens) == place


def write_manifest(root):
    """A repository of saev's with three runs, and the tensors of each."""
    written, lines, made = WRITTEN["saev-5"], [], {}
    for number, (layer, run) in enumerate([(6, "aaa"), (6, "bbb"), (11, "ccc")]):
        made[run] = written.make(seed=number)
        folder = written.write(root / f"layer_{layer}" / run, made[run])
        path = (folder / "sae.pt").relative_to(root).as_posix()
        entry = {"run_id": run, "layer": layer, "l0": 12.5 + number, "mse": 0.25, "path": path}
        lines.append(json.dumps({**entry, "sha256": file_sha256(folder / "sae.pt")}))
    (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return made


def test_one_of_several_saes_of_a_manifest_is_chosen_by_run_or_by_path(tmp_path):
    root, written, x = tmp_path / "repository", WRITTEN["saev-5"], inputs()
    made = write_manifest(root)
    with pytest.raises(
        ModelError, match=r"has 3 SAEs; choose one with --member:\n  layer_6/aaa/sae\.pt: run_id aaa, lay"
    ):
        import_sae(root, tmp_path / "ours")
    for member in ("ccc", "layer_11/ccc", "layer_11/ccc/sae.pt"):
        cli.main(["import-sae", str(root), str(tmp_path / "ours"), "--member", member])
        sae = load_sae(tmp_path / "ours/config.json")
        assert same(sae.encode(x), written.codes(made["ccc"], x))
        assert sae.place.layer == 11
    assert read_foreign(root / "layer_6/bbb").given.sae.place.layer == 6
    for member in ("ddd", "../repository/layer_6/aaa"):
        with pytest.raises(ModelError, match=r"--member .*: not there; allowed: aaa, bbb, ccc, layer_11/ccc"):
            read_foreign(root, Unsaid(member=member))
    (root / "layer_6/aaa/sae.pt").write_bytes((root / "layer_6/bbb/sae.pt").read_bytes())
    with pytest.raises(ModelError, match=r"sae\.pt: not the file that .*manifest\.jsonl lists: its sha256 differs"):
        read_foreign(root, Unsaid(member="aaa"))
    (root / "manifest.jsonl").write_text("{damaged\n")
    with pytest.raises(ModelError, match=r"manifest\.jsonl: line 1: not an SAE's path and figures"):
        read_foreign(root)


def test_of_a_run_with_checkpoints_the_finished_sae_is_taken(tmp_path):
    written = WRITTEN["dictionary_learning-topk"]
    written.write(tmp_path / "run/trainer_0")
    written.write(tmp_path / "run/trainer_0/checkpoints", written.make(seed=9))
    found = read_foreign(tmp_path / "run")
    assert found.path == tmp_path / "run/trainer_0/ae.pt"
    written.write(tmp_path / "run/trainer_1")
    with pytest.raises(
        ModelError, match=r"has 2 SAEs; choose one with --member:\n  trainer_0/ae\.pt\n  trainer_1/ae\.pt"
    ):
        read_foreign(tmp_path / "run")


def test_what_is_of_no_format_is_named_with_its_tensors(tmp_path):
    torch.save({"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(
        ModelError, match=r"other\.pt: of no format .* tensors are fc\.bias, fc\.weight; known are visae, saev"
    ):
        read_foreign(tmp_path / "other.pt")
    torch.save([torch.zeros(3)], tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other\.pt: holds list, not tensors by name; save the SAE's state_dict"):
        read_foreign(tmp_path / "other.pt")
    with pytest.raises(ModelError, match="no such file or folder"):
        read_foreign(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/README.md").write_text("# Weights are elsewhere")
    with pytest.raises(
        ModelError, match=r"empty: no weights in it \(there is README\.md\); give the folder or the file"
    ):
        read_foreign(tmp_path / "empty")


def test_settings_in_yaml_are_read(tmp_path):
    written, x = WRITTEN["visaebench"], inputs()
    tensors = written.make()
    folder = written.write(tmp_path, tensors)
    (folder / "config.json").unlink()
    (folder / "config.yaml").write_text(
        f"input_dim: {D_MODEL}\nhidden_dim: {WIDTH}\nactivation: batchtopk\nk: 4\nthreshold: 0.9\n"
    )
    assert same(read_foreign(folder).given.sae.encode(x), written.codes(tensors, x))
    for text, message in (("a: [", "not YAML"), ("- 1", "a list or a single value instead of keys")):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(ModelError, match=rf"config\.yaml: {message}"):
            read_foreign(folder)


def test_a_wrapped_module_is_read_as_what_it_wraps(tmp_path):
    written = WRITTEN["dictionary_learning-topk"]
    tensors = written.make()
    for prefix in ("_orig_mod.", "module."):
        folder = written.write(tmp_path / prefix, {f"{prefix}{name}": tensor for name, tensor in tensors.items()})
        assert same(read_foreign(folder).given.sae.encode(inputs()), written.codes(tensors, inputs()))


def test_a_format_that_is_said_is_taken(tmp_path):
    written, x = WRITTEN["ViSAE"], inputs()
    folder = written.write(tmp_path / "theirs")
    found = read_foreign(folder)
    assert found.format == "ViSAE"
    assert "--as dictionary_learning takes tokens as they are" in found.given.notices[-1].text
    plain = read_foreign(folder, Unsaid(as_="dictionary_learning")).given
    assert plain.sae.normalization == "none"
    assert not plain.notices
    assert not same(plain.sae.encode(x), found.given.sae.encode(x), 1e-2)
    with pytest.raises(ModelError, match=r"tensors of no class of dictionary_learning: W_dec, b_dec"):
        read_foreign(WRITTEN["sparsify"].write(tmp_path / "other"), Unsaid(as_="dictionary_learning"))
    with pytest.raises(ModelError, match=r"not a file of visae's own: .* that of the project ViSAE is --as ViSAE"):
        read_foreign(folder, Unsaid(as_="visae"))
    with pytest.raises(ModelError, match="--rows: without effect on a file of sparsify"):
        read_foreign(tmp_path / "other", Unsaid(rows="l2"))


def test_schemas_and_classes_that_are_not_known_are_named(tmp_path):
    header = WRITTEN["saev-5"].said(D_MODEL, WIDTH)
    with pytest.raises(ModelError, match=r"schema: 6; allowed: none \(saev 0\.1\.0\), 1 to 5"):
        read_foreign(WRITTEN["saev-5"].write(tmp_path / "saev", **(header | {"schema": 6})))
    for name, key, value, message in [
        ("dictionary_learning-topk", "trainer", {"dict_class": "Crosscoder"}, "dict_class: 'Crosscoder'; allowed: Au"),
        ("visaebench", "activation", "softmax", "activation: 'softmax'; allowed: topk, batchtopk, jumprelu"),
        ("prisma", "architecture", "jumprelu", "architecture: 'jumprelu'; allowed: standard, gated"),
        ("prisma", "normalize_activations", "constant_norm_rescale", "'constant_norm_rescale'; allowed: layer"),
        ("prisma", "activation_fn_str", "tanh-relu", "'tanh-relu'; allowed: relu, or topk"),
        ("prisma", "is_transcoder", True, "is_transcoder: True; allowed: false"),
        ("patchsae", "gated_sae", True, "gated_sae: True; allowed: false"),
        ("sparsify", "activation", "groupmax", "activation: 'groupmax'; allowed: topk"),
        ("sparsify", "temperature", 2, "unknown keys: temperature"),
        ("sparsify", "k", WIDTH + 1, f"k: {WIDTH + 1}; allowed: a whole number from 1 to {WIDTH}"),
        ("saelens", "architecture", "temporal", "architecture: 'temporal'; allowed"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=message):
            read_foreign(WRITTEN[name].write(tmp_path / f"{name}-{key}-{value}".replace("'", ""), **{key: value}))


def test_settings_of_visaebench_beside_a_state_dict_of_overcomplete_are_taken(tmp_path):
    written, x = WRITTEN["overcomplete-topk"], inputs()
    tensors = written.make()
    folder = written.write(tmp_path / "theirs", tensors)
    pre = (x @ tensors["encoder.final_block.0.weight"].T + tensors["encoder.final_block.0.bias"]).relu()
    for said, codes in [
        ({"activation": "batchtopk", "k": 4, "threshold": 0.9}, pre * (pre >= 0.9)),
        ({"sae_type": "TopK", "k": 4}, written.codes(tensors, x)),
    ]:
        (folder / "config.json").write_text(json.dumps(said))
        assert same(read_foreign(folder).given.sae.encode(x), codes)
