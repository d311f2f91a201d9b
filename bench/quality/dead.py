"""Latents that end up dead on real photographs, with visae's defaults."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.harness import Measurement, Target, measurement
from bench.quality.data import activations, photographs
from bench.quality.runs import KeptRuns, described
from visae.config.settings import AnySae, ReluSettings, TopKSettings
from visae.files import file_sha256
from visae.provenance import code_fingerprint
from visae.sae.trainer import train

FEW = Target("value", "<", 0.02)
TRAINED: dict[str, AnySae] = {"topk": TopKSettings(variant="topk"), "relu": ReluSettings(variant="relu")}


def measure(scratch: Path, kept: KeptRuns, quick: bool) -> list[Measurement]:
    """Train the variants from the store, as visae's users do."""
    if quick or photographs() is None:
        why = "not run: --quick" if quick else "not run: VISAE_DATA names no folder with imagenet-sample"
        return [measurement(f"dead: {name}", 0, why) for name in TRAINED]
    data = activations(scratch, quick)
    rows = []
    for name, settings in TRAINED.items():
        made_by = {
            "dead": described(settings),
            "data": file_sha256(data.manifest),
            "code": code_fingerprint("visae.sae.trainer"),
        }
        found = kept.get(made_by)
        if found is None:
            found = _trained(settings, data.manifest, scratch)
            kept.keep(made_by, found)
        rows += rows_of(name, found)
    return rows


def rows_of(name: str, found: dict[str, Any]) -> list[Measurement]:
    """Dead latents at the end, and what the SAE is like."""
    what = f"of {found['width']} latents, L0 {found['l0']:.1f}, NMSE {found['normalized_mse']:.3f}"
    return [measurement(f"dead: {name}", found["dead_share"], what, target=FEW)]


def _trained(settings: AnySae, manifest: Path, scratch: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        summary = train(settings, [manifest], Path(folder) / "sae", Path(folder) / "work", device="cpu")
    return {name: summary[name] for name in ("dead_share", "width", "l0", "normalized_mse")}
