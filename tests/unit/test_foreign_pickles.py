"""Pickles of other projects: never run, and converted by the lines that the error names."""

import json
import subprocess
import sys

import pytest
import torch
from foreign_for_tests import inputs, same
from published_for_tests import D_MODEL, WIDTH, WRITTEN
from safetensors.torch import save_file

from visae.errors import ModelError
from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.transfer import import_sae


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
