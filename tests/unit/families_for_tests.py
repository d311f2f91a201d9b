"""Every family of timm models that visae reads, small and with random weights. A new family is one line here."""

from dataclasses import dataclass

import torch

from visae.config.settings import ModelSettings
from visae.vision.model import VisionModel, card_of
from visae.vision.timm_import import import_timm
from visae.vision.weights import created

SAME_SUMS = 1e-5
"""How far two float32 sums of the same numbers in another order may lie apart, relative to the largest of them."""


@dataclass(frozen=True)
class Family:
    """A member: its architecture, the size that it is tried at, and what its tokens are."""

    architecture: str
    size: int | tuple[int, int]
    n_prefix: int
    grid: tuple[int, int]
    has_class_token: bool = True
    separable: bool = True


TRANSFORMERS = {
    "AugReg": Family("vit_tiny_patch16_224.augreg_in21k", 64, 1, (4, 4)),
    "DeiT": Family("deit_tiny_patch16_224", 48, 1, (3, 3)),
    "DeiT, distilled": Family("deit_tiny_distilled_patch16_224", 48, 2, (3, 3)),
    "DeiT III": Family("deit3_small_patch16_224", 48, 1, (3, 3)),
    "MAE": Family("vit_base_patch16_224.mae", 32, 1, (2, 2)),
    "DINOv2": Family("vit_small_patch14_dinov2.lvd142m", (42, 56), 1, (3, 4)),
    "DINOv2 with registers": Family("vit_small_patch14_reg4_dinov2.lvd142m", 42, 5, (3, 3)),
    "DINOv3": Family("vit_small_patch16_dinov3.lvd1689m", (64, 48), 5, (4, 3)),
    "DINOv3 plus": Family("vit_small_plus_patch16_dinov3.lvd1689m", 48, 5, (3, 3)),
    "CLIP": Family("vit_base_patch32_clip_224.openai", (96, 64), 1, (3, 2)),
    "CLIP, quick GELU": Family("vit_base_patch32_clip_quickgelu_224.openai", 64, 1, (2, 2)),
    "SigLIP": Family("vit_base_patch16_siglip_224.webli", 32, 0, (2, 2), has_class_token=False),
    "SigLIP 2": Family("vit_base_patch32_siglip_256.v2_webli", (64, 96), 0, (2, 3), has_class_token=False),
    "Perception Encoder, core": Family("vit_pe_core_tiny_patch16_384.fb", 64, 1, (4, 4)),
    "Perception Encoder, spatial": Family("vit_pe_spatial_tiny_patch16_512.fb", (48, 64), 1, (3, 4)),
    "BEiT": Family("beit_base_patch16_224.in22k_ft_in22k", 32, 1, (2, 2)),
    "BEiT v2": Family("beitv2_base_patch16_224.in1k_ft_in22k", (32, 48), 1, (2, 3)),
    "EVA-02": Family("eva02_tiny_patch14_224.mim_in22k", (42, 28), 1, (3, 2)),
    "EVA-02, classifier": Family("eva02_tiny_patch14_336.mim_in22k_ft_in1k", 42, 1, (3, 3)),
    "no class token": Family("vit_relpos_small_patch16_224.sw_in1k", 48, 0, (3, 3), has_class_token=False),
    "register, no class token": Family("test_vit2.r160_in1k", (48, 32), 1, (3, 2), has_class_token=False),
    "rotary, one a block": Family("vit_small_patch16_rope_mixed_224.naver_in1k", (48, 32), 1, (3, 2)),
    "parallel blocks": Family("vit_small_patch16_18x2_224", 32, 1, (2, 2), separable=False),
}
CONVOLUTIONAL = {
    "ResNet": Family("test_resnet.r160_in1k", (96, 64), 0, (3, 2), has_class_token=False),
    "ConvNeXt": Family("test_convnext.r160_in1k", 96, 0, (3, 3), has_class_token=False),
    "EfficientNet": Family("test_efficientnet.r160_in1k", (64, 96), 0, (2, 3), has_class_token=False),
    "RegNet": Family("regnety_002.pycls_in1k", 64, 0, (2, 2), has_class_token=False),
    "Swin": Family("swin_tiny_patch4_window7_224.ms_in1k", 224, 0, (7, 7), has_class_token=False),
}
FAMILIES = TRANSFORMERS | CONVOLUTIONAL


def small_model(name: str) -> VisionModel:
    """Model with weights at random, those included that training starts at zero or one.

    A transformer has 4 of its 12 or more blocks: all are alike.
    """
    family = FAMILIES[name]
    options = {"depth": 4} if name in TRANSFORMERS else {}
    size = family.size if isinstance(family.size, int) else list(family.size)
    settings = ModelSettings(architecture=family.architecture, weights="random", image_size=size)
    import_timm()
    torch.manual_seed(1)
    module = created(family.architecture, size, **options).eval()
    model = VisionModel(module, card_of(module, settings.identity(), origin="random", weights_sha256=""))
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def pictures(model: VisionModel, n: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, *model.card.image_size), dtype=torch.uint8, generator=generator)
