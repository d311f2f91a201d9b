"""How far apart timm and the owners of weights are where they differ: python -m bench.owners

The sizes are those of a trained network, the ViT-S/14 of `weights: embedded`, on the colour photographs of
scikit-image: root mean square of the difference of patch tokens after block 10, in percent of that of the tokens
about their mean. Where pictures are prepared in two ways, the mean difference of their pixels stands beside it, of 255
levels.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F

from bench.harness import Measurement, measurement, parser, publish
from visae.data.images import fitted
from visae.vision import embedded
from visae.vision.blocks import Blocks
from visae.vision.hook_points import HookPoint
from visae.vision.owners import set_activation
from visae.vision.timm_import import import_timm

SIDE, PATCH, LAYER = 224, 14, 10
GRID = SIDE // PATCH
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Oblong ones, as most photographs are.
PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field", "immunohistochemistry")
OBLONG = {"astronaut": (512, 384), "retina": (1411, 1000), "immunohistochemistry": (384, 512)}


def timms(positions: Tensor) -> Tensor:
    """Resample a square grid of positions as timm does for whatever it loads."""
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(positions, new_size=[GRID, GRID], num_prefix_tokens=0)


@dataclass(frozen=True)
class Way:
    """How tokens come about; what is left out is timm's for DINOv2 with registers."""

    positions: Callable[[Tensor], Tensor] = timms
    sees: Callable[[Image.Image], np.ndarray] | None = None
    epsilon: float = 1e-6
    activation: str = "gelu"


def resampled(antialias: bool, offset: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Bicubic resampling of a square grid of positions; with an offset it goes by scale, as Meta's DINOv2 does."""

    def resample(positions: Tensor) -> Tensor:
        side = int(positions.shape[1] ** 0.5)
        square = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        to: dict[str, Any] = {"scale_factor": (GRID + offset) / side} if offset else {"size": (GRID, GRID)}
        square = F.interpolate(square, mode="bicubic", antialias=antialias, align_corners=False, **to)
        return square.permute(0, 2, 3, 1).reshape(1, GRID * GRID, -1)

    return resample


def cut(fit: str = "crop", share: float = 1.0, interpolation: str = "bicubic") -> Callable[[Image.Image], np.ndarray]:
    """A picture as visae prepares it."""
    return lambda image: np.asarray(fitted(image, (SIDE, SIDE), fit, interpolation, share))


def transformers(kind: str, module: str) -> Callable[[Image.Image], np.ndarray]:
    """A picture as one of transformers' processors prepares it."""
    made = getattr(importlib.import_module(f"transformers.models.{module}"), kind)(do_normalize=False, do_rescale=False)
    return lambda image: np.asarray(made(image, return_tensors="pt")["pixel_values"][0]).transpose(1, 2, 0)


class Network:
    """The trained network, its tokens made in any way."""

    def __init__(self) -> None:
        from timm import create_model

        self.module: Any = create_model("vit_small_patch14_dinov2", img_size=SIDE, num_classes=0).eval()
        self.state = embedded.embedded_state_dict(embedded.download_graph(), (37, 37))
        self.pictures = [photograph(name) for name in PICTURES]

    @torch.inference_mode()
    def tokens(self, way: Way) -> tuple[Tensor, np.ndarray]:
        """Patch tokens (pictures, patches, d_model), and the pixels (pictures, height, width, 3) behind them."""
        positions = self.state["pos_embed"]
        patches = way.positions(positions[:, 1:])
        self.module.load_state_dict(self.state | {"pos_embed": torch.cat([positions[:, :1], patches], dim=1)})
        set_activation(self.module, way.activation)
        for part in self.module.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = way.epsilon
        pixels = np.stack([(way.sees or cut())(picture) for picture in self.pictures])
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        read = Blocks(self.module, (SIDE, SIDE)).read(images, [HookPoint(LAYER)])
        return read[HookPoint(LAYER)][:, 1:], pixels


def photograph(name: str) -> Image.Image:
    """A colour photograph, cut to the shape of a camera's where it is square."""
    picture = getattr(data, name)()
    height, width = OBLONG.get(name, picture.shape[:2])
    return Image.fromarray(picture[:height, :width, :3])


def compared(network: Network, name: str, ours: Way, theirs: Way) -> list[Measurement]:
    """Rows of one difference."""
    (a, seen_a), (b, seen_b) = network.tokens(ours), network.tokens(theirs)
    centred = b - b.mean(dim=(0, 1))
    share = float((a - b).square().mean().sqrt() / centred.square().mean().sqrt())
    rows = [measurement(name, 100 * share, "% of tokens")]
    if ours.sees or theirs.sees:
        levels = np.abs(seen_a.astype(float) - seen_b.astype(float)).mean()
        rows.append(measurement(f"{name}, pixels", float(levels), "of 255"))
    return rows


def differences() -> dict[str, tuple[Way, Way]]:
    """Each difference: timm's way (and visae's, unless a setting says otherwise) and the owner's."""
    plain = Way()
    clip = transformers("CLIPImageProcessor", "clip.image_processing_clip")
    clip_pil = transformers("CLIPImageProcessorPil", "clip.image_processing_pil_clip")
    siglip = transformers("SiglipImageProcessor", "siglip.image_processing_siglip")
    siglip_pil = transformers("SiglipImageProcessorPil", "siglip.image_processing_pil_siglip")
    return {
        "positions, 37 x 37 to 16 x 16: timm, and Meta's DINOv2 with registers": (
            plain,
            Way(resampled(antialias=True)),
        ),
        "positions, 37 x 37 to 16 x 16: timm, and Meta's DINOv2 without": (plain, Way(resampled(False, offset=0.1))),
        "positions, 37 x 37 to 16 x 16: timm, and transformers (DINOv2 without, CLIP, SigLIP)": (
            plain,
            Way(resampled(False)),
        ),
        "crop: timm's .9 of OpenAI CLIP, and open_clip's and transformers' 1": (Way(sees=cut(share=0.9)), plain),
        "crop: timm's .9 of SigLIP, and open_clip's and transformers' squash": (
            Way(sees=cut(share=0.9)),
            Way(sees=cut("squash")),
        ),
        "crop: timm's 1 of DINOv2, and Meta's 224 of 256": (plain, Way(sees=cut(share=224 / 256))),
        "crop: odd remainders by timm and open_clip, and by transformers": (plain, Way(sees=clip_pil)),
        "squash: visae and open_clip, and transformers with Pillow": (Way(sees=cut("squash")), Way(sees=siglip_pil)),
        "interpolation: Pillow's (timm, open_clip), and torchvision's (transformers 5), crop": (
            Way(sees=clip_pil),
            Way(sees=clip),
        ),
        "interpolation: Pillow's (timm, open_clip), and torchvision's (transformers 5), squash": (
            Way(sees=siglip_pil),
            Way(sees=siglip),
        ),
        "interpolation: timm's bicubic, and bilinear (transformers' ViT)": (
            plain,
            Way(sees=cut(interpolation="bilinear")),
        ),
        "epsilon of norms: timm's 1e-6, and 1e-12 (transformers' ViT)": (plain, Way(epsilon=1e-12)),
        "epsilon of norms: 1e-6, and CLIP's 1e-5": (plain, Way(epsilon=1e-5)),
        "activation function: gelu (timm's SigLIP of 16 px patches), and gelu_tanh (its owner)": (
            plain,
            Way(activation="gelu_tanh"),
        ),
        "activation function: gelu, and quick_gelu (OpenAI CLIP)": (plain, Way(activation="quick_gelu")),
    }


def main() -> int:
    options = parser(__doc__ or "", "owners.json").parse_args()
    torch.set_num_threads(options.threads)
    import_timm()
    network = Network()
    rows = [row for name, ways in differences().items() for row in compared(network, name, *ways)]
    return publish(rows, options.output, options.check)


if __name__ == "__main__":
    sys.exit(main())
