"""Whether latents look where two pictures differ: on pairs in which exactly one cause, in a known place, is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from visae.attribution.maps import maps_of
from visae.attribution.measures import mean_over_pictures, share_inside
from visae.attribution.response import Response
from visae.config.attribution import AttributionSettings
from visae.data.images import pixels
from visae.data.paired import Pair, causes_of
from visae.data.pairs import read_pairs
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.features.blocks import read_matching_manifest
from visae.features.codes import scan_codes
from visae.files import write_json, write_table
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.sae import load_sae
from visae.vision.hook_points import HookPoint
from visae.vision.model import ModelCard, load_model

FIT, MEASURED = "train", "val"
SHARES = ("attribution", "occlusion", "activation", "token", "area")
"""Maps whose mass inside the changed place is compared: `token` has all at the token itself, `area` knows nothing."""

MEAN = "mean"
EVERYWHERE = 0.99
"""Share of the picture above which a place is everywhere, so that every map lies inside."""

SCHEMA: dict[str, Any] = {
    "pair": pl.String,
    "cause": pl.String,
    "latent": pl.Int32,
    "image_id": pl.Int32,
    "token": pl.Int16,
    "change": pl.Float32,
    **{f"inside_{name}": pl.Float64 for name in SHARES},
    "activation": pl.List(pl.Float32),
    "attribution": pl.List(pl.Float32),
    "occlusion": pl.List(pl.Float32),
    "region": pl.List(pl.Float32),
}
"""Columns of attribution_of_pairs.parquet: one row a pair."""


@dataclass(frozen=True, kw_only=True)
class PairFiles:
    """What attributions of pairs are made from.

    Attributes
    ----------
    card
        model.json of the model.
    sae
        config.json of the SAE.
    index
        index.parquet of a data set with pairs.
    codes
        manifest.json of the SAE's codes of it.
    """

    card: Path
    sae: Path
    index: Path
    codes: Path


def attribute_pairs(
    files: PairFiles,
    settings: AttributionSettings,
    layer: str,
    output: Path,
    *,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Find how much of where latents look is where a pair's pictures differ; write attribution_of_pairs.parquet, .json.

    For each cause the latents whose codes change most with it are chosen on split train. On split val, of each pair
    that of them is taken whose code changes most, at the token where it does and in the picture in which it is larger
    there, and the share of its maps' absolute mass inside the changed place is measured. Gradients are those on the
    way from a picture without information: on the way from the base picture all would lie inside, since pixels outside
    are the same.

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
    device
        `auto`, `cpu` or `cuda`.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What attribution_of_pairs.json holds.

    Raises
    ------
    DataError
        If the data set has no pairs in one of both splits, or no place of a change is known.
    ModelError
        If model, layer and SAE do not fit.
    """
    where, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, list(vars(files).values()), seed, described(where))
    read_matching_manifest(files.codes, files.index)
    pairs = read_pairs(files.index)
    response = Response(load_model(files.card, where), load_sae(files.sae, where), HookPoint.parse(layer))
    views = _views(files, pairs, settings, seed)
    card, grid = response.model.card, response.grid
    placed, n_everywhere = _with_places(views, card, grid)
    rows: list[dict[str, Any]] = []
    with progress_bar(len(placed), "attribution of pairs", "pairs") as bar:
        for first in range(0, len(placed), settings.batch_size):
            part = placed[first : first + settings.batch_size]
            images = torch.stack([pixels(view.path, card) for view, _ in part])
            latents = torch.tensor([view.latent for view, _ in part])
            maps = maps_of(response, images, latents, [view.token for view, _ in part], settings)
            rows += [_row(view, place, maps.of(number)) for number, (view, place) in enumerate(part)]
            bar.update(len(part))
    table = pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))
    write_table(output / "attribution_of_pairs.parquet", table)
    summary = {
        "layer": layer,
        "tokens": response.sae.place.tokens,
        "n_pairs": len(table),
        "n_everywhere": n_everywhere,
        "causes": pair_shares(table, settings.bootstrap, seed),
        "provenance": provenance.record(),
    }
    write_json(output / "attribution_of_pairs.json", summary)
    return summary


def pair_shares(table: pl.DataFrame, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Shares inside the changed place by cause, and their mean over all pairs, with intervals from resampled scenes.

    Returns
    -------
    list
        cause (`mean` for all), n_pairs, latents, each of SHARES as {value, low, high}, and how much more of the
        attribution is inside than of each other map: `above_occlusion`, `above_activation`, ...
    """
    found = []
    for cause in [*table["cause"].unique(maintain_order=True), MEAN]:
        rows = table if cause == MEAN else table.filter(pl.col("cause") == cause)
        # Pairs with one base share most of their pixels: they are drawn together.
        scenes = rows["pair"].rank("dense").to_numpy()
        values = {name: rows[f"inside_{name}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in SHARES}
        more = {f"above_{name}": values["attribution"] - values[name] for name in SHARES[1:]}
        means = {name: mean_over_pictures(one, scenes, resamples, seed) for name, one in {**values, **more}.items()}
        about = {"cause": cause, "n_pairs": len(rows), "latents": rows["latent"].unique(maintain_order=True).to_list()}
        found.append({**about, **means})
    return found


@dataclass(frozen=True)
class _View:
    """A latent in one picture of a pair."""

    pair: Pair
    latent: int
    image_id: int
    path: str
    token: int
    change: float


def _views(files: PairFiles, pairs: Sequence[Pair], settings: AttributionSettings, seed: int) -> list[_View]:
    """Pairs of the measured split, each with the latent that changes most in it of those chosen on the other."""
    by_split = {split: [pair for pair in pairs if pair.split == split] for split in (FIT, MEASURED)}
    for split, found in by_split.items():
        if not found:
            raise DataError(
                f"{files.index}: split {split} has no pairs; latents are chosen on {FIT} and measured on {MEASURED}"
            )
    random = np.random.default_rng([seed, 32])
    views: list[_View] = []
    for cause in causes_of(by_split[MEASURED]):
        fit, measured = ([pair for pair in by_split[split] if pair.cause == cause] for split in (FIT, MEASURED))
        latents = _responding(_changes(files.codes, fit), settings.latents_per_cause)
        order = [measured[place] for place in random.permutation(len(measured))]
        views += _largest(_changes(files.codes, order, latents), order)[: settings.pairs]
    if not views:
        raise DataError(f"{files.codes}: no latent changes in any pair of split {MEASURED}; train the SAE for longer")
    return views


def _changes(codes: Path, pairs: Sequence[Pair], latents: Sequence[int] | None = None) -> pl.DataFrame:
    """Largest change of each latent's code in each pair, and its token: number (of the pair), latent, token, change.

    Parameters
    ----------
    codes
        manifest.json of the codes.
    latents
        All, or these alone.
    """
    listed = pl.LazyFrame(
        [(number, *side) for number, pair in enumerate(pairs) for side in ((pair.base, -1.0), (pair.changed, 1.0))],
        schema={"number": pl.Int64, "image_id": pl.Int32, "sign": pl.Float64},
        orient="row",
    )
    found = scan_codes(codes) if latents is None else scan_codes(codes).filter(pl.col("latent").is_in(list(latents)))
    by_token = (
        found.join(listed, on="image_id")
        .group_by("number", "latent", "token")
        .agg(change=(pl.col("value") * pl.col("sign")).sum())
        .filter(pl.col("change") != 0)
    )
    # Of equal changes the lower token.
    order = [pl.col("change").abs(), -pl.col("token").cast(pl.Int32)]
    return (
        by_token.group_by("number", "latent")
        .agg(pl.col("token", "change").sort_by(order, descending=True).first())
        .sort("number", "latent")
        .collect(engine="streaming")
    )


def _responding(changes: pl.DataFrame, most: int) -> list[int]:
    """Latents whose largest changes are largest in the mean, the first first; of equal ones the lower number."""
    sums = changes.group_by("latent").agg(pl.col("change").abs().sum())
    return sums.sort("change", "latent", descending=[True, False])["latent"].head(most).to_list()


def _largest(changes: pl.DataFrame, pairs: Sequence[Pair]) -> list[_View]:
    """The latent that changes most in each pair, in the picture in which it is larger at that token; pair by pair."""
    strongest = changes.sort(pl.col("change").abs(), descending=True).unique("number", maintain_order=True)
    views = []
    for row in strongest.sort("number").iter_rows(named=True):
        pair = pairs[row["number"]]
        is_changed = row["change"] > 0
        image_id, path = (pair.changed, pair.changed_path) if is_changed else (pair.base, pair.base_path)
        views.append(_View(pair, row["latent"], image_id, path, row["token"], row["change"]))
    return views


def _with_places(
    views: Sequence[_View], card: ModelCard, grid: tuple[int, int]
) -> tuple[list[tuple[_View, NDArray[np.float32]]], dict[str, int]]:
    """Views with the share of each patch that their change covers; and by cause how many change everything."""
    found = [(view, view.pair.share_of_patches(card, grid)) for view in views]
    everywhere = Counter(view.pair.cause for view, place in found if place.mean() >= EVERYWHERE)
    return [(view, place) for view, place in found if place.mean() < EVERYWHERE], dict(everywhere)


def _row(view: _View, place: NDArray[np.float32], maps: dict[str, Any]) -> dict[str, Any]:
    """Row of the table: what share of each map is in the place."""
    found = {name: maps[name] for name in ("activation", "attribution", "occlusion")}
    shares = {
        name: share_inside(values, place) if not np.isnan(values).any() else float("nan")
        for name, values in found.items()
    }
    shares["token"] = float(place[view.token]) if view.token >= 0 else float("nan")
    shares["area"] = float(place.mean())
    return {
        "pair": view.pair.name,
        "cause": view.pair.cause,
        "latent": view.latent,
        "image_id": view.image_id,
        "token": view.token,
        "change": view.change,
        **{f"inside_{name}": shares[name] for name in SHARES},
        **found,
        "region": place,
    }
