"""The sparse autoencoder: raw activations in and out, and its file format."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from visae.config.kinds import Normalization
from visae.errors import ModelError
from visae.files import atomic_path, file_sha256, write_json
from visae.notices import log_notices
from visae.sae.entries import FORMAT, entries_of, place_of
from visae.sae.normalizing import Normalizing
from visae.sae.place import Place
from visae.sae.sources import local_source
from visae.sae.variants.members import VARIANTS
from visae.sae.variants.sparse import SparseCodes, weighted_rows
from visae.sae.variants.variant import Variant, Weights
from visae.weights import check_names, check_shapes, read_weights

# Tokens whose sparse codes are spread out at once by `latent_values`.
_CHUNK = 8192


class SparseAutoencoder(Normalizing):
    """A sparse autoencoder that takes raw activations and gives raw activations.

    Inside, activations are normalized (by default centred by `mean` and divided by `scale`, so that they have a mean
    squared norm of d_model); weights and codes are in those units. Decoder rows have unit norm where it was trained
    here. With `d_target` it is a transcoder: it takes raw activations of one layer and gives those of another, which
    have a mean and a scale of their own. Activations may have any leading dimensions, (…, d_model); codes and what is
    decoded then have the same.

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
    normalization
        `none`, `scale`, `per_dimension` or `per_token`; see `Normalizing`.
    has_skip
        Whether `skip` (d_target, d_model) times the raw activation is added to what is decoded, as some transcoders of
        other projects have it. Nothing here trains it.

    Attributes
    ----------
    skip
        Raw units of the output per raw unit of the input, or None.
    place
        Where it belongs, as far as that is known.

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 32, TopK(4))
    >>> codes = sae.sparse_codes(torch.randn(5, 8))
    >>> sae.decode(codes).shape
    torch.Size([5, 8])
    """

    skip: Tensor | None

    def __init__(
        self,
        d_model: int,
        width: int,
        variant: Variant,
        d_target: int | None = None,
        clamp: float | None = None,
        normalization: Normalization = "scale",
        has_skip: bool = False,
    ) -> None:
        super().__init__(normalization, d_model, d_target, clamp)
        self.variant, self.place = variant, Place()
        d_out = d_model if d_target is None else d_target
        self.encoder_weight = nn.Parameter(torch.zeros(width, d_model))
        self.encoder_bias = nn.Parameter(torch.zeros(width))
        self.decoder_weight = nn.Parameter(torch.zeros(width, d_out))
        self.decoder_bias = nn.Parameter(torch.zeros(d_out))
        self.register_buffer("skip", torch.zeros(d_out, d_model) if has_skip else None)

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

    def encode(self, activations: Tensor) -> Tensor:
        """Dense codes (…, width) of raw activations (…, d_model); differentiable."""
        rows, leading = self._rows(activations)
        codes = self.variant.dense(self.normalized(rows), self.encoder_weight, self.encoder_bias)
        return codes if leading is None else codes.view(*leading, self.width)

    def pre_activations(self, activations: Tensor, latents: Tensor) -> Tensor:
        """What the encoder gives one latent of each raw activation (n, d_model), before the code rule, (n,).

        Differentiable in the activations, also where the code is 0. `latents` is int64 (n,).
        """
        products = torch.linalg.vecdot(self.normalized(activations), self.encoder_weight[latents])
        return products + self.encoder_bias[latents]

    @torch.no_grad()
    def sparse_codes(self, activations: Tensor) -> SparseCodes:
        """Non-zero codes of raw activations (…, d_model), sorted by token and latent."""
        rows, leading = self._rows(activations)
        codes = self.variant.sparse(self.normalized(rows), self.encoder_weight, self.encoder_bias)
        return codes if leading is None else replace(codes, leading=leading)

    def decode(self, codes: Tensor | SparseCodes, like: Tensor | None = None) -> Tensor:
        """Raw activations (…, d_target) from dense codes (…, width), differentiable, or from sparse ones.

        Parameters
        ----------
        like
            (…, d_model), the raw activations that the codes are of: under `per_token` the tokens' own means and
            deviations are needed, which codes do not hold, and with `skip` they are part of what comes out. Without
            effect otherwise.

        Raises
        ------
        ModelError
            If codes are of another width, or `like` is needed and not given, or of other tokens.
        """
        if not len(codes.shape) or codes.shape[-1] != self.width:
            raise ModelError(
                f"codes {list(codes.shape)}: this SAE decodes (…, {self.width}); give codes of its own latents, which "
                "encode and sparse_codes return"
            )
        if isinstance(codes, SparseCodes):
            with torch.no_grad():
                rows = weighted_rows(self.decoder_weight, codes.latents, codes.values, codes.offsets)
            if codes.leading is not None:
                rows = rows.view(*codes.leading, self.d_target)
        else:
            rows = codes @ self.decoder_weight
        is_used = self.needs_like or self.skip is not None
        if is_used and like is not None and like.shape != (*rows.shape[:-1], self.d_model):
            raise ModelError(f"like: activations {list(like.shape)} for codes that decode to {list(rows.shape)}")
        decoded = (rows + self.decoder_bias) * self.output_scale_of(like) + self.output_mean_of(like)
        if self.skip is None:
            return decoded
        if like is None:
            raise ModelError("skip: what is decoded depends on what went in; give it: decode(codes, like=activations)")
        return decoded + like @ self.skip.T

    def forward(self, activations: Tensor) -> Tensor:
        """Raw activations (…, d_target) that raw activations (…, d_model) give; differentiable."""
        return self.decode(self.encode(activations), like=activations)

    @torch.no_grad()
    def latent_values(self, activations: Tensor, latents: Tensor | list[int]) -> Tensor:
        """Codes (…, m) of m chosen latents under the full code rule, for raw activations (…, d_model)."""
        rows, leading = self._rows(activations)
        latents = torch.as_tensor(latents, dtype=torch.int64, device=self.encoder_bias.device)
        distinct, which = latents.unique(return_inverse=True)
        column = torch.full((self.width,), -1, device=latents.device)
        column[distinct] = torch.arange(len(distinct), device=latents.device)
        values = rows.new_zeros(len(rows), len(distinct))
        for chunk, out in zip(rows.split(_CHUNK), values.split(_CHUNK), strict=True):
            codes = self.sparse_codes(chunk)
            kept = column[codes.latents] >= 0
            out[codes.tokens[kept], column[codes.latents[kept]]] = codes.values[kept]
        chosen = values[:, which]
        return chosen if leading is None else chosen.view(*leading, len(latents))

    def _rows(self, activations: Tensor) -> tuple[Tensor, tuple[int, ...] | None]:
        """Activations as (n, d_model), and their leading dimensions where those are not one."""
        if not activations.ndim or activations.shape[-1] != self.d_model:
            raise ModelError(
                f"activations {list(activations.shape)}: this SAE takes (…, {self.d_model}); give those of the model "
                "and layer that it was trained on"
            )
        if activations.ndim == 2:
            return activations, None
        return activations.reshape(-1, self.d_model), tuple(activations.shape[:-1])


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
        "normalization": sae.normalization,
        "skip": sae.skip is not None,
        "place": asdict(sae.place),
        "weights_sha256": file_sha256(weights),
        **more,
    }
    write_json(folder / "config.json", config)
    return folder / "config.json"


def _refuse_more_than_there_are(variant: Variant, width: int) -> None:
    """Refuse a k that no token can have: encoding would fail."""
    k = getattr(getattr(variant, "rule", variant), "k", None)
    if isinstance(k, int) and not 1 <= k <= width:
        raise ModelError(f"options: k: {k}; allowed: a whole number from 1 to {width}")


def load_sae(config_path: str | Path, device: str | torch.device = "cpu") -> SparseAutoencoder:
    """Load a sparse autoencoder by its config.json; sae.safetensors lies beside it.

    Parameters
    ----------
    config_path
        config.json, the folder of both, or where `export-sae --as hub` was uploaded to,
        `hub:owner/name[/subfolder][@revision]`.

    Raises
    ------
    ModelError
        If a file is missing, damaged, or not of the other.
    """
    if str(config_path).startswith("hub:"):
        found = local_source(config_path)
        log_notices(found.name, found.notices)
        config_path = found.path
    config_path = Path(config_path)
    if config_path.is_dir():
        config_path = config_path / "config.json"
    weights = config_path.with_name("sae.safetensors")
    config = entries_of(config_path)
    if not weights.is_file():
        raise ModelError(f"{weights}: no such file; train the SAE with: snakemake {config_path}")
    if file_sha256(weights) != config["weights_sha256"]:
        raise ModelError(f"{weights}: not the weights that {config_path.name} was written with; train the SAE again")
    try:
        variant = VARIANTS[config["variant"]].from_options(**config["options"])
        # Files of before there were transcoders, clamping, kinds of normalization and skips say nothing of them.
        more = (config.get("d_target"), config.get("clamp"), config.get("normalization", "scale"))
        sae = SparseAutoencoder(config["d_model"], config["width"], variant, *more, bool(config.get("skip")))
        sae.place = place_of(config)
        _refuse_more_than_there_are(variant, sae.width)
    except ModelError as error:
        raise ModelError(f"{config_path}: {error}") from error
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{config_path}: options or sizes that no {config['variant']} SAE has: {error}") from error
    tensors, own = read_weights(weights), sae.state_dict()
    check_names(weights, tensors, own, of=f"{config['variant']} SAE of this version of visae")
    check_shapes(weights, tensors, {name: tuple(tensor.shape) for name, tensor in own.items()})
    sae.load_state_dict(tensors)
    return sae.eval().requires_grad_(False).to(device)
