"""Raw activations to the units of an SAE's codes and weights, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from visae.config.kinds import Normalization
from visae.errors import ModelError

# What a token's standard deviation is added to before it divides: SAELens and ViT-Prisma have it so.
_EPS = 1e-5


class Normalizing(nn.Module):
    """The part of a sparse autoencoder that knows raw units.

    A raw activation x is (x - m) / s inside. What m and s are, the kind of normalization says:

    - `none`: 0 and 1.
    - `scale`: `mean` (d_model,) and `scale` (), one number for all dimensions.
    - `per_dimension`: `mean` (d_model,) and `scale` (d_model,).
    - `per_token`: the token's own mean over its dimensions, and its own standard deviation over them (that of a
      sample, which divides by d_model - 1) plus `eps` ().

    What a transcoder gives has `target_mean` (d_target,) and `target_scale`, (d_target,) under `per_dimension` and ()
    otherwise, under `per_token` too: a token of one layer does not say how large it is at another.

    Parameters
    ----------
    normalization
        The kind.
    d_model
        Dimension of an activation.
    d_target
        Dimension of what a transcoder gives; None for other SAEs.
    clamp
        Normalized activations are clamped to `middle` plus or minus `limit`, (d_model,) each. There is no `middle`
        where normalization centres each dimension. None clamps nothing, and there is no `limit` either.
    """

    mean: Tensor
    scale: Tensor
    eps: Tensor
    target_mean: Tensor
    target_scale: Tensor
    limit: Tensor
    middle: Tensor
    decoder_weight: nn.Parameter

    def __init__(self, normalization: Normalization, d_model: int, d_target: int | None, clamp: float | None) -> None:
        super().__init__()
        if normalization not in get_args(Normalization):
            raise ModelError(f"normalization: {normalization!r}; allowed: {', '.join(get_args(Normalization))}")
        self.normalization: Normalization = normalization
        self.is_transcoder, self.clamp = d_target is not None, clamp
        self.centres = normalization in ("scale", "per_dimension")
        is_wide = normalization == "per_dimension"
        if self.centres:
            self.register_buffer("mean", torch.zeros(d_model))
            self.register_buffer("scale", torch.ones(d_model if is_wide else ()))
        if normalization == "per_token":
            self.register_buffer("eps", torch.tensor(_EPS))
        if d_target is not None:
            self.register_buffer("target_mean", torch.zeros(d_target))
            self.register_buffer("target_scale", torch.ones(d_target if is_wide else ()))
        if clamp is not None:
            self.register_buffer("limit", torch.full((d_model,), clamp))
            if not self.centres:
                self.register_buffer("middle", torch.zeros(d_model))

    @property
    def needs_like(self) -> bool:
        """Whether raw units of the output are each token's own, so that decoding needs the token."""
        return self.normalization == "per_token" and not self.is_transcoder

    def normalized(self, activations: Tensor) -> Tensor:
        """Raw activations (…, d_model) in the units of codes and weights, clamped where a limit is set."""
        normalized = self.unclamped(activations)
        if self.clamp is None:
            return normalized
        if self.centres:
            return normalized.clamp(-self.limit, self.limit)
        return normalized.clamp(self.middle - self.limit, self.middle + self.limit)

    def unclamped(self, activations: Tensor) -> Tensor:
        """Raw activations (…, d_model) in the units of codes and weights."""
        if self.centres:
            return (activations - self.mean) / self.scale
        activations = activations.float()
        if self.normalization == "none":
            return activations
        return (activations - activations.mean(-1, keepdim=True)) / self._deviation(activations)

    def normalized_target(self, target: Tensor) -> Tensor:
        """Raw target (…, d_target) of a transcoder in the units of its output."""
        return (target - self.target_mean) / self.target_scale

    def output_scale_of(self, like: Tensor | None) -> Tensor:
        """Raw units of the output per normalized one: (), (d_target,), or of each token (…, 1).

        Parameters
        ----------
        like
            (…, d_model), the raw activations that codes are of. Only `per_token` asks for them.

        Raises
        ------
        ModelError
            If they are asked for and not given.
        """
        if self.is_transcoder:
            return self.target_scale
        if self.centres:
            return self.scale
        if self.normalization == "none":
            return torch.ones((), device=self.decoder_weight.device)
        return self._deviation(self._given(like))

    def output_mean_of(self, like: Tensor | None) -> Tensor:
        """What is added to the output in raw units, (d_target,), or of each token (…, 1); `like` as above."""
        if self.is_transcoder:
            return self.target_mean
        if self.centres:
            return self.mean
        if self.normalization == "none":
            return torch.zeros((), device=self.decoder_weight.device)
        return self._given(like).mean(-1, keepdim=True)

    def directions(self) -> Tensor:
        """Change of the raw output per unit of each code, (width, d_target).

        Raises
        ------
        ModelError
            Under `per_token`, where each token has a change of its own: see `change`.
        """
        if self.needs_like:
            raise ModelError("normalization: per_token: a code moves each token by its own deviation; use change()")
        return self.decoder_weight.detach() * self.output_scale_of(None)

    def raw_rows(self) -> Tensor:
        """Decoder rows (width, d_target) as they lie in raw space, each up to a factor; for angles between them."""
        return self.directions() if self.normalization == "per_dimension" else self.decoder_weight.detach()

    def change(self, codes: Tensor, latents: Sequence[int] | Tensor, like: Tensor) -> Tensor:
        """Change of the raw output (…, d_target) of tokens `like` (…, d_model) when codes change by (…, m).

        It is what `decode` gives of the changed codes less what it gives of the others, for the same `like`: the
        change of the codes times their decoder rows, times `scale` or, under `per_token`, the token's own deviation.

        Parameters
        ----------
        latents
            The m latents whose codes change.

        Raises
        ------
        ModelError
            If codes are of another number of latents.
        """
        chosen = torch.as_tensor(latents, dtype=torch.int64, device=self.decoder_weight.device)
        if not codes.ndim or codes.shape[-1] != len(chosen):
            raise ModelError(
                f"codes {list(codes.shape)}: {len(chosen)} latents change by (…, {len(chosen)}); give each one's change"
            )
        if self.needs_like:
            return (codes @ self.decoder_weight.detach()[chosen]) * self.output_scale_of(like)
        return codes @ self.directions()[chosen]

    def along(self, gradients: Tensor, like: Tensor) -> Tensor:
        """Gradients (…, width) in codes of what has gradients (…, d_target) in the raw output of tokens `like`."""
        if self.needs_like:
            return (gradients @ self.decoder_weight.detach().T) * self.output_scale_of(like)
        return gradients @ self.directions().T

    def _deviation(self, activations: Tensor) -> Tensor:
        # torch.std warns where there are no tokens.
        centred = activations - activations.mean(-1, keepdim=True)
        return (centred.square().sum(-1, keepdim=True) / (centred.shape[-1] - 1)).sqrt() + self.eps

    def _given(self, like: Tensor | None) -> Tensor:
        if like is None:
            raise ModelError(
                "normalization: per_token: codes say nothing of a token's own mean and deviation; give the raw "
                "activations that they are of: decode(codes, like=activations)"
            )
        return like.float()
