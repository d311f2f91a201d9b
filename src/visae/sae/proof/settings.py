"""What an SAE's place is looked for in, and what is said of it beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visae.config.fields import setting
from visae.config.saes import TokenKinds
from visae.vision.hook_points import Hook


@dataclass(frozen=True)
class ProofSettings:
    """Model and pictures that an SAE's place is proven on."""

    model: str | None = setting("model.json of a model that a workflow has fetched, or timm's name of one.", None)
    pictures: Path | None = setting("Folder of pictures; those in its subfolders are among them.", None)
    model_weights: str | None = setting(
        "Where the weights of timm's name are from, as a model's `weights`; left out, the hub.", None
    )
    image_size: int | None = setting("Side in pixels of what timm's name sees; left out, its own.", None, minimum=1)
    limit: int = setting("Pictures that are read at most, drawn by seed; 0 reads all.", 200, minimum=0)
    patches: int = setting("Patches that are kept of each picture, drawn by seed.", 32, minimum=1)
    batch_size: int = setting("Pictures in a forward pass.", 32, minimum=1)
    workers: int = setting("Processes that decode pictures; 0 decodes in this one.", 1, minimum=0)


@dataclass(frozen=True)
class Claim:
    """Where an SAE is said to belong, in place of what its file says."""

    layer: int | None = setting("Block that it is said to be of, counted from 0.", None, minimum=0)
    hook: Hook | None = setting("What of that block.", None)
    tokens: TokenKinds | None = setting("Tokens that it is said to be of.", None)
