"""Taking in SAEs from other projects, and giving ours away."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from visae import __version__
from visae.errors import ModelError
from visae.files import file_sha256, read_json
from visae.sae.autoencoder import load_sae, save_sae
from visae.sae.foreign.saelens import read_saelens, write_saelens
from visae.sae.foreign.saev import read_saev


def import_sae(source: Path, output: Path, normalization: Path | None = None) -> None:
    """Take in an SAE of SAELens (a folder) or saev (a .pt file); writes sae.safetensors and config.json.

    Parameters
    ----------
    source
        Folder with cfg.json and sae_weights.safetensors, or the checkpoint.
    output
        Folder of the results.
    normalization
        JSON file with `mean` (a list of d_model numbers) and `scale`: what the project subtracted from raw activations
        and then divided them by before its SAE saw them. Their files do not hold it; left out, nothing was done.

    Raises
    ------
    ModelError
        If the files are not what they should be, or hold what cannot be kept.
    """
    sae = read_saelens(source) if source.is_dir() else read_saev(source)
    if normalization is not None:
        mean, scale = _normalization(normalization, sae.d_model)
        sae.mean.copy_(mean)
        sae.scale.fill_(scale)
    weights = source / "sae_weights.safetensors" if source.is_dir() else source
    made_from = {"path": str(source), "sha256": file_sha256(weights), "visae": __version__}
    save_sae(sae, output, imported=made_from)


def _normalization(path: Path, d_model: int) -> tuple[Tensor, float]:
    """Mean (d_model,) and scale from a JSON file."""
    try:
        numbers = read_json(path)
        mean, scale = torch.tensor(numbers["mean"], dtype=torch.float32), float(numbers["scale"])
    except (OSError, ValueError, KeyError, TypeError):
        mean, scale = torch.empty(0), 0.0
    if mean.shape != (d_model,) or not scale > 0:
        raise ModelError(f"{path}: allowed: `mean`, {d_model} numbers, and `scale`, above 0")
    return mean, scale


def export_sae(config: Path, output: Path) -> None:
    """Write an SAE as SAELens reads it: a folder with cfg.json and sae_weights.safetensors.

    Parameters
    ----------
    config
        The SAE's config.json; sae.safetensors lies beside it.
    output
        Folder of the results, for `SAE.load_from_disk`.

    Raises
    ------
    ModelError
        If SAELens has no architecture for what the SAE does.
    """
    write_saelens(load_sae(config), output)
