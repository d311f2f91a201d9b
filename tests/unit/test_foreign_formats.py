"""Every format that is read: its codes, and what is refused of a file that is not what it should be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from foreign_for_tests import inputs, same
from published_for_tests import D_MODEL, WIDTH, WRITTEN

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
