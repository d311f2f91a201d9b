"""Which file of a source is meant: a file, a folder with one SAE, or one with several and a manifest.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from visae.errors import ModelError
from visae.files import file_sha256
from visae.sae.foreign.contents import SETTINGS_FILES, Contents, open_file
from visae.sae.foreign.file_kinds import is_archive, kind_of

MANIFEST = "manifest.jsonl"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# SAEs that an error lists, and folders above a file that may have a manifest.
_NAMED, _ABOVE = 20, 4


def open_source(source: Path, member: str | None, is_known: Callable[[Contents], bool]) -> Contents:
    """Contents of the one SAE that a source has, or of the chosen one.

    Parameters
    ----------
    source
        File or folder.
    member
        Path within the folder, or run of its manifest.jsonl.
    is_known
        Whether contents are of some format; of several files in a folder those that are not are left out.

    Raises
    ------
    ModelError
        If nothing is there, several SAEs are and none was chosen, or the file is not the one that the manifest lists.
    """
    if not source.exists():
        raise ModelError(f"{source}: no such file or folder")
    path = source if member is None else _member(source, member)
    if path.name in SETTINGS_FILES and path.is_file():
        path = path.parent
    if not path.is_file() and not path.is_dir():
        raise ModelError(f"{path}: neither a file nor a folder; give one of them that has an SAE")
    return _listed(open_file(path)) if path.is_file() else _one_of(path, is_known)


def _member(source: Path, member: str) -> Path:
    """Path of a run or of a relative path."""
    runs = {str(entry.get("run_id")): entry["path"] for entry in _manifest(source)}
    path = source / runs.get(member, member)
    # By its parts alone: files of the hub's cache are links to where it keeps them.
    if ".." in Path(member).parts or not path.is_relative_to(source) or not path.exists():
        names = ", ".join([*runs, *_names(source, _weights_below(source))][:_NAMED])
        raise ModelError(f"{source}: --member {member}: not there; allowed: {names or 'none: it has no SAEs'}")
    return path


def _one_of(folder: Path, is_known: Callable[[Contents], bool]) -> Contents:
    """Contents of the only SAE in a folder, or of the only one least deep below it."""
    here = [path for path in sorted(folder.iterdir()) if _may_hold_weights(path) and not is_archive(path)]
    if len(here) == 1:
        return _listed(open_file(here[0]))
    if here:
        return _listed(_known_one(folder, here, is_known))
    below = _weights_below(folder)
    if len(below) != 1:
        raise _several(folder, below)
    return _listed(open_file(below[0]))


def _known_one(folder: Path, paths: list[Path], is_known: Callable[[Contents], bool]) -> Contents:
    """Contents of the only one of several files that is an SAE's; others may lie beside it, of whatever kind."""
    known, problems = [], []
    for path in paths:
        try:
            contents = open_file(path)
        except ModelError as error:
            problems.append(error)
            continue
        known += [contents] if is_known(contents) else []
    if len(known) == 1:
        return known[0]
    if not known and problems:
        raise problems[0]
    raise _several(folder, [contents.path for contents in known] or paths)


def _may_hold_weights(path: Path) -> bool:
    """Whether a file holds tensors by its first bytes, or by its name, which it keeps when it is damaged."""
    return path.is_file() and (path.suffix in _SUFFIXES or kind_of(path) is not None)


def _weights_below(folder: Path) -> list[Path]:
    """Files of tensors in a folder and below it; of one trained SAE not its checkpoints, which lie deeper."""
    below = sorted(folder.rglob("*")) if folder.is_dir() else []
    found = [path for path in below if _may_hold_weights(path) and not is_archive(path)]
    return [path for path in found if not any(path.is_relative_to(other.parent / "checkpoints") for other in found)]


def _several(folder: Path, paths: list[Path]) -> ModelError:
    """Error that lists what one can choose."""
    if not paths:
        found = sorted(folder.iterdir())
        present = ", ".join(path.name for path in found[:_NAMED]) or "nothing"
        packed = any(path.is_file() and is_archive(path) for path in found)
        return ModelError(
            f"{folder}: no weights in it (there is {present}); {'unpack the archive, and ' if packed else ''}give the "
            "folder or the file of an SAE: weights of safetensors or torch.save, with the settings beside them"
        )
    runs = {entry["path"]: entry for entry in _manifest(folder)}
    # In the order of the manifest, which is by layer.
    names = sorted(_names(folder, paths), key=lambda name: [*runs].index(name) if name in runs else len(runs))
    lines = [f"  {_described(name, runs.get(name, {}))}" for name in names[:_NAMED]]
    more = f"\n  and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ModelError(f"{folder}: has {len(paths)} SAEs; choose one with --member:\n" + "\n".join(lines) + more)


def _names(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _described(name: str, entry: dict[str, Any]) -> str:
    """Line about an SAE: its path, and what the manifest says of it."""
    said = [f"{key} {value}" for key, value in entry.items() if key not in ("path", "sha256")]
    return f"{name}: {', '.join(said)}" if said else name


def _manifest(folder: Path) -> list[dict[str, Any]]:
    """Entries of a folder's manifest.jsonl; none where it has none."""
    path = folder / MANIFEST
    if not path.is_file():
        return []
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            entries.append({**entry, "path": str(entry["path"])})
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path}: line {number}: not an SAE's path and figures ({type(error).__name__}); copy it again from "
                "where it was made, or name the file itself"
            ) from error
    return entries


def _listed(contents: Contents) -> Contents:
    """Contents with what a manifest above says of the file.

    Raises
    ------
    ModelError
        If the file is another than the one that it lists.
    """
    path = contents.path.absolute()
    for folder in path.parents[:_ABOVE]:
        name, manifest = path.relative_to(folder).as_posix(), folder / MANIFEST
        # One that does not name the file may be of anything.
        if not manifest.is_file() or name not in manifest.read_text(encoding="utf-8", errors="replace"):
            continue
        for entry in _manifest(folder):
            if entry["path"] != name:
                continue
            if entry.get("sha256") not in (None, file_sha256(contents.path)):
                raise ModelError(
                    f"{contents.path}: not the file that {manifest} lists: its sha256 differs; copy it again "
                    "from where it was made"
                )
            return replace(contents, listed=entry)
    return contents
