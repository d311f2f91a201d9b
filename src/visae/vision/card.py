"""What model.json holds: all that a later stage needs to know of a model without loading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visae.errors import ModelError
from visae.files import read_json
from visae.vision.hook_points import HookPoint


@dataclass(frozen=True)
class LayerShape:
    """Shape of one layer's tokens: their dimension, and patches down and across."""

    d_model: int
    grid: tuple[int, int]

    @property
    def n_patches(self) -> int:
        """Patches of a picture."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class ModelCard:
    """A model in numbers.

    Attributes
    ----------
    weights_origin, weights_sha256
        Where the weights came from, with the sha256 of that file, and the sha256 of weights.safetensors.
    family
        How its layers are read: `blocks` (a transformer whose blocks all have the same tokens) or `stages` (a
        convolutional or hierarchical network, whose feature grids are its tokens).
    layers
        Shape of each layer. The blocks of a transformer are all alike.
    d_final, n_classes
        Dimension of the tokens that the model's own head reads, and that head's classes (0 without one).
    image_size
        Height and width of what the model sees.
    n_prefix
        Tokens before the patches: the class token, if any, then registers (and the distillation token of DeiT).
    mean, std
        Per-channel statistics that pixels in [0, 1] are normalized with.
    """

    architecture: str
    weights: str
    weights_origin: str
    weights_sha256: str
    family: str
    layers: tuple[LayerShape, ...]
    d_final: int
    n_classes: int
    image_size: tuple[int, int]
    fit: str
    precision: str
    has_class_token: bool
    n_prefix: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across of the last layer, which heads read."""
        return self.layers[-1].grid

    def tokens(self, layer: int) -> list[int]:
        """Token ids in the model's order: -1 for [CLS], -2, -3... for registers, then patches from 0."""
        registers = range(-2, -2 - (self.n_prefix - int(self.has_class_token)), -1)
        return [-1] * self.has_class_token + list(registers) + list(range(self.layers[layer].n_patches))

    @classmethod
    def read(cls, path: str | Path) -> ModelCard:
        """Read model.json."""
        fields = read_json(path)
        for name in ("image_size", "mean", "std"):
            fields[name] = tuple(fields[name])
        fields["layers"] = tuple(LayerShape(shape["d_model"], tuple(shape["grid"])) for shape in fields["layers"])
        return cls(**fields)

    def check(self, point: HookPoint, key: str) -> None:
        """Raise ModelError, naming the config key, where the model has no such hook point."""
        if not 0 <= point.layer < self.depth:
            raise ModelError(
                f"{key}: {point.layer}: {self.architecture} has {self.depth} {self.family}, so layers go from 0 to "
                f"{self.depth - 1}"
            )
        if self.family == "stages" and point.hook != "residual":
            raise ModelError(
                f"{key}: hook: {point.hook}: {self.architecture} has stages of feature grids, not transformer blocks; "
                "leave hook out"
            )

    def check_editable(self, layer: int) -> None:
        """Raise ModelError where a layer's patches are not those that heads judge."""
        self.check(HookPoint(layer), "studies: layer")
        if self.layers[layer].grid != self.grid:
            rows, columns = self.layers[layer].grid
            raise ModelError(
                f"studies: layer: {layer}: {self.architecture} has {rows} x {columns} patches there and "
                f"{self.grid[0]} x {self.grid[1]} in its last layer, so no edited patch is one that a head judges; "
                "choose a layer of the last grid, or leave segmentation and classification out"
            )
