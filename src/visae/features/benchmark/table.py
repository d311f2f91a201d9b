"""The table of an SAE's benchmark: visaebench's seven metrics and saev's, each with intervals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from visae.activations.store import ActivationStore
from visae.config.benchmark import BenchmarkSettings
from visae.data.index import read_classes
from visae.device import chosen_device
from visae.errors import DataError, StoreError
from visae.features.benchmark.absorption import absorption, read_groups
from visae.features.benchmark.localization import localization
from visae.features.benchmark.measured import UNDEFINED, Metric, NotMeasured
from visae.features.benchmark.pictures import Pictures
from visae.features.benchmark.probing import sparse_probing
from visae.features.benchmark.reconstruction import (
    Reconstruction,
    preservation,
    reconstruct,
    size_and_error,
    unexplained_variance,
)
from visae.features.benchmark.rediscovery import COVERED, PURITY_AT, rediscovery
from visae.features.benchmark.similarity import similarity
from visae.features.benchmark.text import as_text
from visae.features.benchmark.transfer import Elsewhere, cross_domain
from visae.features.blocks import codes_by_latents
from visae.features.codes import read_codes_manifest, tokens_of
from visae.features.concepts import BLOCK_CODES, Blocks, Labels
from visae.features.image_scores import image_classes, pooled
from visae.features.monosemanticity import judged
from visae.features.scores import patch_classes, pictures_of
from visae.files import atomic_path, file_sha256
from visae.sae.autoencoder import SparseAutoencoder, load_sae

logger = logging.getLogger(__name__)

SCHEMA = {
    "metric": pl.String,
    "package": pl.String,
    "higher_is_better": pl.Boolean,
    **{f"{kind}{end}": pl.Float64 for kind in ("value", "corrected") for end in ("", "_low", "_high")},
    "n": pl.Int64,
    "unit": pl.String,
    "note": pl.String,
    "correction": pl.String,
}
_SAEV = ("probe_r", "mean_average_precision", f"purity_at_{PURITY_AT}", f"coverage_at_{COVERED}")


@dataclass(frozen=True, kw_only=True)
class DatasetFiles:
    """What there is of a data set.

    Attributes
    ----------
    codes
        manifest.json of its codes.
    store
        manifest.json of the activations that they were made of.
    index
        index.parquet, which has the labels of pictures.
    """

    codes: str
    store: str
    index: str


@dataclass(frozen=True, kw_only=True)
class BenchmarkFiles(DatasetFiles):
    """What is measured, and by what.

    Attributes
    ----------
    codes
        manifest.json of the codes.
    store
        manifest.json of the activations that they were made of.
    index
        index.parquet, which has the labels of pictures.
    sae
        config.json of the SAE.
    labels
        Patch labels, for saev's metrics; without them pictures are what is told apart.
    judge
        model.json of another model, which says how alike pictures are, or a manifest.json of activations; without it
        monosemanticity has no value.
    """

    sae: str
    labels: str = ""
    judge: str = ""


def write_benchmark(
    files: BenchmarkFiles,
    output: Path,
    settings: BenchmarkSettings = BenchmarkSettings(),  # noqa: B008  frozen
    others: Mapping[str, DatasetFiles] | None = None,
    *,
    min_purity: float = 0.9,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Measure an SAE by visaebench's seven metrics and by saev's, and write and log one table.

    `value` is what the package itself gives, `corrected` what is left without its faults; docs/benchmark.md has both.

    Parameters
    ----------
    files
        What is measured.
    output
        Parquet file to write: `SCHEMA`, one row a metric.
    settings
        Section `benchmark`.
    others
        Files of further data sets, for cross_domain.
    min_purity
        Share of a patch that a class has to fill for the patch to count.
    seed
        Of the intervals.
    device
        `auto`, `cpu` or `cuda`.
    """
    sae = load_sae(Path(files.sae), chosen_device(device))
    table = pl.DataFrame(
        [_row(metric) for metric in _measured(files, sae, settings, dict(others or {}), min_purity, seed, device)],
        schema=SCHEMA,
        orient="row",
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    with atomic_path(output) as temporary:
        table.write_parquet(temporary)
    logger.info("%s", as_text(table))


def _measured(
    files: BenchmarkFiles,
    sae: SparseAutoencoder,
    settings: BenchmarkSettings,
    others: dict[str, DatasetFiles],
    min_purity: float,
    seed: int,
    device: str,
) -> Iterator[Metric]:
    """All metrics in their order; one that cannot be had has a note in place of a value."""
    pictures, store = _opened(files, sae, settings.split)
    patches = 0 if sae.place.tokens == "class" else store.n_tokens("patches")
    drawn = settings.seed
    found: list[Reconstruction] = []

    def rebuilt() -> Reconstruction:
        if not found:
            found.append(reconstruct(store, sae, pictures.ids))
        return found[0]

    def elsewhere() -> Metric:
        opened = {name: _opened(other, sae, settings.split) for name, other in others.items()}
        there = {name: Elsewhere(own, reconstruct(kept, sae, own.ids)) for name, (own, kept) in opened.items()}
        return cross_domain(pictures, there, seed, drawn)

    def absorbed() -> Metric:
        if settings.groups is None:
            raise NotMeasured("no groups of classes that are alike are named (config: benchmark: groups)")
        return absorption(pictures, read_groups(Path(settings.groups), read_classes(Path(files.index))), drawn)

    metrics: dict[str, tuple[bool, Callable[[], Metric]]] = {
        "feature_localization": (True, lambda: localization(pictures, store.grid, patches, drawn)),
        "fvu": (False, lambda: unexplained_variance(rebuilt(), seed)),
        "downstream_preservation": (True, lambda: preservation(rebuilt(), pictures, seed, drawn)),
        "sparse_probing_auc": (True, lambda: sparse_probing(pictures, seed, drawn)),
        "monosemanticity": (True, lambda: _similarity(files, pictures, drawn, device)),
        "cross_domain": (True, elsewhere),
        "absorption_rate": (False, absorbed),
    }
    for name, (higher, measure) in metrics.items():
        yield from _or_notes((name,), "visaebench", higher, measure)
    yield from _or_notes(("normalized_mse", "l0"), "saev", False, lambda: size_and_error(rebuilt(), seed))
    yield from _or_notes(_SAEV, "saev", True, lambda: _rediscovered(files, settings, min_purity, seed))


def _or_notes(
    names: tuple[str, ...], package: str, higher: bool, measure: Callable[[], Metric | list[Metric]]
) -> list[Metric]:
    """What a measure finds, or a row for each of its names with the reason why not."""
    try:
        found = measure()
        return found if isinstance(found, list) else [found]
    except NotMeasured as reason:
        return [Metric(name, package, higher, UNDEFINED, UNDEFINED, 0, "", str(reason)) for name in names]


def _opened(files: DatasetFiles, sae: SparseAutoencoder, split: str) -> tuple[Pictures, ActivationStore]:
    """Pictures of a data set and their activations; StoreError where the files do not belong together."""
    store, pictures = ActivationStore.open(files.store), Pictures.read(Path(files.codes), Path(files.index), split)
    manifest = read_codes_manifest(files.codes)
    if store.n_images != manifest["n_images"]:
        raise StoreError(f"{files.store} holds {store.n_images} pictures, {files.codes} {manifest['n_images']}")
    if sae.width != pictures.width:
        raise StoreError(f"{files.codes} has {pictures.width} latents, the SAE {sae.width}; write the codes again")
    if store.d_model == sae.d_model:  # or else that is said when it is read
        _refuse_others(manifest, files.codes, files.store)
    if isinstance(files, BenchmarkFiles):
        _refuse_others(manifest, files.codes, files.sae)
    return pictures, store


def _refuse_others(manifest: Mapping[str, Any], codes: str, path: str) -> None:
    """Refuse a store or an SAE that the codes are not of, where they say of which they are."""
    made_from = (manifest.get("provenance") or {}).get("inputs", {}).get(Path(path).name)
    if made_from is not None and made_from != file_sha256(path):
        raise StoreError(f"{path}: {codes} was made from another {Path(path).name}; give that one, or encode again")


def _similarity(files: BenchmarkFiles, pictures: Pictures, seed: int, device: str) -> Metric:
    if not files.judge:
        raise NotMeasured("no other model is named that judges pictures (config: features: similarity)")
    return similarity(pictures, judged(Path(files.judge), Path(files.index), pictures.ids, device), seed)


def _rediscovered(files: BenchmarkFiles, settings: BenchmarkSettings, min_purity: float, seed: int) -> list[Metric]:
    codes, index = Path(files.codes), Path(files.index)
    classes = dict(sorted(read_classes(index).items()))
    manifest = read_codes_manifest(codes)
    if settings.fit_split not in manifest["splits"]:
        raise NotMeasured(
            f"there is no split {settings.fit_split} to choose latents on, only {', '.join(manifest['splits'])} "
            "(config: benchmark: fit_split)"
        )
    # A class token is of the whole picture.
    of_patches = bool(files.labels) and tokens_of(manifest) != "class"
    if of_patches:
        classes.pop(0, None)

    def labels(split: str) -> Labels:
        ids = pictures_of(manifest, split, codes)
        if of_patches:
            return patch_classes(Path(files.labels), list(classes), min_purity, ids)
        return image_classes(index, list(classes), ids)

    def blocks() -> Iterator[tuple[range, pl.LazyFrame]]:
        for latents, found in codes_by_latents(codes, BLOCK_CODES, "patches" if of_patches else None):
            yield latents, found if of_patches else pooled(found, "max")

    units: Blocks = blocks
    try:
        fit_on, measured = labels(settings.fit_split), labels(settings.split)
    except DataError as error:  # of pictures without labels
        raise NotMeasured(str(error)) from error
    return rediscovery(units, fit_on, measured, seed)


def _row(metric: Metric) -> dict[str, object]:
    estimates = {
        f"{kind}{end}": float(number) if np.isfinite(number) or number > 0 else float("nan")
        for kind, found in (("value", metric.value), ("corrected", metric.corrected))
        for end, number in zip(("", "_low", "_high"), found, strict=True)
    }
    return {
        **{"metric": metric.name, "package": metric.package, "higher_is_better": metric.higher_is_better},
        **estimates,
        **{"n": int(metric.n), "unit": metric.unit},
        **{"note": metric.note, "correction": metric.correction},
    }
