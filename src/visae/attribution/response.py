"""What a latent answers to a picture, from the pixels on, so that gradients can be followed all the way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.sae import SparseAutoencoder
from visae.vision.hook_points import HookPoint
from visae.vision.model import VisionModel


@dataclass(frozen=True)
class Response:
    """The network up to a hook point, and the encoder of an SAE of its tokens.

    A latent's response to a token is its pre-activation: the product of the normalized token with the encoder's row,
    plus the bias. Where the latent is active that is its code (of `gated` SAEs, up to the magnitude's scale and bias;
    of matching pursuit the product that the first choice is made by). Where it is silent the code is 0 and has no
    gradient, the pre-activation has one: it is what changes on the way from a picture without information.
    """

    model: VisionModel
    sae: SparseAutoencoder
    point: HookPoint

    def __post_init__(self) -> None:
        self.model.card.check(self.point, "studies: layer")
        self.model.card.token_slice(self.sae.place.tokens)
        d_model = self.model.card.layers[self.point.layer].d_model
        if d_model != self.sae.d_model:
            raise ModelError(
                f"layer {self.point} of {self.model.card.architecture} has {d_model} dimensions and the SAE takes "
                f"{self.sae.d_model}; give the SAE of that model and layer"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.model.card.layers[self.point.layer].grid

    @property
    def own(self) -> slice:
        """Positions of the tokens that the SAE is of."""
        return self.model.card.token_slice(self.sae.place.tokens)

    def position(self, token: int) -> int:
        """Position of a token by its id: -1 for the class token, patches from 0."""
        return self.model.card.tokens(self.point.layer).index(token)

    def values(self, images: Tensor, latents: Tensor, where: Tensor) -> Tensor:
        """Sum of a latent's responses to some tokens of a picture, (b,); differentiable in the pictures.

        Parameters
        ----------
        images
            (b, 3, height, width), normalized as the network takes them.
        latents
            int64 (b,), one for each picture.
        where
            bool (b, n_tokens), which tokens.
        """
        tokens = self.model.followed(images, [self.point])[self.point].float()
        picture, place = where.nonzero(as_tuple=True)
        found = self.sae.pre_activations(tokens[picture, place], latents[picture])
        return found.new_zeros(len(images)).index_add(0, picture, found)

    @torch.inference_mode()
    def codes(self, pixels: Tensor, latents: Tensor) -> Tensor:
        """Codes (b, n_tokens) of one latent for each picture, uint8 (b, 3, height, width); 0 on foreign tokens."""
        tokens = self.model.read(pixels, [self.point])[self.point].float()
        found = tokens.new_zeros(tokens.shape[:2])
        for number, latent in enumerate(latents.tolist()):
            found[number, self.own] = self.sae.latent_values(tokens[number, self.own], [latent])[:, 0]
        return found
