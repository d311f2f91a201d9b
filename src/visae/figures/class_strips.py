"""Strips of a few classes, from what the experiments on many pictures kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.data.index import read_classes
from visae.features.names import read_names
from visae.figures.pictures import load_indexed
from visae.figures.strips import CONTROLS, TOP_CLASSES, Strip, data, draw, title
from visae.figures.style import PAGE_WIDTH, save_figure, style
from visae.files import read_json
from visae.vision.card import ModelCard

STRIPS = 4
"""Classes that are shown: those with most edited patches in a picture, whatever comes of the edit."""

_CONTROL = {"patch": ("random_latent", "natural"), "picture": ("random_vector", "matched")}
"""Arm and size that stand beside the class's latent, by the unit of a task."""


def draw_class_strips(
    examples: Path,
    summary: Path,
    exemplars: Path,
    index_path: Path,
    card_path: Path,
    output: Path | Sequence[Path],
    *,
    settings: FigureSettings,
    names: Path | None = None,
) -> None:
    """Write the strips as PDF, PNG and CSV.

    Parameters
    ----------
    examples, summary
        examples.parquet and summary.json of the experiment.
    exemplars
        exemplars.parquet of the same data set.
    index_path, card_path
        Its index.parquet, and the model's model.json.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    names
        CSV file of names, if any.
    """
    named = {} if names is None else dict(read_names(names).select("latent", "name").iter_rows())
    told, classes = read_json(summary), read_classes(index_path)
    unit = "patch" if told["task"] == "segmentation" else "picture"
    strips = class_strips(pl.read_parquet(examples), unit, told["answers"], classes, named)
    if not strips:
        # Of a poor SAE there may be none: its latents are silent wherever they would be edited.
        with style(settings):
            empty = Figure(figsize=(PAGE_WIDTH, 0.5))
            empty.text(0, 0.5, "No class's latent is active on a measured picture of the class", va="center")
        save_figure(empty, pl.DataFrame({"strip": []}), output)
        return
    table, card = data(strips, pl.read_parquet(exemplars)), ModelCard.read(card_path)
    pictures = load_indexed(table["image_id"].drop_nulls(), index_path, card)
    control = CONTROLS[_CONTROL[unit][0]]
    save_figure(draw(table, settings, pictures, card.grid, control, list(classes.values())), table, output)


def class_strips(
    examples: pl.DataFrame, unit: str, answers: Sequence[str], classes: Mapping[int, str], names: Mapping[int, str]
) -> list[Strip]:
    """Strips of the scale that is farthest from 0, where latents were suppressed.

    Parameters
    ----------
    examples
        examples.parquet.
    unit
        What answers are given for: `patch`, whose examples hold ids of classes, or `picture`, probabilities.
    answers
        Names of the classes in the order of probabilities.
    classes, names
        Names of classes by id, and those that people gave to latents.
    """
    arm, size = _CONTROL[unit]
    suppressed = examples.filter(pl.col("edit") == "suppress", pl.col("edited").list.len() > 0)
    keys = ["image_id", "class_id", "scale"]
    control = suppressed.filter(arm=arm, size=size).select(*keys, pl.col("after").alias("control"))
    shown = suppressed.filter(arm="automatic").join(control, on=keys, how="left", maintain_order="left")
    strips = []
    for about in _first_of_classes(shown):
        outcome = _by_patch(about, classes) if unit == "patch" else _by_class(about, answers)
        what = f"{about['class_name']}: {title(about['latents'], names, about['scale'], about['edited'])}"
        strips.append(Strip(what, about["image_id"], about["edited"], about["latents"], outcome))
    return strips


def _by_class(about: Mapping, answers: Sequence[str]) -> pl.DataFrame:
    """Probabilities of the classes that are likeliest before or after."""
    control = about["control"] or [None] * len(answers)
    found = pl.DataFrame(
        {"class_name": answers, "before": about["before"], "after": about["after"], "control": control}
    )
    return found.sort(pl.max_horizontal("before", "after"), descending=True, maintain_order=True).head(TOP_CLASSES)


def _by_patch(about: Mapping, classes: Mapping[int, str]) -> pl.DataFrame:
    """Predicted class of each patch; without the arm that is shown as control there is none."""
    n_patches = len(about["before"])
    columns = {name: about[name] or [None] * n_patches for name in ("before", "after", "control")}
    ids = pl.DataFrame({"token": range(n_patches), **columns}).cast(dict.fromkeys(("token", *columns), pl.Int16))
    return ids.with_columns(
        pl.col("before", "after", "control").replace_strict(classes, return_dtype=pl.String, default=None)
    )


def _first_of_classes(shown: pl.DataFrame) -> list[dict]:
    """Row of each class's picture with most edited patches, for the classes with most."""
    if shown.is_empty():
        return []
    scale = max(shown["scale"].unique().to_list(), key=abs)
    ordered = shown.filter(pl.col("scale") == scale).sort(
        pl.col("edited").list.len(), "class_id", "image_id", descending=[True, False, False], maintain_order=True
    )
    return ordered.unique("class_id", keep="first", maintain_order=True).head(STRIPS).to_dicts()
