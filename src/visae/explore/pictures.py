"""The picture that is asked about: one of the data set, whose codes are known, or a new one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from visae.data.images import pixels
from visae.data.index import read_index
from visae.device import chosen_device
from visae.errors import DataError, ModelError
from visae.explore.files import FeatureFiles
from visae.features.codes import scan_codes
from visae.sae.autoencoder import load_sae
from visae.vision.hook_points import HookPoint
from visae.vision.model import load_model

NEW_PICTURE = -1
"""Number of a picture that is not in the data set."""


@dataclass(frozen=True)
class Picture:
    """A picture and its codes: image_id, token, latent, value."""

    image_id: int
    path: str
    codes: pl.DataFrame


def asked_picture(files: FeatureFiles, image: str | int | Path, device: str = "auto") -> Picture:
    """Find a picture of the data set by its id or path and read its codes, or encode a new file.

    Raises
    ------
    DataError
        If there is no such picture.
    """
    image_id, path = found_picture(files, image)
    if image_id == NEW_PICTURE:
        return Picture(image_id, path, _encoded(files, Path(path), device))
    return Picture(image_id, path, scan_codes(files.codes).filter(pl.col("image_id") == image_id).collect())


def found_picture(files: FeatureFiles, image: str | int | Path) -> tuple[int, str]:
    """Find a picture by its id or path: its image_id, NEW_PICTURE for a file that is not in the data set, and path.

    Raises
    ------
    DataError
        If there is no such picture.
    """
    index = read_index(files.index).select("image_id", "path")
    text = str(image)
    if text.isdecimal():
        found = index.filter(pl.col("image_id") == int(text))
        if found.is_empty():
            raise DataError(f"image: {files.index} has pictures 0 to {index.height - 1}, not {text}")
    else:
        found = index.filter(pl.col("path").is_in([text, str(Path(text).absolute())]))
    if found.height:
        return found.row(0)
    if not Path(text).is_file():
        raise DataError(f"image: {text}: neither an image_id or path of {files.index}, nor a file")
    return NEW_PICTURE, text


@torch.inference_mode()
def _encoded(files: FeatureFiles, path: Path, device: str) -> pl.DataFrame:
    """Run a new picture through the model and the SAE."""
    where = chosen_device(device)
    for needed in (files.card, files.sae):
        if not needed.is_file():
            raise ModelError(f"{needed}: no such file, and a new picture needs it; ask about one of {files.index}")
    model, sae = load_model(files.card, where), load_sae(files.sae, where)
    point = HookPoint.parse(files.point)
    tokens = model.read(pixels(path, model.card)[None].to(where), [point])[point]
    own = model.card.token_slice(sae.place.tokens)
    codes = sae.sparse_codes(tokens[0, own].float())
    ids = np.array(model.card.tokens(point.layer)[own], dtype=np.int16)
    columns = {
        "token": ids[codes.tokens.cpu().numpy()],
        "latent": codes.latents.cpu().numpy().astype(np.int32),
        "value": codes.values.cpu().numpy(),
    }
    return pl.DataFrame(columns).with_columns(pl.lit(NEW_PICTURE, pl.Int32).alias("image_id"))
