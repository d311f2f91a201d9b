"""What model.json holds: all that a later stage needs to know of a model without loading its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.config.kinds import TokenKinds, token_slice
from visae.errors import ModelError
from visae.files import read_json
from visae.notices import Notice, from_plain
from visae.vision.hook_points import HookPoint


@dataclass(frozen=True)
class LayerShape:
    """One layer's tokens: their dimension, patches down and across, and what can be done with them.

    `can_read` and `can_edit` are found by trying; `why_not` says what failed.
    """

    d_model: int
    grid: tuple[int, int]
    can_read: bool = True
    can_edit: bool = True
    why_not: str = ""

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
    crop_share
        Share of the scaled picture's sides that the model sees, from its centre.
    activation_function
        What most of its parts use (`gelu`, `gelu_tanh`, `quick_gelu`, `silu`, `relu`, ...), read off the network.
    tag, hub_id, license, timm_notes
        Of the weights, as timm has them; the last two only for timm's own.
    notices
        What is odd or good to know, as `visae.notices` keeps it.
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
    crop_share: float
    activation_function: str | None
    tag: str | None
    hub_id: str | None
    license: str | None
    timm_notes: tuple[str, ...]
    notices: tuple[Notice, ...]

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

    def token_slice(self, kinds: TokenKinds) -> slice:
        """Positions of a kind of tokens among all; ModelError where the model has no class token and one is asked."""
        if kinds == "class" and not self.has_class_token:
            raise ModelError(
                f"tokens: class: {self.architecture} has no [CLS] token; take an SAE of patches, or another model"
            )
        return token_slice(kinds, self.n_prefix)

    @classmethod
    def read(cls, path: str | Path) -> ModelCard:
        """Read model.json; ModelError where another version wrote it."""
        try:
            return cls._of(read_json(path))
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"{path}: of another version of visae ({error}); make it again with: snakemake {path} --force"
            ) from error

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> ModelCard:
        for name in ("image_size", "mean", "std", "timm_notes"):
            fields[name] = tuple(fields[name])
        fields["layers"] = tuple(LayerShape(**{**shape, "grid": tuple(shape["grid"])}) for shape in fields["layers"])
        fields["notices"] = tuple(from_plain(fields["notices"]))
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
        if not self.layers[point.layer].can_read:
            raise ModelError(
                f"{key}: {point.layer}: {self.architecture} cannot be read there: {self.layers[point.layer].why_not}; "
                f"{self._those('can_read')}"
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
        if not self.layers[layer].can_edit:
            raise ModelError(
                f"studies: layer: {layer}: {self.architecture} cannot be edited there: {self.layers[layer].why_not}; "
                f"{self._those('can_edit')}, or leave segmentation and classification out"
            )

    def check_uses(self, read: Sequence[str], edited: Sequence[str]) -> None:
        """Raise ModelError where studies read or edit a layer that does not allow it."""
        for point in read:
            self.check(HookPoint.parse(point), "studies: layer")
        for layer in edited:
            self.check_editable(int(layer))

    def check_tokens(self, point: HookPoint, shape: Sequence[int]) -> None:
        """Raise ModelError where what was read of a batch is not of the card's shape."""
        wanted = len(self.tokens(point.layer)), self.layers[point.layer].d_model
        if tuple(shape[1:]) != wanted:
            raise ModelError(
                f"layer {point}: {self.architecture} gave {' x '.join(map(str, shape[1:]))} values a picture, and its "
                f"card says {wanted[0]} tokens of {wanted[1]}; nothing was written"
            )

    def _those(self, what: str) -> str:
        """Which layers can be read, or edited."""
        those = [str(number) for number, layer in enumerate(self.layers) if getattr(layer, what)]
        return f"layers that can be: {', '.join(those)}" if those else "no layer can be"
