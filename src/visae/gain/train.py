"""Dictionaries to compare an SAE with that have to be trained or fitted: frozen random decoders, PCA, k-means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from visae.config.saes import AnySae, FrozenDecoderSettings, KMeansSettings, PcaSettings
from visae.config.settings import GainSettings
from visae.device import chosen_device, described
from visae.errors import TrainingError
from visae.files import read_json, write_json
from visae.gain.kinds import FROZEN
from visae.provenance import Provenance
from visae.sae.trainer import train_together
from visae.work import Member

# So many are trained side by side on one reading of the tokens; more would take more memory.
_TOGETHER = 13
# What fitted dictionaries and SAEs both have.
_SHARED = ("batch_size", "seed", "clamp", "tokens", "normalization")


def train_compared(
    config: Path,
    manifests: list[Path],
    settings: GainSettings,
    output: Path,
    work: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Train and fit the dictionaries that an SAE is compared with; writes a folder each, and manifest.json at the end.

    Those with a frozen decoder have the SAE's settings: its width, number of codes, steps, batches and rates. Only
    their decoders' random rows differ. PCA and k-means are fitted to the sample that its training began with.

    Parameters
    ----------
    config
        config.json of the SAE; its summary.json, beside it, says how many codes a token has in the mean.
    manifests
        Activation stores that it was trained on.
    settings
        Section `gain`.
    output
        Folder of the results.
    work
        Folder of what is in the making.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, as the SAE was trained with.

    Returns
    -------
    dict
        What manifest.json holds.

    Raises
    ------
    TrainingError
        If one with a frozen decoder cannot be trained.
    """
    provenance = Provenance(settings, [config, *manifests], seed, described(chosen_device(device)))
    base = base_settings(config)
    listed: list[dict[str, Any]] = []
    for start in range(0, settings.frozen, _TOGETHER):
        numbers = range(start, min(start + _TOGETHER, settings.frozen))
        listed += _trained(
            {(FROZEN, number): twin(base, number) for number in numbers}, manifests, output, work, device, seed
        )
    left_out = {}
    for kind, section in _fitted(base).items() if settings.fitted else ():
        try:
            listed += _trained({(kind, 0): section}, manifests, output, work, device, seed)
        except TrainingError as error:  # there are fewer tokens than clusters, or a rank is too low
            left_out[kind] = str(error)
    manifest = {"dictionaries": listed, "left_out": left_out, "provenance": provenance.record()}
    write_json(output / "manifest.json", manifest)
    return manifest


def base_settings(config: Path) -> FrozenDecoderSettings:
    """Settings of an SAE as those of one with a frozen decoder; of one that was not trained here, as far as known.

    The width is a multiple of d_model, as all that is trained here has it: that which is nearest.
    """
    known, trained = read_json(config), read_json(config.with_name("summary.json"))
    said = known.get("settings") or {}
    own = {spec.name: said[spec.name] for spec in fields(FrozenDecoderSettings) if spec.name in said}
    own |= {"variant": "frozen_decoder", "expansion": max(1, round(known["width"] / known["d_model"]))}
    own |= {"clamp": known.get("clamp"), "normalization": known.get("normalization", "scale")}
    own["tokens"] = trained.get("tokens", "patches")
    own.setdefault("k", max(1, round(trained["l0"])))
    own |= {"log_every": 10**9, "checkpoint_every": 10**9, "target_layer": None}
    return FrozenDecoderSettings(**own)


def twin(base: FrozenDecoderSettings, number: int) -> FrozenDecoderSettings:
    """One of several that learn from the same batches: its random rows are its own."""
    return FrozenDecoderSettings(**{**asdict(base), "drawn": base.drawn + 1 + number})


def _fitted(base: FrozenDecoderSettings) -> dict[str, AnySae]:
    shared = {name: getattr(base, name) for name in _SHARED}
    return {
        "pca": PcaSettings(variant="pca", k=base.k, **shared),
        "kmeans": KMeansSettings(variant="kmeans", k=base.k, expansion=base.expansion, **shared),
    }


def _trained(
    sections: dict[tuple[str, int], AnySae],
    manifests: Sequence[Path],
    output: Path,
    work: Path,
    device: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Train some together; returns what manifest.json says of them."""
    folders = {name: f"{name[0]}-{name[1]}" for name in sections}
    members = [Member(section, output / folders[name], work / folders[name]) for name, section in sections.items()]
    summaries = train_together(members, list(manifests), device, seed)
    return [
        {
            "kind": name[0],
            "number": name[1],
            "folder": folders[name],
            **{measure: found[measure] for measure in ("normalized_mse", "l0", "dead_share")},
        }
        for name, found in zip(sections, summaries, strict=True)
    ]
