"""The sparse autoencoder: raw activations in and out, and its file format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from visae.errors import ModelError
from visae.files import atomic_path, file_sha256, read_json, write_json
from visae.sae.variants.members import VARIANTS
from visae.sae.variants.sparse import SparseCodes, weighted_rows
from visae.sae.variants.variant import Variant, Weights
from visae.weights import check_names, check_shapes, read_weights

FORMAT = "visae sparse autoencoder 1"
# Entries of config.json: what decides the function, and what `save_sae` is given beside.
_ALWAYS = frozenset({"format", "variant", "options", "width", "d_model", "weights_sha256"})
_DECISIVE = (*_ALWAYS, "d_target", "clamp")
_ABOUT = ("settings", "rates", "provenance", "imported", "notices", "layer", "hook", "target_layer", "target_hook")
# Tokens whose sparse codes are spread out at once by `latent_values`.
_CHUNK = 8192


class SparseAutoencoder(nn.Module):
    """A sparse autoencoder that takes raw activations and gives raw activations.

    Inside, activations are centred by `mean` and divided by `scale`, so that they have a mean squared norm of
    d_model; weights and codes are in those units. Decoder rows have unit norm.

    With `d_target` it is a transcoder: it takes raw activations of one layer and gives those of another, which have a
    mean and a scale of their own.

    Parameters
    ----------
    d_model
        Dimension of an activation.
    width
        Number of latents.
    variant
        The code rule.
    d_target
        Dimension of what comes out, where that is not what goes in.
    clamp
        Each dimension of an activation is clamped to its mean plus or minus that many of its standard deviations
        before it is encoded (`limit` holds the product, in normalized units); None clamps nothing.

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 32, TopK(4))
    >>> codes = sae.sparse_codes(torch.randn(5, 8))
    >>> sae.decode(codes).shape
    torch.Size([5, 8])
    """

    mean: Tensor
    scale: Tensor
    target_mean: Tensor
    target_scale: Tensor
    limit: Tensor

    def __init__(
        self, d_model: int, width: int, variant: Variant, d_target: int | None = None, clamp: float | None = None
    ) -> None:
        super().__init__()
        self.variant, self.is_transcoder, self.clamp = variant, d_target is not None, clamp
        d_out = d_model if d_target is None else d_target
        self.encoder_weight = nn.Parameter(torch.zeros(width, d_model))
        self.encoder_bias = nn.Parameter(torch.zeros(width))
        self.decoder_weight = nn.Parameter(torch.zeros(width, d_out))
        self.decoder_bias = nn.Parameter(torch.zeros(d_out))
        self.register_buffer("mean", torch.zeros(d_model))
        self.register_buffer("scale", torch.ones(()))
        if self.is_transcoder:
            self.register_buffer("target_mean", torch.zeros(d_out))
            self.register_buffer("target_scale", torch.ones(()))
        if clamp is not None:
            self.register_buffer("limit", torch.full((d_model,), clamp))

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.encoder_weight.shape[0]

    @property
    def d_model(self) -> int:
        """Dimension of an activation."""
        return self.encoder_weight.shape[1]

    @property
    def d_target(self) -> int:
        """Dimension of what comes out."""
        return self.decoder_weight.shape[1]

    @property
    def weights(self) -> Weights:
        """The four weights, without gradient tracking, sharing memory with the parameters."""
        parts = (self.encoder_weight, self.encoder_bias, self.decoder_weight, self.decoder_bias)
        return Weights(*(part.detach() for part in parts))

    def normalized(self, activations: Tensor) -> Tensor:
        """Raw activations (n, d_model) in the units of codes and weights, clamped where a limit is set."""
        normalized = (activations - self.mean) / self.scale
        return normalized if self.clamp is None else normalized.clamp(-self.limit, self.limit)

    def normalized_target(self, target: Tensor) -> Tensor:
        """Raw target (n, d_target) of a transcoder in the units of its output."""
        return (target - self.target_mean) / self.target_scale

    def encode(self, activations: Tensor) -> Tensor:
        """Dense codes (n, width) of raw activations (n, d_model); differentiable."""
        return self.variant.dense(self.normalized(activations), self.encoder_weight, self.encoder_bias)

    @torch.no_grad()
    def sparse_codes(self, activations: Tensor) -> SparseCodes:
        """Non-zero codes of raw activations (n, d_model), sorted by token and latent."""
        return self.variant.sparse(self.normalized(activations), self.encoder_weight, self.encoder_bias)

    def decode(self, codes: Tensor | SparseCodes) -> Tensor:
        """Raw activations (n, d_target) from dense codes (n, width), differentiable, or from sparse ones."""
        if isinstance(codes, SparseCodes):
            with torch.no_grad():
                rows = weighted_rows(self.decoder_weight, codes.latents, codes.values, codes.offsets)
        else:
            rows = codes @ self.decoder_weight
        mean = self.target_mean if self.is_transcoder else self.mean
        return (rows + self.decoder_bias) * self.output_scale + mean

    @property
    def output_scale(self) -> Tensor:
        """Raw units of the output per normalized one, ()."""
        return self.target_scale if self.is_transcoder else self.scale

    def forward(self, activations: Tensor) -> Tensor:
        """Raw activations (n, d_target) that raw activations (n, d_model) give; differentiable."""
        return self.decode(self.encode(activations))

    @torch.no_grad()
    def latent_values(self, activations: Tensor, latents: Tensor | list[int]) -> Tensor:
        """Codes (n, m) of m chosen latents under the full code rule, for raw activations (n, d_model)."""
        latents = torch.as_tensor(latents, dtype=torch.int64, device=self.encoder_bias.device)
        distinct, which = latents.unique(return_inverse=True)
        column = torch.full((self.width,), -1, device=latents.device)
        column[distinct] = torch.arange(len(distinct), device=latents.device)
        values = activations.new_zeros(len(activations), len(distinct))
        for chunk, out in zip(activations.split(_CHUNK), values.split(_CHUNK), strict=True):
            codes = self.sparse_codes(chunk)
            kept = column[codes.latents] >= 0
            out[codes.tokens[kept], column[codes.latents[kept]]] = codes.values[kept]
        return values[:, which]

    def directions(self) -> Tensor:
        """Change of the raw output per unit of each code, (width, d_target)."""
        return self.decoder_weight.detach() * self.output_scale


def save_sae(sae: SparseAutoencoder, folder: str | Path, **more: Any) -> Path:
    """Write sae.safetensors, then config.json, each whole; returns the path of config.json.

    Parameters
    ----------
    more
        Further entries of config.json, such as the settings and the provenance.
    """
    folder = Path(folder)
    weights = folder / "sae.safetensors"
    with atomic_path(weights) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in sae.state_dict().items()}, temporary)
    config = {
        "format": FORMAT,
        "variant": sae.variant.name,
        "options": sae.variant.options(),
        "width": sae.width,
        "d_model": sae.d_model,
        "d_target": sae.d_target if sae.is_transcoder else None,
        "clamp": sae.clamp,
        "weights_sha256": file_sha256(weights),
        **more,
    }
    write_json(folder / "config.json", config)
    return folder / "config.json"


def load_sae(config_path: str | Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
    """Load a sparse autoencoder by its config.json; sae.safetensors lies beside it.

    Raises
    ------
    ModelError
        If a file is missing, damaged, or not of the other.
    """
    config_path = Path(config_path)
    weights = config_path.with_name("sae.safetensors")
    for path in (config_path, weights):
        if not path.is_file():
            raise ModelError(f"{path}: no such file; train the SAE with: snakemake {config_path}")
    config = _config(config_path)
    if file_sha256(weights) != config["weights_sha256"]:
        raise ModelError(f"{weights}: not the weights that {config_path.name} was written with; train the SAE again")
    try:
        variant = VARIANTS[config["variant"]].from_options(**config["options"])
        # Files of before there were transcoders and clamping say nothing of either.
        more = (config.get("d_target"), config.get("clamp"))
        sae = SparseAutoencoder(config["d_model"], config["width"], variant, *more)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{config_path}: options or sizes that no {config['variant']} SAE has: {error}") from error
    tensors, own = read_weights(weights), sae.state_dict()
    check_names(weights, tensors, own, of=f"{config['variant']} SAE of this version of visae")
    check_shapes(weights, tensors, {name: tuple(tensor.shape) for name, tensor in own.items()})
    sae.load_state_dict(tensors)
    return sae.eval().requires_grad_(False).to(device)


def _config(path: Path) -> dict[str, Any]:
    """Entries of a config.json that this version can keep what it says of."""
    try:
        config = dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error}); train the SAE again with: snakemake {path} --force") from error
    if config.get("format") != FORMAT or config.get("variant") not in VARIANTS:
        raise ModelError(f"{path}: not the config of a sparse autoencoder that this version reads ({FORMAT})")
    if unknown := sorted(config.keys() - {*_DECISIVE, *_ABOUT}):
        raise ModelError(
            f"{path}: unknown keys: {', '.join(unknown)}; a newer visae wrote it, and this one may compute other "
            "codes: update visae, or train the SAE again"
        )
    if missing := sorted(_ALWAYS - config.keys()):
        raise ModelError(f"{path}: {', '.join(missing)}: missing; train the SAE again with: snakemake {path} --force")
    return config
