"""The best latents of each class: held-out F1 with its interval, beside what chance reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.features.names import NAMES_SCHEMA, read_names
from visae.figures.style import COLUMN_WIDTH, colours, plain, save_figure, style


def data(scores: pl.DataFrame, names: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return one row a class and latent, the classes with the best latent first.

    Parameters
    ----------
    scores
        scores.parquet.
    names
        From `visae.features.names.read_names`.

    Returns
    -------
    DataFrame
        class_id, class_name, n_patches, rank (0 was the best on the pictures that it was chosen on), latent, name, f1,
        f1_low, f1_high, f1_random. Classes that could not be measured are left out.
    """
    best = pl.col("f1").filter(pl.col("rank") == 0).first().over("class_id")
    return (
        scores.filter(pl.col("f1").is_not_null())
        .join(pl.DataFrame(schema=NAMES_SCHEMA) if names is None else names, on="latent", how="left")
        .sort(best, "class_id", "rank", descending=[True, False, False])
        .select(
            *("class_id", "class_name", "n_patches", "rank", "latent", "name"),
            *("f1", "f1_low", "f1_high", "f1_random"),
        )
    )


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a line a class, its first latent with the interval, the next ones as faint dots."""
    classes = table["class_name"].unique(maintain_order=True).to_list()
    first = table.filter(pl.col("rank") == 0)
    places = {name: -number for number, name in enumerate(classes)}
    blue, orange = colours(settings)[:2]
    with style(settings):
        figure = Figure(figsize=(COLUMN_WIDTH * 1.3, 0.9 + 0.19 * max(1, len(classes))), layout="constrained")
        axes = figure.add_subplot()
        others = table.filter(pl.col("rank") > 0)
        axes.scatter(
            others["f1"],
            [places[name] for name in others["class_name"]],
            s=9,
            c="#B0B0B0",
            linewidths=0,
            label="next best latents",
        )
        y = [places[name] for name in first["class_name"]]
        axes.scatter(
            first["f1_random"], y, marker="|", s=45, c=orange, linewidths=1.3, label="latents about as often active"
        )
        low, high = (first["f1"] - first["f1_low"]).clip(0), (first["f1_high"] - first["f1"]).clip(0)
        axes.errorbar(
            first["f1"],
            y,
            xerr=np.stack([low.to_numpy(), high.to_numpy()]),
            fmt="o",
            color=blue,
            markersize=3.5,
            elinewidth=1,
            label="latent chosen on other pictures, 95 %",
        )
        # A class is named by whoever made the data set: a dollar sign in it is not a formula.
        labels = [_label(*row) for row in first.select("class_name", "name", "latent").iter_rows()]
        axes.set_yticks(y, [plain(label) for label in labels])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-len(classes) + 0.4, 0.6)
        axes.set_xlim(0, 1)
        axes.set_xlabel("F1 on held-out patches")
        figure.legend(loc="outside upper left")
    return figure


def draw_class_latents(
    scores: Path, output: Path | Sequence[Path], settings: FigureSettings, names: Path | None = None
) -> None:
    """Write the figure as PDF, PNG and CSV.

    Parameters
    ----------
    scores
        scores.parquet.
    output
        As for `save_figure`.
    settings
        Section `figures`.
    names
        CSV file of names, if any.
    """
    table = data(pl.read_parquet(scores), None if names is None else read_names(names))
    save_figure(draw(table, settings), table, output)


def _label(class_name: str, name: str | None, latent: int) -> str:
    return f"{class_name}  {latent}" if name is None else f"{class_name}  {latent} “{name}”"
