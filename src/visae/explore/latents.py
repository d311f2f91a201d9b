"""One SAE's latents on one data set: tables, exemplars and pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.kinds import TokenKinds
from visae.config.settings import FigureSettings
from visae.data.index import read_index
from visae.errors import DataError
from visae.explore.files import FeatureFiles
from visae.features.exemplars import KINDS
from visae.features.names import described, read_names
from visae.figures import gallery
from visae.figures.pictures import Shown, load_indexed, peak_crop
from visae.vision.card import ModelCard


class Latents:
    """What is known of one SAE's latents on one data set; `Features` asks and edits beside.

    Parameters
    ----------
    files
        Where everything lies; `load` finds it.
    names
        CSV file of names; without it, those that the configuration gave, if any.
    """

    def __init__(self, files: FeatureFiles, names: str | Path | None = None) -> None:
        self.files = files
        given = files.names if names is None and files.names.is_file() else names
        stats = pl.read_parquet(files.statistics)
        scores = pl.read_parquet(files.scores) if files.scores.is_file() else None
        named = None if given is None else read_names(given, stats.height)
        self.scores = scores
        self.table = described(stats, scores, named)
        """One row a latent: latent, name, note, class_name, f1 and its interval and null, then the statistics."""

    @classmethod
    def load(cls, path: str | Path, names: str | Path | None = None) -> Self:
        """Find the features by their folder, or any file in it, such as codes/manifest.json.

        Raises
        ------
        DataError
            If there are none.
        """
        return cls(FeatureFiles.find(path), names)

    @cached_property
    def card(self) -> ModelCard:
        """Card of the model, which says how it sees pictures."""
        if not self.files.card.is_file():
            raise DataError(
                f"{self.files.card}: no such file: these latents are of given activations, and no pictures are known; "
                "table and exemplars() can be had without"
            )
        return ModelCard.read(self.files.card)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.card.layers[int(self.files.point.partition("-")[0])].grid

    @property
    def tokens(self) -> TokenKinds:
        """Kind of tokens that the latents are of."""
        return self.table["tokens"][0] if "tokens" in self.table.columns else "patches"

    def select(
        self,
        latents: Sequence[int] | None = None,
        *,
        log10_frequency: Sequence[float] | None = None,
        log10_mean: Sequence[float] | None = None,
        by: str = "max",
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Return rows of `table`.

        Parameters
        ----------
        latents
            These alone, in this order.
        log10_frequency, log10_mean
            Lowest and highest logarithm of a latent's frequency, and of the mean of its active values.
        by
            Column to sort by, the largest first; without effect where latents are given.
        limit
            As many rows at most.

        Raises
        ------
        DataError
            If a latent or column does not exist, or a range is none.
        """
        if latents is not None:
            chosen = pl.DataFrame({"latent": pl.Series(self.known(latents), dtype=pl.Int32)})
            found = chosen.join(self.table, on="latent", how="left", maintain_order="left")
        elif by not in self.table.columns:
            raise DataError(f"by: no column {by!r}; there are {', '.join(self.table.columns)}")
        else:
            found = self.table.sort(by, "latent", descending=[True, False], nulls_last=True)
        for column, limits in (("log10_frequency", log10_frequency), ("log10_mean", log10_mean)):
            if limits is not None:
                found = found.filter(pl.col(column).is_between(*_range(column, limits)))
        return found if limit is None else found.head(limit)

    def exemplars(self, latents: int | Sequence[int] | None = None, kind: str | None = None) -> pl.DataFrame:
        """Return rows of exemplars.parquet with the path of each picture.

        Parameters
        ----------
        latents
            One or several; without, all.
        kind
            `top`, `bin` or `random`; without, all.
        """
        rows = pl.scan_parquet(self.files.exemplars)
        if latents is not None:
            rows = rows.filter(pl.col("latent").is_in(self.known(latents)))
        if kind is not None:
            if kind not in KINDS:
                raise DataError(f"kind: {kind!r} is none of {', '.join(KINDS)}")
            rows = rows.filter(pl.col("kind") == kind)
        paths = read_index(self.files.index).lazy().select("image_id", "path")
        return rows.join(paths, on="image_id", how="left", maintain_order="left").collect()

    def show(
        self,
        latents: int | Sequence[int],
        *,
        kinds: Sequence[str] = KINDS,
        columns: int = 8,
        views: Sequence[gallery.View] = ("picture", "overlay", "crop"),
        settings: FigureSettings | None = None,
    ) -> gallery.GalleryFigure:
        """Draw the exemplars of one latent or several; a notebook shows what this returns.

        Parameters
        ----------
        latents
            Which.
        kinds
            Of `top`, `bin` and `random`.
        columns
            Pictures side by side.
        views
            What is drawn of each picture: `picture` as the model saw it, `overlay` lit where the latent is active,
            `crop` the surroundings of its peak.
        settings
            Section `figures` of the configuration.
        """
        return self.draw(self.gallery_table(latents, kinds=kinds, per_group=columns), columns, views, settings)

    def gallery_table(
        self, latents: int | Sequence[int], *, kinds: Sequence[str] = KINDS, per_group: int | None = None
    ) -> pl.DataFrame:
        """Return what `show` draws: one row a lit patch; as `visae.figures.gallery.data`."""
        chosen = self.known(latents)
        found = self.exemplars(chosen).filter(pl.col("kind").is_in(list(kinds)))
        if per_group is not None:
            found = found.filter(pl.col("rank") < per_group)
        silent = sorted(set(chosen) - set(found["latent"]))
        if silent:
            raise DataError(f"latent {silent[0]} has no exemplars of kind {', '.join(kinds)}; it may be dead")
        return gallery.data(found.drop("path"), chosen, self.table)

    def draw(
        self,
        table: pl.DataFrame,
        columns: int = 8,
        views: Sequence[gallery.View] = ("overlay",),
        settings: FigureSettings | None = None,
    ) -> gallery.GalleryFigure:
        """Draw what `gallery_table` returned."""
        pictures = self.pictures(table["image_id"], fine="crop" in views)
        return gallery.draw(table, settings or FigureSettings(), pictures, self.grid, columns=columns, views=views)

    def pictures(self, image_ids: pl.Series, *, fine: bool = False) -> dict[int, Shown]:
        """Read pictures as the model saw them."""
        return load_indexed(image_ids, self.files.index, self.card, fine=fine)

    def crops(self, latent: int, limit: int | None = None) -> list[NDArray[np.uint8]]:
        """Return the surroundings of a latent's strongest patches, uint8 (height, width, 3) each.

        Of a class token's latents they are whole pictures.
        """
        rows = self.exemplars(latent, "top").filter(pl.col("rank") < (limit or pl.len()))
        pictures = self.pictures(rows["image_id"], fine=True)
        return [
            peak_crop(pictures[number], token, self.grid)
            for number, token in rows.select("image_id", "token").iter_rows()
        ]

    def known(self, latents: int | Sequence[int]) -> list[int]:
        """Return latents as a list, those of NumPy and polars as whole numbers too."""
        listed = [int(latent) for latent in np.atleast_1d(latents)]
        unknown = [latent for latent in listed if not 0 <= latent < self.table.height]
        if unknown:
            raise DataError(f"latent {unknown[0]}: this SAE has latents 0 to {self.table.height - 1}")
        return listed


def _range(name: str, limits: Sequence[float]) -> tuple[float, float]:
    if len(limits) != 2 or limits[0] > limits[1]:
        raise DataError(f"{name}: {list(limits)}: write two numbers, the lowest and the highest")
    return limits[0], limits[1]
