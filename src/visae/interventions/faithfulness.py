"""What the heads lose when a layer's patches are replaced: by the SAE's reconstruction, by their mean, by zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.config.settings import FaithfulnessSettings
from visae.data.index import read_classes
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.files import atomic_path, write_json
from visae.heads.bootstrap import COVERAGE, estimates
from visae.heads.calibration import Judged, Verdicts, verdicts
from visae.heads.masks import Masks, patch_channels
from visae.heads.probe import image_labels, learned_labels, load_probe
from visae.heads.segmentation_head import load_segmentation_head
from visae.heads.segmentation_metrics import LEVELS, SegmentationTally
from visae.heads.tokens import open_store
from visae.interventions.edits import refuse_transcoder
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import SparseAutoencoder, load_sae
from visae.vision.model import VisionModel, load_model

REPLACEMENTS = ("as_is", "reconstruction", "mean", "zero")
"""What stands in the place of the patches; prefix tokens ([CLS], registers) always stay as they are."""

_CHUNK = 2048
Measure = Callable[[np.ndarray], dict[str, np.ndarray]]


def measure_faithfulness(
    settings: FaithfulnessSettings,
    *,
    layer: int,
    sae_config: str | Path,
    card_path: str | Path,
    output: str | Path,
    classification_manifest: str | Path | None = None,
    classification_index: str | Path | None = None,
    probe_metrics: str | Path | None = None,
    segmentation_manifest: str | Path | None = None,
    segmentation_index: str | Path | None = None,
    patch_labels: str | Path | None = None,
    head_metrics: str | Path | None = None,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both heads, or one, with all patches replaced; write faithfulness.parquet and .json into `output`.

    The table has one row a measure and quantity: the measure under each of REPLACEMENTS, and the share of it that the
    reconstruction recovers, `recovered_from_zero` = (reconstruction - zero) / (as is - zero) and `recovered_from_mean`
    likewise. Intervals come from the same resamples of pictures. A share is null where its denominator's interval
    holds 0: where replacing costs nothing, nothing can be recovered.

    Parameters
    ----------
    layer
        Whose output is replaced; the network is resumed from there.
    output
        Folder.
    classification_manifest, classification_index, probe_metrics
        Store of the layer, index.parquet, and metrics.json of the probe; all or none.
    segmentation_manifest, segmentation_index, patch_labels, head_metrics
        The same of the segmentation head; all or none.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What faithfulness.json holds.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    classified = [path for path in (classification_manifest, classification_index, probe_metrics) if path]
    segmented = [path for path in (segmentation_manifest, segmentation_index, patch_labels, head_metrics) if path]
    if (len(classified), len(segmented)) not in ((3, 4), (3, 0), (0, 4)):
        raise DataError("faithfulness: give all files of the probe, all of the segmentation head, or all of both")
    inputs = [sae_config, card_path, *classified, *segmented]
    provenance = Provenance(settings, [path for path in inputs if path != patch_labels], seed, described(chosen))
    model, sae = load_model(card_path, chosen), load_sae(sae_config, chosen)
    refuse_transcoder(sae, sae_config)
    model.card.check_editable(layer)
    judges: list[tuple[ActivationStore, _Classified | _Segmented]] = []
    if classified:
        manifest, index, probe = classified
        store = open_store(manifest, model.card, layer)
        judges.append((store, _Classified(index, probe, store.image_ids(measure_split), model, chosen)))
    if segmented:
        manifest, index, labels, head = segmented
        store = open_store(manifest, model.card, layer)
        judges.append((store, _Segmented(index, labels, head, model, chosen)))

    replacing = _Replacing(model, sae, layer, settings.batch_size)
    for store, together in _by_store(judges):
        replacing.run(store, fit_split, measure_split, together, settings.mean_images)
    rows: list[dict[str, Any]] = []
    for _, judge in judges:
        rows += _rows(judge.measures(), judge.n_images, settings.bootstrap, seed)
    table = pl.DataFrame(rows, infer_schema_length=None)
    output = Path(output)
    with atomic_path(output / "faithfulness.parquet") as temporary:
        table.write_parquet(temporary)
    summary = {
        "measures": {
            name: {row["quantity"]: {k: row[k] for k in ("value", "low", "high")} for row in part.to_dicts()}
            for (name,), part in table.group_by("measure", maintain_order=True)
        },
        "n_images": dict(table.group_by("measure", maintain_order=True).agg(pl.col("n_images").first()).iter_rows()),
        "layer": layer,
        "coverage": COVERAGE,
        "provenance": provenance.record(),
    }
    write_json(output / "faithfulness.json", summary)
    return summary


class _Classified:
    """A probe's verdicts under each replacement."""

    def __init__(
        self, index: str | Path, probe: str | Path, images: range, model: VisionModel, device: torch.device
    ) -> None:
        self.probe = load_probe(probe, model.card, device)
        self.known, _ = learned_labels(self.probe, images, image_labels(index), read_classes(index))
        if not self.known:
            raise DataError(f"{index}: no measured picture has a class that the probe has learned")
        self._found: dict[str, list[Verdicts]] = {name: [] for name in REPLACEMENTS}

    def __contains__(self, image_id: int) -> bool:
        return image_id in self.known

    def add(self, image_ids: list[int], final: dict[str, Tensor]) -> None:
        truth = torch.tensor([self.known[i] for i in image_ids])
        for name, tokens in final.items():
            self._found[name].append(verdicts(self.probe(tokens), truth))

    @property
    def n_images(self) -> int:
        return len(self.known)

    def measures(self) -> Measure:
        judged = {name: Judged(parts, len(self.probe.classes)) for name, parts in self._found.items()}

        def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
            found = {name: each.measures(weights) for name, each in judged.items()}
            return {f"{key} {name}": found[name][key] for key in ("accuracy", "log_loss") for name in REPLACEMENTS}

        return measure


class _Segmented:
    """A segmentation head's verdicts under each replacement."""

    def __init__(
        self, index: str | Path, patch_labels: str | Path, head: str | Path, model: VisionModel, device: torch.device
    ) -> None:
        self.head = load_segmentation_head(head, model.card, device)
        ids = [c["id"] for c in self.head.classes]
        self.index, self.masks = index, Masks(index, model.card, ids)
        self.by_image = patch_channels(patch_labels, ids, self.head.grid)
        self.tallies = {name: SegmentationTally(self.head.classes) for name in REPLACEMENTS}

    def __contains__(self, image_id: int) -> bool:
        return image_id in self.masks

    def add(self, image_ids: list[int], final: dict[str, Tensor]) -> None:
        patches = torch.stack([self.by_image[i] for i in image_ids])
        pixels = torch.stack([self.masks.read(i) for i in image_ids])
        for name, tokens in final.items():
            self.tallies[name].add(self.head(tokens), patches, pixels)

    @property
    def n_images(self) -> int:
        return self.tallies["as_is"].levels["patch"].n_images

    def measures(self) -> Measure:
        if self.tallies["as_is"].is_empty:
            raise DataError(f"{self.index}: no patch of the measured split is labelled")

        def measure(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {
                f"{level}_miou {name}": self.tallies[name].levels[level].measures(weights)["miou"]
                for level in LEVELS
                for name in REPLACEMENTS
            }

        return measure


def _by_store(
    judges: list[tuple[ActivationStore, _Classified | _Segmented]],
) -> list[tuple[ActivationStore, list[_Classified | _Segmented]]]:
    """Judges by the store that they read, so that two of one data set share its forward passes."""
    found: dict[Path, tuple[ActivationStore, list[_Classified | _Segmented]]] = {}
    for store, judge in judges:
        found.setdefault(store.folder, (store, []))[1].append(judge)
    return list(found.values())


class _Replacing:
    """Replaces the patches of a layer, resumes the network from there, and lets judges see what comes out."""

    def __init__(self, model: VisionModel, sae: SparseAutoencoder, layer: int, batch_size: int) -> None:
        self.model, self.sae, self.layer, self.batch_size = model, sae, layer, batch_size

    @torch.inference_mode()
    def run(
        self, store: ActivationStore, fit: str, measured: str, judges: list[_Classified | _Segmented], mean_images: int
    ) -> None:
        """Show the judges every picture of the measured split that they know, under each replacement."""
        mean = mean_patch(store, store.image_ids(fit), mean_images).to(self.sae.decoder_bias.device)
        with progress_bar(len(store.image_ids(measured)), "faithfulness", "pictures") as bar:
            for image_ids, tokens in store.iterate(measured, self.batch_size, kinds="all"):
                kept = [i for i, image_id in enumerate(image_ids) if any(int(image_id) in j for j in judges)]
                if kept:
                    final = {
                        name: self.model.resume(replaced, self.layer)
                        for name, replaced in self._replaced(tokens[kept].to(mean.device), mean).items()
                    }
                    self._show(judges, image_ids[kept], final)
                bar.update(len(image_ids))

    def _show(self, judges: list[_Classified | _Segmented], image_ids: np.ndarray, final: dict[str, Tensor]) -> None:
        for judge in judges:
            own = [i for i, image_id in enumerate(image_ids) if int(image_id) in judge]
            if own:
                judge.add([int(image_ids[i]) for i in own], {name: tokens[own] for name, tokens in final.items()})

    def _replaced(self, tokens: Tensor, mean: Tensor) -> dict[str, Tensor]:
        """Tokens (b, n_tokens, d_model) under each replacement."""
        n_prefix = self.model.card.n_prefix
        patches = tokens[:, n_prefix:]
        rows = [self.sae.decode(self.sae.sparse_codes(part)) for part in patches.flatten(0, 1).split(_CHUNK)]
        instead = (patches, torch.cat(rows).view_as(patches), mean.expand_as(patches), torch.zeros_like(patches))
        return {
            name: torch.cat([tokens[:, :n_prefix], values], dim=1)
            for name, values in zip(REPLACEMENTS, instead, strict=True)
        }


def mean_patch(store: ActivationStore, images: range, most: int) -> Tensor:
    """Mean patch (d_model,) of some pictures, or of so many of them, evenly spaced."""
    if not images:
        raise DataError(f"{store.folder}: no picture to take the mean patch of; the split to fit is empty")
    wanted = np.unique(np.linspace(images.start, images.stop - 1, min(most, len(images))).astype(int))
    total, n = torch.zeros(store.d_model, dtype=torch.float64), 0
    for shard, group, ids in store.groups(images):
        places = wanted[(wanted >= ids.start) & (wanted < ids.stop)] - ids.start
        if len(places):
            values = store.read_group(shard, group, ids, "patches")[torch.from_numpy(places)].flatten(0, 1)
            total += values.double().sum(dim=0)
            n += len(values)
    return (total / n).float()


def _rows(measure: Measure, n_images: int, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the table: every measure under every replacement, and the shares that the reconstruction recovers."""

    def with_shares(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = measure(weights)
        for name in sorted({key.split(" ")[0] for key in found}):
            for base in ("zero", "mean"):
                lost = found[f"{name} as_is"] - found[f"{name} {base}"]
                kept = found[f"{name} reconstruction"] - found[f"{name} {base}"]
                found[f"{name} lost_to_{base}"] = lost
                with np.errstate(divide="ignore", invalid="ignore"):
                    found[f"{name} recovered_from_{base}"] = np.where(lost != 0, kept / lost, np.nan)
        return found

    rows: list[dict[str, Any]] = []
    found = estimates(with_shares, n_images, seed, resamples)
    for key, estimate in found.items():
        name, quantity = key.split(" ")
        numbers = estimate.named("value")
        row = {"measure": name, "quantity": quantity, "value": numbers["value"]}
        row |= {"low": numbers["value_low"], "high": numbers["value_high"], "n_images": n_images}
        lost = found.get(f"{name} {quantity.replace('recovered_from', 'lost_to')}", estimate)
        if quantity.startswith("recovered_from") and not (lost.low > 0 or lost.high < 0):
            row.update(value=None, low=None, high=None)
        rows.append(row)
    return rows
