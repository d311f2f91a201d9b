"""Where weights come from: files of several kinds and libraries, a hub, and what is refused."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_for_tests import only_this_hub, served
from owners_for_tests import vits_names
from safetensors.torch import load_file, save_file

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.files import file_sha256
from visae.vision.model import VisionModel, load_model, prepare_model

NAME = "test_vit.r160_in1k"
SIZE = 32


def identity(weights: str | Path, name: str = NAME) -> ModelIdentity:
    return ModelIdentity(architecture=name, weights=str(weights), image_size=SIZE)


def prepared(folder: Path, weights: str | Path, name: str = NAME, seed: int = 0) -> VisionModel:
    prepare_model(identity(weights, name), folder / "weights.safetensors", folder / "model.json", seed)
    return load_model(folder / "model.json")


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def state(tmp_path: Path) -> dict[str, torch.Tensor]:
    prepared(tmp_path / "made", "random", seed=7)
    return load_file(tmp_path / "made" / "weights.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_weights_loads(tmp_path: Path, state: dict, pixels: torch.Tensor, suffix: str, wrapped: bool) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{name}": t for name, t in state.items()}} if wrapped else state, path)
    model, original = prepared(tmp_path / "model", path), load_model(tmp_path / "made" / "model.json")
    assert torch.equal(model(pixels), original(pixels))
    assert torch.equal(model.logits(model(pixels)), original.logits(original(pixels)))
    assert model.card.weights_origin == f"mine{suffix} (sha256 {file_sha256(path)})"
    assert model.card.weights_sha256 == file_sha256(tmp_path / "model" / "weights.safetensors")


def test_weights_without_a_head_make_a_model_without_one(tmp_path: Path, state: dict, pixels: torch.Tensor) -> None:
    path = tmp_path / "backbone.safetensors"
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("head.")}, path)
    model, original = prepared(tmp_path / "model", path), load_model(tmp_path / "made" / "model.json")
    assert (model.card.n_classes, original.card.n_classes) == (0, 1000)
    assert torch.equal(model(pixels), original(pixels))
    assert model.logits(model(pixels)).shape == (2, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.1.attn.qkv.weight"), r"1 missing, such as blocks\.1\.attn\.qkv\.weight"),
        (lambda state: state.update(extra=torch.zeros(2)), r"1 unknown, such as extra"),
        (lambda state: state.update({"norm.weight": torch.zeros(3)}), r"size mismatch for norm\.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, state: dict, change, message: str) -> None:
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=rf"(?s)other\.safetensors do not fit {NAME}.*{message}"):
        prepared(tmp_path / "model", tmp_path / "other.safetensors")
    assert not (tmp_path / "model").exists()


class Evil:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_nothing_of_a_pickle_is_run(tmp_path: Path, save) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "was-run"
    save({"state_dict": Evil(trace)}, path)
    with pytest.raises(ModelError, match=r"evil\.pt holds no weights that can be read safely"):
        prepared(tmp_path / "model", path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ModelError, match=rf"cut\{suffix} holds no weights that can be read safely"):
        prepared(tmp_path / "model", path)


def test_damaged_prepared_weights_are_named(tmp_path: Path) -> None:
    prepared(tmp_path, "random")
    (tmp_path / "weights.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"weights\.safetensors is not what model\.json describes.*--force"):
        load_model(tmp_path / "model.json")


@pytest.fixture
def hub(tmp_path: Path, state: dict) -> Iterator[str]:
    """A hub of one repository, whose configuration says nothing of pictures."""
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 1000}))
    with served(folder) as address:
        yield address


def from_hub(folder: Path, hub: str, weights: str) -> subprocess.CompletedProcess:
    """Prepare a model in a process of its own, which knows no hub but this one."""
    command = [sys.executable, "-m", "visae", "model", "--settings", f"architecture={NAME}", f"weights={weights}"]
    command += [f"image_size={SIZE}", "--weights-path", str(folder / "weights.safetensors")]
    command += ["--card-path", str(folder / "model.json")]
    environment = only_this_hub(hub, folder / "hf")
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_another_repository_of_the_hub_loads(tmp_path: Path, hub: str, pixels: torch.Tensor) -> None:
    done = from_hub(tmp_path / "model", hub, "hub:someone/some-vit")
    assert done.returncode == 0, done.stderr
    model, original = load_model(tmp_path / "model" / "model.json"), load_model(tmp_path / "made" / "model.json")
    assert torch.equal(model(pixels), original(pixels))
    expected = f"hub:someone/some-vit: model.safetensors (sha256 {file_sha256(tmp_path / 'hub' / 'model.safetensors')})"
    assert model.card.weights_origin == expected


@pytest.mark.slow
def test_a_repository_in_transformers_names_loads(
    tmp_path: Path, hub: str, state: dict[str, torch.Tensor], pixels: torch.Tensor
) -> None:
    (tmp_path / "hub" / "model.safetensors").unlink()
    torch.save(vits_names(state), tmp_path / "hub" / "pytorch_model.bin")
    done = from_hub(tmp_path / "model", hub, "hub:someone/some-vit")
    assert done.returncode == 0, done.stderr
    model, original = load_model(tmp_path / "model" / "model.json"), load_model(tmp_path / "made" / "model.json")
    assert torch.equal(model(pixels), original(pixels))
    assert "some-vit: pytorch_model.bin" in model.card.weights_origin


@pytest.mark.slow
def test_a_repository_that_is_not_there_is_named(tmp_path: Path, hub: str) -> None:
    done = from_hub(tmp_path / "model", hub, "hub:someone/another")
    assert done.returncode == 1
    assert "ModelError" in done.stderr
    assert "someone/another" in done.stderr
    assert not (tmp_path / "model" / "model.json").exists()


def test_a_malformed_hub_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="write hub:organization/repository"):
        prepared(tmp_path, "hub:justone")
