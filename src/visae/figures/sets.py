"""Sets of latents: what they reach of what the direction does that a class is read from, by size and class."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visae.config.settings import FigureSettings
from visae.figures.style import PAGE_WIDTH, colours, plain, style

ARM_WORDS = {
    "set": "set of verified latents",
    "random_latent": "as many random latents",
    "untrained": "sets of untrained dictionaries",
}
"""Arms in words; other SAEs go by their own names."""

MOST_CLASSES = 12
"""Classes that are shown one by one: those whose sets reach most."""

_EDITS = {"suppress": "suppressed", "insert": "inserted"}


def data(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of sets.parquet without the lists of latents."""
    return table.drop("latents")


def draw(table: pl.DataFrame, settings: FigureSettings) -> Figure:
    """Draw the table of `data`: means over classes by size of the set, one panel an edit, and whole sets by class."""
    means = table.filter(pl.col("class_id").is_null())
    edits = list(
        means.select("edit", "scale").unique(maintain_order=True).sort("edit", "scale", descending=True).iter_rows()
    )
    others = [arm for arm in means["arm"].unique().sort() if arm not in ARM_WORDS and arm != "direction"]
    arms = [arm for arm in [*ARM_WORDS, *others] if arm in set(means["arm"])]
    palette = dict(zip(arms, colours(settings) * 9, strict=False))
    classes = table.filter(pl.col("class_id").is_not_null(), pl.col("whole"), arm="set")
    line = settings.font_size / 72
    with style(settings):
        height = 2.2 + 4 * line
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        panels = figure.subplots(1, max(len(edits), 1) + 1, squeeze=False)[0]
        for axes, (edit, scale) in zip(panels, edits, strict=False):
            rows = means.filter(edit=edit, scale=scale)
            _by_size(axes, rows, arms, palette)
            axes.set_title(f"{_EDITS[edit]}, {scale:+g} × largest", loc="left")
        panels[0].set_ylabel("Share of the direction's effect")
        _by_class(panels[-1], classes, edits, settings)
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _by_size(axes: Axes, rows: pl.DataFrame, arms: list[str], palette: dict[str, str]) -> None:
    """Shares with intervals as sets grow."""
    for arm in arms:
        curve = rows.filter(arm=arm).sort("n_latents")
        low, high = (curve[f"share_{end}"].cast(pl.Float64).to_numpy() for end in ("low", "high"))
        sizes = curve["n_latents"].to_numpy()
        axes.plot(sizes, curve["share"], color=palette[arm], marker=".", markersize=4, label=ARM_WORDS.get(arm, arm))
        axes.fill_between(sizes, low, high, color=palette[arm], alpha=0.18)
    for height in (0, 0.5, 1):
        axes.axhline(height, linewidth=0.5, color="#BBBBBB")
    axes.set_xlabel("Latents of the set, at most")


def _by_class(axes: Axes, classes: pl.DataFrame, edits: list[tuple[str, float]], settings: FigureSettings) -> None:
    """Whole sets, one line a class."""
    order = (
        classes.group_by("class_name")
        .agg(pl.col("share").mean())
        .sort("share", "class_name", descending=[True, False], nulls_last=True)
        .head(MOST_CLASSES)["class_name"]
        .to_list()
    )
    for number, (edit, scale) in enumerate(edits):
        rows = classes.filter(pl.col("class_name").is_in(order), pl.col("share").is_not_null(), edit=edit, scale=scale)
        places = [order.index(name) + 0.22 * (number - (len(edits) - 1) / 2) for name in rows["class_name"]]
        share, low, high = (rows[name].to_numpy() for name in ("share", "share_low", "share_high"))
        colour = colours(settings)[(number + 3) % len(colours(settings))]
        axes.hlines(places, low, high, color=colour, linewidth=0.8)
        axes.plot(
            share, places, linestyle="", marker="o", markersize=3, color=colour, label=f"{_EDITS[edit]} {scale:+g}"
        )
    axes.set_yticks(range(len(order)), [plain(name) for name in order])
    axes.set_ylim(max(len(order), 1) - 0.5, -0.5)
    axes.axvline(0.5, linewidth=0.5, color="#BBBBBB")
    axes.set_xlabel("Share of the direction's effect")
    axes.set_title("Whole sets", loc="left")
    if order:
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.2), handletextpad=0.1)
    else:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center")
