"""Strips of a few classes, from what the experiments on many pictures kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.data.index import read_classes
from visae.features.names import read_names
from visae.figures.pictures import load_indexed
from visae.figures.strips import CONTROLS, Strip, data, draw, title
from visae.figures.style import PAGE_WIDTH, save_figure, style
from visae.vision.card import ModelCard

STRIPS = 4
"""Classes that are shown: those with most edited patches in a picture, whatever comes of the edit."""

_CONTROL = {"classification": CONTROLS["random_vector"], "segmentation": CONTROLS["random_latent"]}


def draw_class_strips(
    task: Literal["classification", "segmentation"],
    outcomes: Path,
    exemplars: Path,
    index_path: Path,
    card_path: Path,
    output: Path | Sequence[Path],
    *,
    settings: FigureSettings,
    arms: Path | None = None,
    names: Path | None = None,
) -> None:
    """Write the strips as PDF, PNG and CSV.

    Parameters
    ----------
    task
        What was measured.
    outcomes
        examples.parquet of classification edits, or maps.parquet of segmentation arms.
    exemplars
        exemplars.parquet of the same data set.
    index_path, card_path
        Its index.parquet, and the model's model.json.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    arms
        arms.parquet of segmentation arms, which has each class's latents.
    names
        CSV file of names, if any.
    """
    named = {} if names is None else dict(read_names(names).select("latent", "name").iter_rows())
    found = pl.read_parquet(outcomes)
    if task == "classification":
        strips = classification_strips(found, named)
    else:
        assert arms is not None
        strips = segmentation_strips(found, pl.read_parquet(arms), read_classes(index_path), named)
    if not strips:
        # Of a poor SAE there may be none: its latents are silent wherever they would be edited.
        with style(settings):
            empty = Figure(figsize=(PAGE_WIDTH, 0.5))
            empty.text(0, 0.5, "No class's latent is active on a measured picture of the class", va="center")
        save_figure(empty, pl.DataFrame({"strip": []}), output)
        return
    table, card = data(strips, pl.read_parquet(exemplars)), ModelCard.read(card_path)
    pictures = load_indexed(table["image_id"].drop_nulls(), index_path, card)
    save_figure(draw(table, settings, pictures, card.grid, _CONTROL[task]), table, output)


def classification_strips(examples: pl.DataFrame, names: Mapping[int, str]) -> list[Strip]:
    """Strips of the scale that is farthest from 0, where latents were suppressed."""
    shown = examples.filter(pl.col("edit") == "suppress", pl.col("edited").list.len() > 0)
    strips = []
    for picture in _first_of_classes(shown):
        about = picture.row(0, named=True)
        outcome = picture.sort(pl.max_horizontal("before", "after"), descending=True)
        strips.append(
            Strip(
                f"{about['class_name']}: {title(about['latents'], names, about['scale'])}",
                about["image_id"],
                about["edited"],
                about["latents"],
                outcome.select(pl.col("shown_class").alias("class_name"), "before", "after", "control"),
            )
        )
    return strips


def segmentation_strips(
    maps: pl.DataFrame, arms: pl.DataFrame, classes: Mapping[int, str], names: Mapping[int, str]
) -> list[Strip]:
    """Strips of the scale that is farthest from 0; `classes` are names by id."""
    latents = dict(
        arms.filter(pl.col("arm") == "automatic", pl.col("class_id").is_not_null())
        .select("class_id", "latents")
        .unique("class_id")
        .iter_rows()
    )
    keys = ["image_id", "class_id", "scale"]
    control = maps.filter(arm="random_latent").select(*keys, pl.col("after").alias("control"))
    shown = maps.filter(arm="automatic").join(control, on=keys, how="left", maintain_order="left")
    strips = []
    for picture in _first_of_classes(shown):
        about = picture.row(0, named=True)
        # Without the arm that is shown as control there is none.
        n_patches = len(about["before"])
        columns = {name: about[name] or [None] * n_patches for name in ("before", "after", "control")}
        by_patch = pl.DataFrame(
            {"token": range(n_patches), **columns}, schema=dict.fromkeys(("token", *columns), pl.Int16)
        )
        predicted = pl.col("before", "after", "control").replace_strict(classes, return_dtype=pl.String, default=None)
        strips.append(
            Strip(
                f"{about['class_name']}: {title(latents[about['class_id']], names, about['scale'])}",
                about["image_id"],
                about["edited"],
                latents[about["class_id"]],
                by_patch.with_columns(predicted),
            )
        )
    return strips


def _first_of_classes(shown: pl.DataFrame) -> list[pl.DataFrame]:
    """Rows of each class's picture with most edited patches, for the classes with most."""
    if shown.is_empty():
        return []
    scale = max(shown["scale"].unique().to_list(), key=abs)
    ordered = shown.filter(pl.col("scale") == scale).sort(
        pl.col("edited").list.len(), "class_id", "image_id", descending=[True, False, False], maintain_order=True
    )
    first = ordered.unique("class_id", keep="first", maintain_order=True).select("class_id", "image_id").head(STRIPS)
    return [ordered.filter(class_id=class_id, image_id=image_id) for class_id, image_id in first.iter_rows()]
