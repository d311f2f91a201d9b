"""What lies beside weights: the configurations of timm, open_clip and Hugging Face that say how they are to be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visae.errors import ModelError
from visae.notices import Notice
from visae.vision.owners import Meaning, said_of
from visae.vision.transforms import Transform, of_hugging_face, of_open_clip, of_timm

TIMM, OPEN_CLIP, PICTURES = "config.json", "open_clip_config.json", "preprocessor_config.json"
# Keys of timm's oldest configurations, which had no section `pretrained_cfg`.
_TIMM_KEYS = ("mean", "std", "interpolation", "crop_pct", "input_size")


@dataclass(frozen=True)
class Origin:
    """What was found beside weights.

    Attributes
    ----------
    source
        Where the transform comes from; empty where nothing was found.
    transform
        How pictures become input.
    said
        What the shapes of the weights do not say, where it was said.
    architecture
        timm's name of the model, where that was said.
    """

    source: str = ""
    transform: Transform = field(default_factory=Transform)
    said: Meaning = field(default_factory=Meaning)
    architecture: str | None = None
    notices: tuple[Notice, ...] = ()


def beside(weights: str) -> Origin:
    """Look for configurations beside weights: in a repository of the hub, or in a file's folder.

    Raises
    ------
    ModelError
        If one of them is damaged.
    """
    if weights.startswith("hub:"):
        repository, name = hub_parts(weights)
        return _found(_of_hub(repository), name or "", repository)
    path = Path(weights)
    if weights in ("hub", "embedded", "random") or not path.is_file():
        return Origin()
    return _found(lambda file: _of_folder(path.parent, file), path.name, str(path.parent))


def hub_parts(weights: str) -> tuple[str, str | None]:
    """Repository and file of `hub:organization/repository[/file]`.

    Raises
    ------
    ModelError
        If it is none.
    """
    parts = weights.removeprefix("hub:").split("/", maxsplit=2)
    if len(parts) < 2 or not all(parts):
        raise ModelError(f"weights: {weights}: write hub:organization/repository or hub:organization/repository/file")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None


def _found(read: Callable[[str], dict[str, Any] | None], weights_name: str, place: str) -> Origin:
    """Read all that is there; the configuration of the weights' own library decides, another that differs is noted."""
    timm, clip, pictures = (read(name) for name in (TIMM, OPEN_CLIP, PICTURES))
    known = []
    if timm is not None and (said := _of_timm(timm, f"{place}: {TIMM}")) is not None:
        known.append((f"{place}: {TIMM}", said))
    if clip is not None:
        known.append((f"{place}: {OPEN_CLIP}", of_open_clip(clip, f"{place}: {OPEN_CLIP}")))
    if pictures is not None:
        known.append((f"{place}: {PICTURES}", of_hugging_face(pictures, f"{place}: {PICTURES}")))
    if weights_name.startswith("open_clip"):
        known.sort(key=lambda entry: not entry[0].endswith(OPEN_CLIP))
    source, transform = known[0] if known else ("", Transform())
    notices = [
        Notice("note", f"{source} is followed; {other} differs: {'; '.join(found)}")
        for other, theirs in known[1:]
        if (found := transform.differences(theirs))
    ]
    tower = ((clip or {}).get("model_cfg", {}).get("vision_cfg") or {}).get("timm_model_name")
    named = (timm or {}).get("architecture", tower)
    if arguments := (timm or {}).get("model_args"):
        text = ", ".join(f"{name}: {value}" for name, value in arguments.items())
        notices.append(Notice("warning", f"{place}: {TIMM} changes its architecture by {text}: not applied here"))
    return Origin(
        source=source,
        transform=transform,
        said=said_of(timm, clip),
        architecture=named if isinstance(named, str) else None,
        notices=tuple(notices),
    )


def _of_timm(config: Mapping[str, Any], where: str) -> Transform | None:
    section = config.get("pretrained_cfg", config)
    return of_timm(section, where) if any(key in section for key in _TIMM_KEYS) else None


def _of_folder(folder: Path, name: str) -> dict[str, Any] | None:
    path = folder / name
    return _parsed(path) if path.is_file() else None


def _of_hub(repository: str) -> Callable[[str], dict[str, Any] | None]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repository.partition("@")

    def read(file: str) -> dict[str, Any] | None:
        try:
            return _parsed(Path(hf_hub_download(name, file, revision=revision or None)))
        except EntryNotFoundError:
            return None
        except ModelError:
            raise
        except Exception as error:  # of the network, of rights, of names: many kinds, all of which mean no hub
            reason = str(error).strip().split("\n", maxsplit=1)[0]
            raise ModelError(f"weights: hub:{repository}: {file} cannot be looked up: {reason}") from error

    return read


def _parsed(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: no JSON ({error}); it says how the weights beside it are used") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: not a JSON object; it says how the weights beside it are used")
    return config
