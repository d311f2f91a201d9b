"""The pictures of a concept: one folder that shows it, one that does not, and what cannot be used of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from visae.data.images import pixels
from visae.errors import DataError
from visae.features.concept_files import FEWEST, concept_files, too_few
from visae.files import file_sha256
from visae.sae.autoencoder import SparseAutoencoder
from visae.vision.hook_points import HookPoint
from visae.vision.model import VisionModel

_BATCH_PICTURES = 8


@dataclass(frozen=True)
class ConceptPictures:
    """Pictures of a concept.

    Attributes
    ----------
    paths, is_positive
        Positives first, each folder by name.
    pixels
        uint8 (3, height, width) of each.
    skipped
        Path and reason of each file that is not used.
    """

    paths: list[Path]
    is_positive: NDArray[np.bool_]
    pixels: list[torch.Tensor]
    skipped: list[tuple[Path, str]]


def read_concept(positives: Path, negatives: Path, model: VisionModel) -> ConceptPictures:
    """Read the pictures of two folders as the model sees them.

    A file that cannot be read and a copy of another file in the same folder are skipped.

    Raises
    ------
    DataError
        If a folder is missing, the same picture is in both, or fewer than `FEWEST` are left of one.
    """
    paths: list[Path] = []
    seen: dict[str, Path] = {}
    read: list[torch.Tensor] = []
    skipped: list[tuple[Path, str]] = []
    counts = []
    for key, files in concept_files(positives, negatives).items():
        before, folder = len(paths), files[0].parent
        for path in files:
            same = seen.get(digest := file_sha256(path))
            if same is not None and same.parent != path.parent:
                raise DataError(f"{path} is the same picture as {same}; a picture cannot show the concept and not")
            if same is not None:
                skipped.append((path, f"the same picture as {same.name}"))
                continue
            seen[digest] = path
            try:
                read.append(pixels(path, model.card))
            except DataError as error:
                skipped.append((path, str(error)))
                continue
            paths.append(path)
        counts.append(len(paths) - before)
        if counts[-1] < FEWEST:
            raise DataError(
                f"{key}: {folder}: {too_few(counts[-1], 'readable pictures')}"
                + "".join(f"\n  skipped: {reason}" for path, reason in skipped if path.parent == folder)
            )
    return ConceptPictures(paths, np.repeat([True, False], counts), read, skipped)


@torch.no_grad()
def summed_codes(
    pictures: ConceptPictures, model: VisionModel, point: HookPoint, saes: list[SparseAutoencoder]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
    """Sum the codes of each picture's tokens, for several SAEs of the same kind of tokens after one forward pass.

    Yields
    ------
    sums, frequency
        Of each SAE: (n_pictures, width) sums, and the share of all tokens on which each latent is active.
    """
    device, own = next(model.parameters()).device, model.card.token_slice(saes[0].place.tokens)
    tokens = []
    for start in range(0, len(pictures.pixels), _BATCH_PICTURES):
        batch = torch.stack(pictures.pixels[start : start + _BATCH_PICTURES]).to(device)
        tokens.append(model.read(batch, [point])[point][:, own].float().cpu())
    n_tokens = tokens[0].shape[1]
    for sae in saes:
        sums = np.zeros((len(pictures.paths), sae.width), dtype=np.float32)
        active = np.zeros(sae.width)
        picture = 0
        for batch in tokens:
            codes = sae.sparse_codes(batch.flatten(0, 1).to(sae.decoder_bias.device))
            latents, values = codes.latents.cpu().numpy(), codes.values.cpu().numpy()
            np.add.at(sums, (picture + codes.tokens.cpu().numpy() // n_tokens, latents), values)
            active += np.bincount(latents, weights=values > 0, minlength=sae.width)
            picture += len(batch)
        yield sums, active / (picture * n_tokens)
