"""Where latents look in the pictures in which they are strongest, and whether covering these places says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.attribution.maps import maps_of, windows_of
from visae.attribution.measures import (
    AGREEMENTS,
    half_of_mass,
    mean_over_pictures,
    rank_correlation,
    share_inside,
    shuffled_correlation,
    window_sums,
)
from visae.attribution.response import Response
from visae.config.attribution import AttributionSettings
from visae.config.settings import FigureSettings
from visae.data.images import pixels
from visae.data.index import read_index
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.features.names import read_names
from visae.features.shown import chosen_latents
from visae.files import write_json, write_table
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import load_sae
from visae.vision.hook_points import HookPoint
from visae.vision.model import load_model

MAPS = ("activation", "attribution", "occlusion")
SCHEMA: dict[str, Any] = {
    "latent": pl.Int32,
    "rank": pl.Int16,
    "image_id": pl.Int32,
    "token": pl.Int16,
    "value": pl.Float32,
    "response": pl.Float32,
    "without": pl.Float32,
    **dict.fromkeys(MAPS, pl.List(pl.Float32)),
    **{f"agreement_{name}": pl.Float64 for name in AGREEMENTS},
    "accounted": pl.Float64,
    **{f"{what}_{name}": pl.Float64 for name in MAPS for what in ("own", "active", "half")},
}
"""Columns of attribution.parquet: one row a latent and picture."""


@dataclass(frozen=True, kw_only=True)
class AttributionFiles:
    """What attributions are made from.

    Attributes
    ----------
    card
        model.json of the model.
    sae
        config.json of the SAE.
    index
        index.parquet of the data set.
    exemplars, stats
        Parquet files of the features of that SAE on that data set.
    scores, image_scores
        Those of them that there are; without any, latents are chosen by strength alone.
    names
        CSV file of names, if any.
    """

    card: Path
    sae: Path
    index: Path
    exemplars: Path
    stats: Path
    scores: Path | None = None
    image_scores: Path | None = None
    names: Path | None = None

    def named(self) -> list[Path]:
        """Small files that decide the result."""
        return [path for path in (self.card, self.sae, self.index, self.exemplars) if path is not None]


def attribute_exemplars(
    files: AttributionFiles,
    settings: AttributionSettings,
    layer: str,
    output: Path,
    *,
    latents: list[int] | None = None,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Find where latents look in their strongest pictures, and write attribution.parquet and attribution.json.

    A latent's response to its strongest token is followed back through the network to the pixels: gradient times
    difference from a picture without information, summed over each patch. As a check each window of patches is covered,
    and the fall of the response compared.

    Parameters
    ----------
    files
        What it is made from.
    settings
        Section `attribution`.
    layer
        Layer, such as 10 or 10-attention, whose activations the SAE takes.
    output
        Folder.
    latents
        Latents to look at, such as those that an atlas has proven; without it, those with names, the best of each
        class and the strongest.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What attribution.json holds.

    Raises
    ------
    DataError
        If a latent has no exemplars, or there are none at all.
    ModelError
        If model, layer and SAE do not fit.
    """
    where, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, files.named(), seed, described(where))
    response = Response(load_model(files.card, where), load_sae(files.sae, where), HookPoint.parse(layer))
    exemplars = pl.read_parquet(files.exemplars).filter(pl.col("kind") == "top", pl.col("rank") < settings.pictures)
    views = _views(exemplars, latents or _latents(files, exemplars, settings.latents), files.exemplars)
    paths = dict(read_index(files.index).select("image_id", "path").iter_rows())
    rows: list[dict[str, Any]] = []
    with progress_bar(len(views), "attribution", "pictures") as bar:
        for part in views.iter_slices(settings.batch_size):
            images = torch.stack([pixels(paths[number], response.model.card) for number in part["image_id"]])
            maps = maps_of(response, images, torch.tensor(part["latent"].to_list()), part["token"].to_list(), settings)
            rows += [{**view, **maps.of(number)} for number, view in enumerate(part.iter_rows(named=True))]
            bar.update(len(part))
    _measure(rows, windows_of(response.grid, settings.window), settings.shuffles, seed)
    table = pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))
    write_table(output / "attribution.parquet", table)
    summary = {
        "layer": layer,
        "grid": list(response.grid),
        "tokens": response.sae.place.tokens,
        "n_pictures": len(table),
        "latents": table["latent"].unique(maintain_order=True).to_list(),
        **summarized(table, settings.bootstrap, seed),
        "provenance": provenance.record(),
    }
    write_json(output / "attribution.json", summary)
    return summary


def summarized(table: pl.DataFrame, resamples: int, seed: int) -> dict[str, Any]:
    """Means of attribution.parquet over all rows and by latent, with intervals from resampled pictures.

    Returns
    -------
    dict
        `measures` and, in `by_latent`, those of each latent: {column: {value, low, high}}, and by how much sizes of
        the attribution agree more with those of occlusion than the activation does (`absolute_above_activation`).
    """
    columns = [name for name, kind in SCHEMA.items() if kind == pl.Float64]

    def means(rows: pl.DataFrame) -> dict[str, Any]:
        pictures = rows["image_id"].to_numpy()
        found = {name: rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in columns}
        found["absolute_above_activation"] = found["agreement_absolute"] - found["agreement_absolute_activation"]
        return {name: mean_over_pictures(values, pictures, resamples, seed) for name, values in found.items()}

    by_latent = [
        {"latent": int(rows["latent"][0]), "n_pictures": len(rows), **means(rows)}
        for rows in table.partition_by("latent", maintain_order=True)
    ]
    return {"measures": means(table), "by_latent": by_latent}


def _latents(files: AttributionFiles, exemplars: pl.DataFrame, most: int) -> list[int]:
    """Latents with names, then the best of each class of patches or of pictures, then the strongest."""
    tables = [pl.read_parquet(path) for path in (files.scores, files.image_scores) if path is not None]
    # Of pictures, those that are told by their strongest patch.
    scores = [rows.filter(pooling="max") if "pooling" in rows.columns else rows for rows in tables]
    best = ("rank", "latent", "class_id", "f1")
    together = pl.concat([rows.select(best) for rows in scores]) if scores else None
    found = chosen_latents(exemplars, pl.read_parquet(files.stats), together, FigureSettings(latents=most))
    named = [] if files.names is None else read_names(files.names)["latent"].to_list()
    shown = set(exemplars["latent"].unique())
    return [latent for latent in dict.fromkeys([*named, *found]) if latent in shown][:most]


def _views(exemplars: pl.DataFrame, latents: Sequence[int], path: Path) -> pl.DataFrame:
    """Rows of exemplars of some latents, in their order: latent, rank, image_id, token, value."""
    if missing := sorted(set(latents) - set(exemplars["latent"])):
        raise DataError(f"{path}: latents {missing} have no exemplars: they are never active; choose others")
    if not latents:
        raise DataError(f"{path}: no latent to look at: all are dead; train the SAE for longer")
    order = pl.DataFrame({"latent": pl.Series(latents, dtype=pl.Int32)})
    rows = order.join(exemplars.sort("rank"), on="latent", maintain_order="left_right")
    return rows.select("latent", "rank", "image_id", "token", "value")


def _measure(rows: list[dict[str, Any]], windows: NDArray[np.int64], shuffles: int, seed: int) -> None:
    """Add to each row what its maps have in common, and how concentrated they are."""
    random = np.random.default_rng([seed, 31])
    for place, row in enumerate(rows):
        sums = {name: window_sums(row[name], windows) for name in MAPS}
        # Latents look at the middle of pictures more often than at corners: another picture's map knows as much.
        others = [one for one in (*rows[place + 1 :], *rows[:place]) if one["latent"] == row["latent"]]
        another = window_sums(others[0]["attribution"], windows) if others else np.full_like(sums["occlusion"], np.nan)
        compared = {"attribution": sums["attribution"], "activation": sums["activation"], "other_picture": another}
        found = {f"agreement_{name}": rank_correlation(one, sums["occlusion"]) for name, one in compared.items()}
        sizes = [window_sums(np.abs(row[name]), windows) for name in ("attribution", "occlusion")]
        found["agreement_absolute"] = rank_correlation(*sizes)
        found["agreement_absolute_activation"] = rank_correlation(sums["activation"], sizes[1])
        found["agreement_shuffled"] = shuffled_correlation(sums["attribution"], sums["occlusion"], shuffles, random)
        change = float(row["response"]) - float(row["without"])
        found["accounted"] = float(row["attribution"].sum(dtype=np.float64)) / change if change else float("nan")
        row.update(found | _concentration(row))


def _concentration(row: dict[str, Any]) -> dict[str, float]:
    """How much of each map lies on the token itself and where the latent is active, and how few patches have half."""
    found = {}
    own = np.zeros(len(row["attribution"]))
    if row["token"] >= 0:
        own[row["token"]] = 1
    active = (row["activation"] > 0).astype(np.float64)
    on_patches = not np.isnan(row["activation"]).any()
    for name in MAPS:
        values = row[name]
        known = on_patches and not np.isnan(values).any()
        found[f"own_{name}"] = share_inside(values, own) if known and own.any() else float("nan")
        found[f"active_{name}"] = share_inside(values, active) if known else float("nan")
        found[f"half_{name}"] = half_of_mass(values)
    return found
