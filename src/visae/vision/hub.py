"""A weights file out of a repository of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from visae.errors import ModelError
from visae.vision.origins import hub_parts

# The names that timm, transformers and open_clip give to the one file of weights, those that hold no pickle first.
_WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


def downloaded(weights: str) -> Path:
    """Fetch the file that `hub:organization/repository[@revision][/file]` means.

    Raises
    ------
    ModelError
        If the name is malformed, or the repository or its file cannot be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    place, file = hub_parts(weights)
    repository, _, revision = place.partition("@")
    names = (file,) if file else _WEIGHTS
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision or None))
        except EntryNotFoundError as error:
            missing: Exception = error
        except Exception as error:  # the client raises many kinds; all mean that the repository cannot be had
            raise ModelError(f"weights: {weights}: {repository} cannot be had from the hub: {error}") from error
    raise ModelError(f"weights: {weights}: {repository} has no {' or '.join(names)}: {missing}") from missing
