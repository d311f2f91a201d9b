"""Files of other projects, opened safely: whatever is in them is handed on as tensors and plain values.

No pickle is run. A settings object of a project is read as the values that it holds, without its class; any other
object makes the file one that is refused, with the lines by which whoever trusts it can convert it.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from visae.errors import ModelError
from visae.sae.foreign.file_kinds import GZIP, OLD_TORCH, PICKLE, is_archive, kind_of, start_of
from visae.weights import read_weights

# Settings objects that projects put beside the weights in their files.
_SETTINGS_CLASSES = (
    "vit_prisma.sae.config.VisionModelSAERunnerConfig",
    "vit_prisma.sae.training.config.VisionModelSAERunnerConfig",
    "vit_prisma.configs.HookedViTConfig.HookedViTConfig",
    "src.sae_training.config.ViTSAERunnerConfig",
    "src.sae_training.config.Config",
    "sae_training.config.ViTSAERunnerConfig",
    "sae_training.config.Config",
)
# Names of settings that stand beside weights.
SETTINGS_FILES = ("cfg.json", "config.json", "config.yaml", "config.yml")
_NESTED = ("state_dict", "model_state_dict", "autoencoder", "sae", "model")
_WRAPPERS = ("_orig_mod.", "module.")


@dataclass(frozen=True)
class Contents:
    """What one file has, and what stands beside it.

    Parameters
    ----------
    path
        File of the tensors.
    tensors
        By name, as they are in the file.
    said
        Settings: the file's own, else those of the JSON beside it; empty where there are none.
    said_in
        File that says them.
    is_headed
        Whether the file begins with a line of JSON, as saev's do.
    listed
        Entry of a manifest.jsonl above that lists the file; empty where there is none.
    """

    path: Path
    tensors: dict[str, Tensor]
    said: dict[str, Any]
    said_in: Path
    is_headed: bool = False
    listed: dict[str, Any] = field(default_factory=dict)

    def section(self, key: str) -> dict[str, Any]:
        """Settings of a key that groups some; empty where it says none."""
        found = self.said.get(key)
        return found if isinstance(found, dict) else {}

    def wrong(self, key: str, value: Any, allowed: str) -> ModelError:
        """Error that names the file, a key, its value, and what is allowed."""
        return ModelError(f"{self.said_in}: {key}: {value!r}; allowed: {allowed}")


class _Settings:
    """Stands for a project's settings object: it holds the values, and does nothing."""


def open_file(path: Path) -> Contents:
    """Contents of one file of tensors.

    Raises
    ------
    ModelError
        If it is missing, damaged, no file of tensors, or holds what only running it would give.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if is_archive(path):
        raise ModelError(f"{path}: an archive, not a file of weights; unpack it, and give the folder that comes of it")
    kind = kind_of(path)
    if kind == "safetensors" or (kind is None and path.suffix == ".safetensors"):
        return _beside(path, read_weights(path), {})
    if kind == "torch":
        return _beside(path, *_parted(path, _loaded(path, path)))
    with path.open("rb") as file:
        first, rest = file.readline(), file.read()
    header = _header(path, first)
    tensors, _ = _parted(path, _loaded(path, io.BytesIO(rest)))
    return Contents(path, tensors, header, path, is_headed=True)


def _header(path: Path, first: bytes) -> dict[str, Any]:
    """Line of JSON at the start of a file that is neither of safetensors nor of torch.save."""
    try:
        return _without_repeats(path, first.decode())
    except (ValueError, ModelError) as error:
        raise ModelError(
            f"{path}: neither a safetensors file nor one of torch.save, with or without saev's first line of JSON: it "
            "is damaged, or holds no weights; copy it again from where it was made"
        ) from error


def _loaded(path: Path, source: Path | io.BytesIO) -> Any:
    """What torch.save has written, opened without running any of it."""
    if start_of(path).startswith(GZIP):
        raise ModelError(_refusal(path, pickle.UnpicklingError("compressed")))
    try:
        is_zip = zipfile.is_zipfile(source)
        if isinstance(source, io.BytesIO):
            source.seek(0)
        # Of the protocol of a pickle, which is about to be refused.
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Settings, n) for n in _SETTINGS_CLASSES]):
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(source, map_location="cpu", weights_only=True, mmap=is_zip and isinstance(source, Path))
    except pickle.UnpicklingError as error:
        raise ModelError(_refusal(path, error)) from error
    except MemoryError:
        raise
    # What is damaged fails in whatever way its bytes happen to say: there is no list of the errors.
    except Exception as error:
        raise ModelError(f"{path}: damaged ({_line(error)}); copy it again from where it was made") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Why a pickle is not opened, and the lines that convert it."""
    found = re.search(r"GLOBAL (\S+)|class (\S+) was not", str(error))
    what = f"objects of {found[1] or found[2]}" if found else "a pickle that no torch.save of weights has"
    folder = f"{path.name.partition('.')[0]}-converted"
    return (
        f"{path}: holds {what}, and to open it would be to run what is in it, which visae never does. If you trust "
        "it, run these lines beside it where the project that wrote it is installed, and give the folder "
        f"{folder!r} instead:\n\n"
        "import gzip, json, os, pickle, torch\n"
        "from safetensors.torch import save_file\n"
        f"{_opening(path)}\n"
        "if isinstance(loaded, torch.nn.Module):\n"
        "    loaded = {'cfg': getattr(loaded, 'cfg', {}), 'state_dict': loaded.state_dict()}\n"
        "settings = loaded.get('cfg', loaded.get('config', {}))\n"
        "settings = settings if isinstance(settings, dict) else vars(settings)\n"
        "if not settings and os.path.exists('config.json'):\n"
        "    settings = json.load(open('config.json'))\n"
        "state = loaded.get('state_dict', loaded)\n"
        "state = {name: value.contiguous() for name, value in state.items() if isinstance(value, torch.Tensor)}\n"
        f"os.makedirs({folder!r}, exist_ok=True)\n"
        f"save_file(state, {folder + '/weights.safetensors'!r})\n"
        f"json.dump(settings, open({folder + '/config.json'!r}, 'w'), default=str)\n"
    )


def _opening(path: Path) -> str:
    """Lines of Python that open a pickle, whatever has written it."""
    start = start_of(path)
    if start.startswith(GZIP):
        return f"loaded = pickle.load(gzip.open({path.name!r}))"
    if start.startswith(PICKLE) and start != OLD_TORCH:
        return f"loaded = pickle.load(open({path.name!r}, 'rb'))"
    skipped = "file.readline()\n" if start.startswith(b"{") else ""
    return (
        f"file = open({path.name!r}, 'rb')\n{skipped}loaded = torch.load(file, map_location='cpu', weights_only=False)"
    )


def _parted(path: Path, loaded: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of what torch.save has written."""
    said: dict[str, Any] = {}
    while isinstance(loaded, Mapping) and not any(isinstance(value, Tensor) for value in loaded.values()):
        for name in ("cfg", "config"):
            if (settings := _plain(loaded.get(name))) and isinstance(settings, dict):
                said = settings
        nested = next((loaded[name] for name in _NESTED if isinstance(loaded.get(name), Mapping)), None)
        if nested is None:
            break
        loaded = nested
    if not isinstance(loaded, Mapping) or not all(isinstance(name, str) for name in loaded):
        raise ModelError(f"{path}: holds {type(loaded).__name__}, not tensors by name; save the SAE's state_dict")
    # Numbers stand among tensors in some files.
    tensors = {
        name: torch.tensor(value, dtype=torch.float64) if isinstance(value, float | int) else value
        for name, value in loaded.items()
        if value is not None
    }
    if odd := sorted(name for name, value in tensors.items() if not isinstance(value, Tensor)):
        raise ModelError(f"{path}: {', '.join(odd[:8])}: not tensors; save the SAE's state_dict alone")
    for prefix in _WRAPPERS:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors, said


def _plain(value: Any) -> Any:
    """Settings as plain values: objects that stand for a project's own become what they hold."""
    if isinstance(value, _Settings):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _beside(path: Path, tensors: dict[str, Tensor], said: dict[str, Any]) -> Contents:
    """Contents with the settings that stand beside a file, where it has none of its own."""
    if said:
        return Contents(path, tensors, said, path)
    candidates = [path.with_name(name) for name in (*SETTINGS_FILES, f"{path.stem}.json")]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        others = [other for other in sorted(path.parent.glob("*.json")) if _has_keys(other)]
        found = others[0] if len(others) == 1 else None
    return Contents(path, tensors, {} if found is None else read_settings(found), found or path)


def _has_keys(path: Path) -> bool:
    """Whether JSON of any name may be settings: training leaves lists of losses and the like beside its weights."""
    try:
        read_settings(path)
    except ModelError:
        return False
    return True


def read_settings(path: Path) -> dict[str, Any]:
    """Keys and values of a JSON or YAML file.

    Raises
    ------
    ModelError
        If it is damaged, no list of keys, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); copy it again from where it was made") from error
    if path.suffix in (".yaml", ".yml"):
        try:
            entries = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ModelError(f"{path}: not YAML ({error}); copy it again from where it was made") from error
        if not isinstance(entries, dict):
            raise ModelError(f"{path}: a list or a single value instead of keys: not the settings of an SAE")
        return entries
    return _without_repeats(path, text)


def _without_repeats(path: Path, text: str) -> dict[str, Any]:
    """Keys and values of JSON; of a key that is given twice one would be lost without a word."""

    def paired(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is given twice")
        return entries

    try:
        entries = json.loads(text, object_pairs_hook=paired)
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}); copy it again from where it was made") from error
    if not isinstance(entries, dict):
        raise ModelError(f"{path}: a list or a single value instead of keys: not the settings of an SAE")
    return entries
