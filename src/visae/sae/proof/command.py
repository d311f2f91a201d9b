"""`visae sae-place`, and the same for SAEs that are taken in."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from visae.config.settings import ModelIdentity
from visae.device import chosen_device
from visae.errors import ConfigError
from visae.files import write_json
from visae.notices import Notice, from_plain, log_notices
from visae.outputs import check_folder
from visae.sae.autoencoder import SparseAutoencoder, load_sae
from visae.sae.place import Place
from visae.sae.proof.prove import prove
from visae.sae.proof.report import as_found, described, for_file
from visae.sae.proof.settings import Claim, ProofSettings
from visae.vision.model import VisionModel, load_model, prepare_model


def sae_place(
    sae: str,
    looked_at: ProofSettings = ProofSettings(),  # noqa: B008  frozen
    claim: Claim = Claim(),  # noqa: B008  frozen
    output: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    seed: int = 0,
) -> None:
    """Print where in a model an SAE belongs: what it reconstructs at the claimed place and at all others.

    Parameters
    ----------
    sae
        config.json of the SAE, or its folder.
    looked_at
        Model and pictures.
    claim
        Where it is said to belong, in place of what its file says.
    output
        JSON to write: the verdict and all that was measured.
    device
        auto, cpu or cuda.
    seed
        Decides which pictures and patches are read, and the resamples.

    Raises
    ------
    ConfigError
        If there is no model or no folder of pictures to look at, a number makes no sense, or a model.json is given
        and what it says itself.
    ModelError
        If the SAE cannot be read, or is of another width than the model; or the model has no such layer.
    DataError
        If there are no pictures, or fewer than two can be read.
    """
    if output is not None:
        if output.is_dir():
            raise ConfigError(f"--output {output}: a folder; name a JSON file")
        check_folder(output.absolute().parent)
    used = chosen_device(device)
    loaded = load_sae(sae, used)
    said = {name: value for name, value in vars(claim).items() if value is not None}
    found = place_found(loaded, replace(loaded.place, **said), looked_at, used, seed)
    if output:
        write_json(output, found)
    print("\n".join(described(found)))
    log_notices(str(sae), from_plain(found["notices"]))


def place_found(
    sae: SparseAutoencoder, claim: Place, settings: ProofSettings, device: torch.device, seed: int = 0
) -> dict[str, Any]:
    """Return what was found of an SAE's place, as JSON holds it.

    Parameters
    ----------
    claim
        Where it is said to belong.
    settings
        Model and pictures.

    Raises
    ------
    ConfigError, ModelError, DataError
        As `sae_place`.
    """
    check_looked_at(settings)
    with tempfile.TemporaryDirectory(prefix="visae-sae-place-model-") as scratch:
        model = _model(settings, Path(scratch), device, seed)
        proof = prove(sae.to(device), model, claim, settings, seed)
    return as_found(proof, model.card, str(settings.pictures), seed)


def check_looked_at(settings: ProofSettings) -> None:
    """Refuse settings that an SAE's place cannot be proven on, or of which some would be left out.

    Raises
    ------
    ConfigError
        As `sae_place`.
    """
    if settings.model is None or settings.pictures is None:
        raise ConfigError("give both --model (a model.json, or timm's name) and --pictures (a folder)")
    if settings.patches < 1 or settings.batch_size < 1 or settings.limit < 0 or settings.workers < 0:
        raise ConfigError("--patches and --batch-size are 1 or more, --limit and --workers 0 or more")
    if _card(settings.model) is None:
        return
    of_names = {"--model-weights": settings.model_weights, "--image-size": settings.image_size}
    if said := [f"{option} {value}" for option, value in of_names.items() if value is not None]:
        raise ConfigError(
            f"{' and '.join(said)}: --model {settings.model} says of itself which weights it has and what size it "
            "sees; leave that out, or give timm's name"
        )


def is_looked_at(settings: ProofSettings | None) -> bool:
    """Whether an SAE's place is to be proven while it is taken in.

    Raises
    ------
    ConfigError
        If settings say how, but not on what; or as `sae_place`.
    """
    if settings is None:
        return False
    said = [spec.name for spec in fields(settings) if getattr(settings, spec.name) != spec.default]
    if not {"model", "pictures"} & {*said}:
        if said:
            options = ", ".join(f"--{name.replace('_', '-')} {getattr(settings, name)}" for name in said)
            raise ConfigError(f"{options}: of looking at pictures; give --model and --pictures too, or leave it out")
        return False
    check_looked_at(settings)
    return True


def proof_of(
    sae: SparseAutoencoder, settings: ProofSettings | None, seed: int = 0
) -> tuple[dict[str, Any], list[Notice]]:
    """Entry `proof` of an SAE's file, and what is to be said of it; nothing where no pictures are given.

    The SAE is on the device that it was on when this returns.
    """
    if settings is None or not is_looked_at(settings):
        return {}, []
    before = sae.decoder_bias.device
    found = place_found(sae, sae.place, settings, chosen_device("auto"), seed)
    sae.to(before)
    level: Literal["warning", "note"] = "warning" if found["verdict"] in ("another", "none") else "note"
    said = Notice(level, f"sae-place: {found['reason']}")
    return {"proof": for_file(found)}, [said, *from_plain(found["notices"])]


def _model(settings: ProofSettings, scratch: Path, device: torch.device, seed: int) -> VisionModel:
    name = str(settings.model)
    if card := _card(name):
        return load_model(card, device)
    weights = "hub" if settings.model_weights is None else settings.model_weights
    identity = ModelIdentity(architecture=name, weights=weights, image_size=settings.image_size)
    prepare_model(identity, scratch / "weights.safetensors", scratch / "model.json", seed)
    return load_model(scratch / "model.json", device)


def _card(name: str) -> Path | None:
    """The model.json that --model names; None where it is timm's name."""
    card = Path(name).expanduser()
    if card.is_dir():
        card = card / "model.json"
    if card.suffix != ".json":
        return None
    if not card.is_file():
        raise ConfigError(f"--model {name}: there is no such file; give a model.json, or timm's name")
    return card
