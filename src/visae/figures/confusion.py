"""What a head takes each class for: its confusion matrix, of a probe by pictures, of a segmentation head by patches."""

from __future__ import annotations

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, plain, style

MOST_CLASSES = 30
"""Classes that are drawn: of more, those that are mistaken most often."""

_WITH_NUMBERS = 12
_UNITS = {"picture": "pictures", "patch": "patches", "pixel": "pixels"}


def data(confusion: pl.DataFrame) -> pl.DataFrame:
    """Return one row a level and pair of classes that are drawn: n, and share, of all with that label.

    The share is null for a class that no label carries. A probe has the one level `picture`.

    Parameters
    ----------
    confusion
        confusion.parquet of a head.
    """
    if "level" not in confusion.columns:
        confusion = confusion.select(pl.lit("picture").alias("level"), pl.all())
    found = []
    for part in confusion.partition_by("level", maintain_order=True):
        right = pl.col("n").filter(pl.col("label_id") == pl.col("predicted_id")).sum()
        classes = part.group_by("label_id", "label_name", maintain_order=True).agg(
            pl.col("n").sum().alias("of_label"), (pl.col("n").sum() - right).alias("mistaken")
        )
        shown = classes.sort("mistaken", descending=True, maintain_order=True).head(MOST_CLASSES).select("label_id")
        rows = classes.join(shown, on="label_id", how="semi", maintain_order="left")
        columns = rows.select(predicted_id="label_id", predicted_name="label_name")
        pairs = part.select("label_id", "predicted_id", "n")
        found.append(
            rows.join(columns, how="cross", maintain_order="left_right")
            .join(pairs, on=["label_id", "predicted_id"], how="left", maintain_order="left")
            .select(
                pl.lit(part["level"][0]).alias("level"),
                *("label_id", "label_name", "predicted_id", "predicted_name"),
                pl.col("n").fill_null(0),
                pl.when(pl.col("of_label") > 0).then(pl.col("n").fill_null(0) / pl.col("of_label")).alias("share"),
            )
        )
    return pl.concat(found)


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: a panel a level, a row a true class, its shares in shades."""
    levels = table.partition_by("level", maintain_order=True)
    names = levels[0]["label_name"].unique(maintain_order=True).to_list()
    n = len(names)
    side = min(PAGE_WIDTH / 2, 1.2 + n * settings.font_size / 72 * 1.9)
    with style(settings):
        figure = Figure(figsize=(0.6 + side * len(levels), side + 0.3), layout="constrained")
        panels = figure.subplots(1, len(levels), squeeze=False)[0]
        for axes, rows in zip(panels, levels, strict=True):
            names = rows["label_name"].unique(maintain_order=True).to_list()
            shares = rows["share"].to_numpy().reshape(n, n).astype(float)
            image = axes.imshow(np.ma.masked_invalid(shares), cmap="Greys", vmin=0, vmax=1)
            if n <= _WITH_NUMBERS:
                for (row, column), share in np.ndenumerate(shares):
                    if share >= 0.005:
                        colour = "white" if share > 0.5 else "black"
                        size = settings.font_size * 0.75
                        axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, size=size)
            size = min(settings.font_size * 0.9, 72 * side / n * 0.6)
            labels = [plain(name) for name in names]
            axes.set_xticks(range(n), labels, rotation=90, size=size)
            axes.set_yticks(range(n), labels, size=size)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel("Predicted")
            axes.set_ylabel("Label")
            which = f"\nThe {n} classes mistaken most often" if n == MOST_CLASSES else ""
            axes.set_title(f"Share of each label's {_UNITS[rows['level'][0]]} (%){which}", loc="left")
        bar = figure.colorbar(image, ax=panels, shrink=0.6, ticks=[0, 0.5, 1], format=lambda x, _: f"{100 * x:.0f}")
        bar.outline.set_visible(False)
    return figure
