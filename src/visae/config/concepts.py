"""Concepts of your own, each shown by two folders of pictures."""

from __future__ import annotations

from dataclasses import dataclass

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class ConceptSettings:
    """A concept of your own, of which every latent is asked how well it tells the pictures apart."""

    positives: str = setting("Folder of pictures that show the concept: 20 are a good number, 4 the fewest.")
    negatives: str = setting("Folder of as many pictures that do not, and are alike in all else.")
