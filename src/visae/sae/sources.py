"""Where an SAE is taken from: a file, a folder, or a place in a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from visae.errors import ModelError
from visae.files import file_sha256
from visae.notices import Notice
from visae.sae.hub import HubName, fetched, listed

_FORM = "hub:owner/name[/subfolder][@revision]"
# Files that hold an SAE's weights under the names that projects give them, those without a pickle first.
_KNOWN = (
    *("sae_weights.safetensors", "sae.safetensors", "model.safetensors"),
    *("sae.pt", "ae.pt", "model.pt"),
)
_WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
# In the names of what training leaves beside weights.
_OF_TRAINING = ("sparsity", "optimizer", "scheduler", "training_state", "activations_store_state")
# What says how weights are to be read, or what is known of them; no program and no other file is fetched.
_BESIDE = (
    *("cfg.json", "config.json", "config.yaml", "config.yml", "summary.json", "manifest.jsonl"),
    *("activation_scaler.json", "activations_store_state.safetensors"),
)
# Says of several SAEs below it what each is.
_ABOVE = "manifest.jsonl"
_MANY = 12


@dataclass(frozen=True)
class LocalSource:
    """An SAE's files on this machine.

    Attributes
    ----------
    path
        The file of weights, or the folder of the SAE.
    name
        Where it was taken from, as it was named.
    revision
        Commit of the repository that it was fetched from; None for what was here already.
    notices
        What a person should know of how it was found.
    """

    path: Path
    name: str
    revision: str | None = None
    notices: tuple[Notice, ...] = ()


def local_source(source: str | Path) -> LocalSource:
    """Find an SAE's files, and fetch them if they are on the hub: weights, and the few files that say what they are.

    Parameters
    ----------
    source
        A file, a folder, or `hub:owner/name[/subfolder or file][@revision]`.

    Raises
    ------
    ModelError
        If there is no such thing, it holds no SAE or several, or it cannot be had; nothing is left behind but what
        the hub's own cache keeps.
    """
    text = str(source)
    if text.startswith("hub:"):
        return _of_hub(_parsed(text), text)
    if Path(source).exists():
        return LocalSource(Path(source), text)
    raise ModelError(f"{text}: no such file or folder{_meant(text)}")


def _parsed(text: str) -> HubName:
    """Parts of a name on the hub."""
    place, at, revision = text.removeprefix("hub:").rpartition("@")
    if not at:
        place, revision = revision, ""
    parts = place.rstrip("/").split("/")
    is_odd = any(part in ("", ".", "..") or part != part.strip() for part in parts)
    if len(parts) < 2 or is_odd or (at and not revision) or "\\" in place:
        raise ModelError(f"{text}: write {_FORM}, such as hub:someone/clip-saes/layer11@main")
    return HubName("/".join(parts[:2]), "/".join(parts[2:]), revision or None)


def _meant(text: str) -> str:
    """Hint for what is no path: the address of a page, or a name on the hub without its prefix."""
    page = re.fullmatch(
        r"(?:https?:/{1,2}(?:www\.)?(?:huggingface\.co|hf\.co)/|hf:/{0,2})([^/@]+/[^/@]+)"
        r"(?:@([^/]+))?(?:/(?:tree|blob|resolve)/([^/]+))?(?:/(.*?))?/?",
        text.split("?", maxsplit=1)[0].split("#", maxsplit=1)[0],
    )
    if page:
        repository, tag, revision, inside = page.groups()
        name = "/".join(filter(None, [repository, inside])) + (f"@{tag or revision}" if tag or revision else "")
        return f"; for a place on the hub write hub:{name}"
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)+(@[\w./-]+)?", text):
        return f"; if it is a repository of the hub, write hub:{text}"
    return f"; give a file, a folder, or {_FORM}"


def _of_hub(name: HubName, text: str) -> LocalSource:
    listing = listed(name, text)
    notices = list(listing.notices)
    weights, is_file = _weights(name, listing.files, text)
    folder = str(PurePosixPath(weights).parent)
    if folder not in (name.inside or ".", str(PurePosixPath(name.inside).parent)):
        notices.append(Notice("note", f"{text}: taken from {folder}, the only SAE there"))
    # Weights come last: where they are, all is.
    wanted = [*_beside(weights, listing.files), weights]
    paths = [fetched(name, listing, file, text) for file in wanted]
    _check(paths[-1], listing.files[weights], text)
    path = paths[-1] if is_file else paths[-1].parent
    return LocalSource(path, text, listing.revision, tuple(notices))


def _weights(name: HubName, files: Mapping[str, str | None], text: str) -> tuple[str, bool]:
    """File of weights that a name stands for, and whether the file itself was named."""
    if name.inside in files and PurePosixPath(name.inside).suffix in _WEIGHTS:
        return name.inside, True
    if name.inside in files:
        if PurePosixPath(name.inside).name not in _BESIDE:
            raise ModelError(f"{text}: {name.inside} holds no weights; {_offer(files, name)}")
        folder = str(PurePosixPath(name.inside).parent).removeprefix(".")
        return _weights(replace(name, inside=folder), files, text)
    below = [file for file in files if not name.inside or file.startswith(f"{name.inside}/")]
    if not below:
        raise ModelError(f"{text}: {name.repository} has no {name.inside}; {_offer(files, name)}")
    by_folder = _weights_by_folder(below)
    if finished := {folder: its for folder, its in by_folder.items() if not _is_of_training(folder, name.inside)}:
        by_folder = finished
    here = name.inside or "."
    if here not in by_folder and len(by_folder) == 1:
        here = next(iter(by_folder))
    if here not in by_folder:
        what = "several SAEs; name one" if by_folder else "no file of weights"
        raise ModelError(f"{text}: {name.inside or name.repository} holds {what}; {_offer(files, name, below)}")
    found = by_folder[here]
    known = [file for known in _KNOWN for file in found if PurePosixPath(file).name == known]
    if known:
        return known[0], False
    if len(found) > 1:
        raise ModelError(f"{text}: {here} has {len(found)} files of weights; name one: {_some(found, name)}")
    # Its name says nothing to a reader that is given the folder.
    return found[0], True


def _weights_by_folder(files: Iterable[str]) -> dict[str, list[str]]:
    """Files of weights by the folder that they lie in, "." for the uppermost."""
    found: dict[str, list[str]] = {}
    for file in map(PurePosixPath, files):
        if file.suffix in _WEIGHTS and not any(part in file.stem for part in _OF_TRAINING):
            found.setdefault(str(file.parent), []).append(str(file))
    return found


def _is_of_training(folder: str, inside: str) -> bool:
    """Whether a folder, below the one that was named, holds what was kept of the middle of training."""
    parts = PurePosixPath(folder).parts[len(PurePosixPath(inside).parts) :]
    return any(part.startswith("checkpoint") for part in parts)


def _offer(files: Mapping[str, str | None], name: HubName, below: Iterable[str] = ()) -> str:
    """What could have been named instead."""
    folders = _weights_by_folder(below) or _weights_by_folder(files)
    if not folders:
        return f"it has no SAE: no file in it ends in {', '.join(_WEIGHTS)}"
    return f"it has SAEs in: {_some(['' if folder == '.' else folder for folder in folders], name)}"


def _some(places: Iterable[str], name: HubName) -> str:
    """Names of places in a repository, as they are to be written; of many the first."""
    end = f"@{name.revision}" if name.revision else ""
    names = [f"hub:{'/'.join(filter(None, [name.repository, place]))}{end}" for place in sorted(places)]
    more = [f"and {len(names) - _MANY} more"] if len(names) > _MANY else []
    return ", ".join([*names[:_MANY], *more])


def _beside(weights: str, files: Iterable[str]) -> list[str]:
    """Files in the folder of weights that say what they are, and lists of several SAEs in the folders above."""
    place = PurePosixPath(weights).parent
    wanted = {str(place / known) for known in _BESIDE} | {str(above / _ABOVE) for above in place.parents}
    return sorted(file for file in files if file in wanted and file != weights)


def _check(path: Path, sha256: str | None, text: str) -> None:
    """Compare weights with what the hub says of them."""
    if sha256 is not None and file_sha256(path) != sha256:
        raise ModelError(
            f"{text}: {path}: not what the hub has (sha256 {sha256}); delete this file, and fetch it again"
        )
