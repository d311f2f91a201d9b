"""How a checkpoint wants its pictures, read from the configurations that timm, open_clip and Hugging Face keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from visae.errors import ModelError

# Pillow's filters by their number, as Hugging Face stores them.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
# Hugging Face's older processors whose one number means both sides, and those in which it means the shorter side.
_BOTH_SIDES = ("ViT", "DeiT", "Beit", "Siglip", "DINOv3ViT")
_SHORTER_SIDE = ("CLIP", "ChineseCLIP", "Bit", "ConvNext")
_TIMM_FIT = {"center": "crop", "squash": "squash"}
_OPEN_CLIP_FIT = {"shortest": "crop", "squash": "squash"}
# What open_clip assumes where its configuration is silent.
_OPEN_CLIP_MEAN, _OPEN_CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Transform:
    """How pictures become input; None where nothing was said.

    Attributes
    ----------
    image_size
        Height and width.
    fit, crop_share, interpolation
        As in the settings of a model.
    mean, std
        By channel, of pixels between 0 and 1.
    refused
        By key of the settings: why what was said cannot be followed. Setting the key settles it.
    """

    image_size: tuple[int, int] | None = None
    fit: str | None = None
    crop_share: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def said(self) -> dict[str, Any]:
        """What is not left open, by key."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name != "refused"}
        return {key: value for key, value in values.items() if value is not None}

    def over(self, other: Transform) -> Transform:
        """Return this with what it leaves open taken from another.

        Raises
        ------
        ModelError
            If the other's cannot be followed.
        """
        if problem := next((text for key, text in other.refused.items() if key not in self.said()), None):
            raise ModelError(problem)
        return Transform(**{**other.said(), **self.said()}, refused=self.refused)

    def differences(self, other: Transform) -> list[str]:
        """Lines on what both say, and say differently."""
        mine, theirs = self.said(), other.said()
        return [f"{key} {mine[key]} and {theirs[key]}" for key in mine if key in theirs and mine[key] != theirs[key]]


class _Reader:
    """Reads values out of one configuration, and keeps why some cannot be followed."""

    def __init__(self, where: str) -> None:
        self.where, self.refused = where, dict[str, str]()

    def refuse(self, key: str, problem: str) -> None:
        """Note why what is said of a key cannot be followed."""
        self.refused[key] = f"{self.where}: {problem}; set models: {key}"

    def fit(self, value: Any, names: Mapping[str, str]) -> str | None:
        if value is not None and value not in names:
            self.refuse("fit", f"{value}: a picture is cut or squashed here, not given borders")
        return names.get(value)

    def filter(self, value: Any) -> str | None:
        if isinstance(value, int) and 0 <= value < len(_FILTERS):
            return _FILTERS[value]
        if value is not None and value not in _FILTERS:
            self.refuse("interpolation", f"{value}: pictures are scaled with {', '.join(_FILTERS)}")
            return None
        return value

    def share(self, value: float | None) -> float | None:
        if value is not None and not 0 < value <= 1:
            self.refuse("crop_share", f"{value:g} of a picture would be more than it has")
            return None
        return None if value is None else float(value)


def of_timm(config: Mapping[str, Any], where: str) -> Transform:
    """Read a `pretrained_cfg` of timm, whole or in part."""
    reader, size = _Reader(where), config.get("input_size")
    return Transform(
        image_size=None if size is None else (int(size[1]), int(size[2])),
        fit=reader.fit(config.get("crop_mode"), _TIMM_FIT),
        crop_share=reader.share(config.get("crop_pct")),
        interpolation=reader.filter(config.get("interpolation")),
        mean=_channels(config.get("mean")),
        std=_channels(config.get("std")),
        refused=reader.refused,
    )


def of_open_clip(config: Mapping[str, Any], where: str) -> Transform:
    """Read an open_clip_config.json; what it does not say is what open_clip then does."""
    reader, said = _Reader(where), config.get("preprocess_cfg", {})
    size = said.get("size", config.get("model_cfg", {}).get("vision_cfg", {}).get("image_size"))
    name = said.get("interpolation", "bicubic")
    return Transform(
        image_size=_sides(size),
        fit=reader.fit(said.get("resize_mode", "shortest"), _OPEN_CLIP_FIT),
        crop_share=1.0,
        # Drawn at random in training alone.
        interpolation="bicubic" if name == "random" else reader.filter(name),
        mean=_channels(said.get("mean", _OPEN_CLIP_MEAN)),
        std=_channels(said.get("std", _OPEN_CLIP_STD)),
        refused=reader.refused,
    )


def of_hugging_face(config: Mapping[str, Any], where: str) -> Transform:
    """Read a preprocessor_config.json of Hugging Face's transformers."""
    reader, normalized = _Reader(where), config.get("do_normalize", True)
    scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    if abs(scale * 255 - 1) > 1e-6:
        reader.refuse("mean", f"pixels are multiplied by {scale:g}, so mean and std are in other units")
    geometry = _geometry(config, reader)
    return Transform(
        **geometry,
        interpolation=reader.filter(config.get("resample")),
        mean=_channels(config.get("image_mean")) if normalized else (0.0, 0.0, 0.0),
        std=_channels(config.get("image_std")) if normalized else (1.0, 1.0, 1.0),
        refused=reader.refused,
    )


def _geometry(config: Mapping[str, Any], reader: _Reader) -> dict[str, Any]:
    """Size, fit and crop of one of Hugging Face's processors, as far as they are clear."""
    kind = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    resized, fit = _resized(config.get("size"), kind)
    if resized is None or fit is None or not config.get("do_resize", True):
        reader.refuse("fit", f"size: {config.get('size')}: what {kind or 'its processor'} makes of it is not known")
        return {}
    seen = resized
    if config.get("do_center_crop"):
        seen = _sides(config.get("crop_size")) or resized
    elif fit == "crop" and kind.startswith("ConvNext"):
        # Its size is what is cut out; from 384 pixels on the picture is squashed whole.
        if max(seen) < 384:
            resized = tuple(int(side / config.get("crop_pct", 224 / 256)) for side in seen)
        else:
            fit = "squash"
    elif fit == "crop":
        reader.refuse("fit", "the picture keeps its shape, and a model's input has one size")
    share = reader.share(max(mine / whole for mine, whole in zip(seen, resized, strict=True)))
    return {"image_size": seen, "fit": fit, "crop_share": share}


def _resized(size: Any, kind: str) -> tuple[tuple[int, ...] | None, str | None]:
    """Height and width that a picture is scaled to, and which of its sides."""
    if isinstance(size, Mapping):
        if set(size) == {"shortest_edge"}:
            return _sides(size["shortest_edge"]), "crop"
        return _sides(size), "squash"
    if isinstance(size, list | tuple) or kind.startswith(_BOTH_SIDES):
        return _sides(size), "squash"
    return _sides(size), "crop" if kind.startswith(_SHORTER_SIDE) else None


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        return (size["height"], size["width"]) if {"height", "width"} <= set(size) else None
    if isinstance(size, list | tuple):
        return int(size[0]), int(size[-1])
    return None if size is None else (int(size), int(size))


def _channels(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
