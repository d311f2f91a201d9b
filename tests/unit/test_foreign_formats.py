"""Every format that is read: its codes, and what is refused of a file that is not what it should be."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_for_tests import D_MODEL, WIDTH, WRITTEN
from safetensors.torch import save_file

from visae import cli
from visae.activations.given import write_store
from visae.errors import ModelError
from visae.files import file_sha256
from visae.sae import load_sae
from visae.sae.foreign.registry import READERS, read_foreign
from visae.sae.foreign.transfer import import_sae
from visae.sae.foreign.unsaid import Unsaid

ALL = pytest.mark.parametrize("name", WRITTEN)
# Those whose d_target is d_model: a square one has two square matrices.
SQUARE = [name for name in WRITTEN if "transcoder" not in name]


def inputs(d_model=D_MODEL, n=300):
    return torch.randn(n, d_model, generator=torch.Generator().manual_seed(5)) * 2 + 0.5


def same(found, expected, within=1e-5):
    return float((found - expected).norm() / expected.norm()) < within


def test_each_format_is_among_those_written_here(tmp_path):
    for number, (name, written) in enumerate(WRITTEN.items()):
        assert read_foreign(written.write(tmp_path / str(number)), written.unsaid).format in name
    found = {read_foreign(w.write(tmp_path / f"again{n}"), w.unsaid).format for n, w in enumerate(WRITTEN.values())}
    assert found == set(READERS) - {"visae"}


@ALL
def test_codes_are_those_of_the_formula_before_and_after_the_file(name, tmp_path):
    written = WRITTEN[name]
    tensors, x = written.make(), inputs()
    import_sae(written.write(tmp_path / "theirs", tensors), tmp_path / "ours", written.unsaid)
    sae = load_sae(tmp_path / "ours/config.json")
    expected = written.codes(tensors, x)
    assert int((expected > 0).sum()) > 200
    assert int((expected == 0).sum()) > 200
    assert same(sae.encode(x), expected)
    assert torch.equal(sae.sparse_codes(x).dense() > 0, expected > 0)
    config = json.loads((tmp_path / "ours/config.json").read_text())
    file = tmp_path / "theirs" / written.file
    assert config["imported"]["format"] in name
    assert config["imported"]["sha256"] == file_sha256(file)


@ALL
def test_a_format_is_told_by_what_is_in_it(name, tmp_path):
    written = WRITTEN[name]
    expected = read_foreign(written.write(tmp_path / "theirs"), written.unsaid)
    folder = tmp_path / "renamed"
    folder.mkdir()
    (folder / "something.data").write_bytes((tmp_path / "theirs" / written.file).read_bytes())
    beside = tmp_path / "theirs" / written.settings_in
    if beside.is_file():
        (folder / "said.json").write_bytes(beside.read_bytes())
    (folder / "README.md").write_text("# An SAE")
    for source in (folder, folder / "something.data"):
        found = read_foreign(source, written.unsaid)
        assert found.format == expected.format
        assert torch.equal(found.given.sae.encode(inputs()), expected.given.sae.encode(inputs()))


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_dtypes_are_read(name, dtype, tmp_path):
    written = WRITTEN[name]
    tensors = {key: value.to(dtype) if value.is_floating_point() else value for key, value in written.make().items()}
    sae = read_foreign(written.write(tmp_path, tensors), written.unsaid).given.sae
    exact = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    assert sae.encoder_weight.dtype == torch.float32
    assert same(sae.encode(inputs()), written.codes(exact, inputs()), 1e-4)


@ALL
def test_a_file_that_is_cut_is_named_and_nothing_is_left(name, tmp_path):
    written = WRITTEN[name]
    path = written.write(tmp_path / "theirs") / written.file
    whole = path.read_bytes()
    for n_bytes in (0, 5, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        for source in (path, path.parent):
            with pytest.raises(ModelError, match=path.name) as caught:
                import_sae(source, tmp_path / "ours", written.unsaid)
            assert "copy it again" in str(caught.value) or "no weights" in str(caught.value)
    assert not (tmp_path / "ours").exists()


@ALL
def test_values_that_are_no_numbers_are_named(name, tmp_path):
    written = WRITTEN[name]
    for value in (torch.nan, torch.inf):
        for key in (written.encoder, written.decoder, written.bias):
            tensors = {other: tensor.contiguous().clone() for other, tensor in written.make().items()}
            tensors[key].view(-1)[3] = value
            with pytest.raises(ModelError, match=rf"{written.file}: {key}: 1 of \d+ values are NaN or infinite; take"):
                import_sae(written.write(tmp_path / "theirs", tensors), tmp_path / "ours", written.unsaid)
    assert not (tmp_path / "ours").exists()


@ALL
def test_matrices_the_other_way_round_are_named(name, tmp_path):
    written = WRITTEN[name]
    for key in (written.encoder, written.decoder):
        tensors = written.make()
        tensors[key] = tensors[key].T
        with pytest.raises(ModelError, match=rf"{key} has shape .* belongs: it is transposed; save it the other way"):
            import_sae(written.write(tmp_path / "theirs", tensors), tmp_path / "ours", written.unsaid)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("which", ["encoder", "decoder", "both"])
def test_square_matrices_that_look_transposed_are_refused_and_turned_round_when_told(name, which, tmp_path):
    written = WRITTEN[name]
    right, x = written.make(WIDTH, WIDTH), inputs(WIDTH)
    expected = read_foreign(written.write(tmp_path / "right", right), written.unsaid).given.sae
    assert same(expected.encode(x), written.codes(right, x))
    keys = {"encoder": [written.encoder], "decoder": [written.decoder]}.get(which, [written.encoder, written.decoder])
    wrong = right | {key: right[key].T for key in keys}
    folder = written.write(tmp_path / "wrong", wrong)
    with pytest.raises(ModelError, match=rf"square, and .*--transposed {which}"):
        import_sae(folder, tmp_path / "ours", written.unsaid)
    assert not (tmp_path / "ours").exists()
    turned = read_foreign(folder, replace(written.unsaid, transposed=which)).given.sae
    assert same(turned.encode(x), expected.encode(x))
    said = {"rows": "identity"} if written.decoder == "dictionary._weights" else {}
    kept = read_foreign(folder, replace(written.unsaid, transposed="none", **said)).given.sae
    assert not same(kept(x), expected(x), 1e-2)


@ALL
def test_tensors_that_are_missing_or_unknown_are_named(name, tmp_path):
    written = WRITTEN[name]
    tensors = written.make()
    unknown = tensors | {"W_secret": torch.zeros(3)}
    format_ = next(other for other in sorted(READERS, key=len, reverse=True) if name.startswith(other))
    said = replace(written.unsaid, as_=format_)
    with pytest.raises(ModelError, match="W_secret"):
        import_sae(written.write(tmp_path / "unknown", unknown), tmp_path / "ours", said)
    optional = {"decoder.bias", "threshold", "k", "dictionary.multiplier", "activation.threshold", "thresholds"}
    for key in tensors.keys() - optional:
        missing = {other: tensor for other, tensor in tensors.items() if other != key}
        with pytest.raises(ModelError):
            import_sae(written.write(tmp_path / f"without-{key}", missing), tmp_path / "ours", said)
    assert not (tmp_path / "ours").exists()


@ALL
def test_a_store_of_another_models_width_is_named(name, tmp_path):
    written = WRITTEN[name]
    values = np.random.default_rng(0).normal(size=(20, 4, D_MODEL + 1)).astype(np.float32)
    manifest = write_store(tmp_path / "store", values, list(range(4)), {"train": 15, "val": 5})
    message = (
        "leave --manifests out" if "transcoder" in name else rf"activations of {D_MODEL + 1} numbers, and .* is for"
    )
    with pytest.raises(ModelError, match=message):
        import_sae(written.write(tmp_path / "theirs"), tmp_path / "ours", written.unsaid, [manifest])
    assert not (tmp_path / "ours").exists()


@ALL
def test_settings_of_another_size_are_named(name, tmp_path):
    written = WRITTEN[name]
    if not written.said(1, 1) or name == "ViSAE":
        return
    folder = written.write(tmp_path / "theirs")
    small = WRITTEN[name].said(D_MODEL - 1, WIDTH)
    if written.settings_in in ("header", "file"):
        written.write(tmp_path / "theirs", **small)
    else:
        (folder / written.settings_in).write_text(json.dumps(small))
    with pytest.raises(ModelError, match=r"two SAEs|has shape|belong"):
        import_sae(folder, tmp_path / "ours", written.unsaid)


@ALL
def test_odd_values_of_settings_are_refused_or_without_effect(name, tmp_path):
    written = WRITTEN[name]
    said = written.said(D_MODEL, WIDTH)
    places = [(key,) for key in said] + [
        (key, inner) for key in said if isinstance(said[key], dict) for inner in said[key]
    ]
    for number, place in enumerate(places):
        for odd in ([], "odd", -1, 1.5, None, {}, {"odd": 1}, float("nan")):
            changed = odd if len(place) == 1 else {**said[place[0]], place[1]: odd}
            folder = written.write(tmp_path / str(number), **{place[0]: changed})
            try:
                read_foreign(folder, written.unsaid)
            except ModelError as error:
                message = str(error)
                assert str(folder) in message


@ALL
def test_tensors_of_odd_shapes_are_refused_or_without_effect(name, tmp_path):
    written = WRITTEN[name]
    tensors = written.make()
    odd = [torch.zeros(()), torch.zeros(0), torch.zeros(7), torch.zeros(2, 3, 4), torch.zeros(0, D_MODEL)]
    odd += [torch.ones(WIDTH, dtype=torch.bool), torch.zeros(WIDTH, D_MODEL, dtype=torch.complex64)]
    for key in tensors:
        for number, value in enumerate(value for value in odd if value.shape != tensors[key].shape):
            folder = written.write(tmp_path / f"{key}-{number}", tensors | {key: value})
            try:
                import_sae(folder, tmp_path / "ours", written.unsaid)
            except ModelError as error:
                message = str(error)
                assert str(folder) in message
            else:
                assert key in ("k", "group_sizes", "b_enc"), "an odd tensor was taken"


class Runs:
    """Says that it was run."""

    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('ran').write_text('')",))


@pytest.mark.parametrize("where", ["alone", "nested", "after a line of JSON"])
def test_a_pickle_is_never_run(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sae.pt"
    with path.open("wb") as file:
        if where == "after a line of JSON":
            file.write(b"{}\n")
        torch.save({"alone": Runs()} if where != "nested" else {"cfg": {"a": [Runs()]}, "state_dict": {}}, file)
    for source in (path, tmp_path):
        with pytest.raises(ModelError, match=r"sae\.pt: holds objects of .*exec, and to open it would be to run"):
            import_sae(source, tmp_path / "ours")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "ours").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "saving"),
    [
        ("theirs.pt", "torch.save(saved, 'theirs.pt')"),
        ("theirs.pt", "torch.save(saved, 'theirs.pt', _use_new_zipfile_serialization=False)"),
        ("theirs.pkl", "pickle.dump(saved, open('theirs.pkl', 'wb'))"),
        ("theirs.pkl.gz", "pickle.dump(saved, gzip.open('theirs.pkl.gz', 'wb'))"),
        ("theirs.pt", "file = open('theirs.pt', 'wb'); file.write(b'{}\\n'); torch.save(saved, file)"),
        ("theirs.pt", "torch.save(own_config.as_module(saved), 'theirs.pt')"),
    ],
)
def test_the_lines_that_convert_a_pickle_make_what_is_read(name, saving, tmp_path):
    """The settings' class can be imported where its owner runs them, and not here."""
    written, x = WRITTEN["patchsae"], inputs()
    tensors = written.make()
    (tmp_path / "own_config.py").write_text(
        "import torch\nclass Config:\n    pass\nclass Sae(torch.nn.Module):\n    pass\n"
        "def as_module(saved):\n    sae = Sae()\n    sae.cfg = saved['cfg']\n"
        "    for name, tensor in saved['state_dict'].items():\n        sae.register_buffer(name, tensor)\n"
        "    return sae\n"
    )
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "tensors.safetensors")
    (tmp_path / "said.json").write_text(json.dumps(written.said(D_MODEL, WIDTH)))
    making = (
        "import gzip, json, pickle, torch, own_config; from safetensors.torch import load_file\n"
        "config = own_config.Config(); config.__dict__ = json.load(open('said.json')); config.dtype = torch.float32\n"
        f"saved = {{'cfg': config, 'state_dict': load_file('tensors.safetensors')}}\n{saving}\n"
    )
    subprocess.run([sys.executable, "-c", making], cwd=tmp_path, check=True)
    with pytest.raises(ModelError, match=r"to open it would be to run .* run these lines beside it") as caught:
        import_sae(tmp_path / name, tmp_path / "ours")
    _, _, lines = str(caught.value).partition("\n\n")
    subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, check=True)
    found = read_foreign(tmp_path / "theirs-converted")
    assert found.format == "patchsae"
    assert same(found.given.sae.encode(x), written.codes(tensors, x))


@pytest.mark.parametrize(
    ("module", "kind", "name"),
    [
        ("vit_prisma.sae.config", "VisionModelSAERunnerConfig", "prisma"),
        ("src.sae_training.config", "ViTSAERunnerConfig", "patchsae"),
    ],
)
def test_settings_objects_of_known_projects_are_read_as_the_values_that_they_hold(module, kind, name, tmp_path):
    written, x = WRITTEN[name], inputs()
    tensors = written.make()
    said = written.said(D_MODEL, WIDTH) | {"dtype": torch.float32, "device": torch.device("cpu")}
    making = (
        "import sys, types, torch\n"
        f"parts = {module!r}.split('.')\n"
        "for n in range(len(parts)):\n    sys.modules['.'.join(parts[: n + 1])] = types.ModuleType(parts[n])\n"
        f"config = type({kind!r}, (), {{'__module__': {module!r}}})\n"
        f"setattr(sys.modules[{module!r}], {kind!r}, config)\n"
        "loaded = torch.load('plain.pt'); made = config(); made.__dict__ = loaded['cfg']\n"
        "torch.save({'cfg': made, 'state_dict': loaded['state_dict']}, 'theirs.pt')\n"
    )
    torch.save({"cfg": said, "state_dict": tensors}, tmp_path / "plain.pt")
    subprocess.run([sys.executable, "-c", making], cwd=tmp_path, check=True)
    found = read_foreign(tmp_path / "theirs.pt")
    assert found.format == name
    assert same(found.given.sae.encode(x), written.codes(tensors, x))


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


def test_a_safetensors_file_whose_length_begins_like_a_pickle_is_one(tmp_path):
    written = WRITTEN["patchsae"]
    tensors = {name: tensor.contiguous() for name, tensor in written.make().items()}
    path = tmp_path / "weights"
    for n in range(0, 256, 4):
        save_file(tensors, path, metadata={"note": "x" * n})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    (tmp_path / "config.json").write_text(json.dumps(written.said(D_MODEL, WIDTH)))
    assert same(read_foreign(tmp_path).given.sae.encode(inputs()), written.codes(tensors, inputs()))


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


@ALL
def test_a_format_that_a_file_is_not_of_is_refused_or_gives_what_it_says(name, tmp_path):
    written = WRITTEN[name]
    folder = written.write(tmp_path / "theirs")
    own = read_foreign(folder, written.unsaid).format
    messages = []
    for other in READERS.keys() - {own}:
        try:
            import_sae(folder, tmp_path / "ours", Unsaid(as_=other))
        except ModelError as error:
            messages.append(str(error))
    assert len(messages) >= 6
    assert all(str(folder) in message for message in messages)


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
