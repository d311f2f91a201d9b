"""What a model's name promises, and what is published of models of that name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

# Parts of timm's names and tags, and of other hubs' repositories, that stand for a training on pictures of all kinds.
_WORDS = (
    r"aimv2|augreg\d*|beit(v2|3)?|bioclip|clip[a-z]*|data2vec|deit3?|dino(v[23])?|eva(02)?|franca|ijepa|"
    r"in(1k|12k|21k|22k)|imagenet[a-z0-9]*|laion[a-z0-9]*|lvd[a-z0-9]*|mae|metaclip2?|mobileclip2?|moco[a-z0-9]*|openai|"
    r"pecore|siglip2?|swag|webli|webssl"
)
_GENERAL = re.compile(rf"(?:^|[^a-z0-9])({_WORDS})(?=$|[^a-z0-9])")


class Published(NamedTuple):
    """What a linear probe of frozen features reaches on all of CIFAR-10 (50,000 pictures to learn from), at least."""

    name: str
    accuracy: float
    source: str

    def __str__(self) -> str:
        reached = f"{self.accuracy:g} or more by a linear probe on all of CIFAR-10"
        return f"{self.name} is published with {reached} ({self.source})"


_DINOV2 = "Oquab et al. 2023, arXiv 2304.07193"
_PUBLISHED = {r"vit_small_patch14_(reg4_)?dinov2": Published("DINOv2 ViT-S/14", 0.97, _DINOV2)}
_CIFAR10 = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}


def promised(architecture: str, weights: str) -> str | None:
    """Return the word in a model's name that stands for a general pre-training; None where nothing is promised."""
    if weights == "random":
        return None
    # Of a file the name counts, not the folders above it.
    named = weights if weights.startswith("hub") else Path(weights).name
    match = _GENERAL.search(f"{architecture} {named}".lower())
    return match[1] if match else None


def published(architecture: str, weights: str, classes: list[str]) -> Published | None:
    """Return what is published of a model of this name on these classes; None where nothing is known for certain."""
    # Of a file or of another repository the architecture may give the shape alone, as CLIP's does for BioCLIP.
    if weights not in ("hub", "embedded") or set(classes) != _CIFAR10:
        return None
    return next((found for pattern, found in _PUBLISHED.items() if re.match(pattern, architecture)), None)
