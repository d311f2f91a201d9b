"""Which latents stand for a region, with their exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from visae.config.settings import FigureSettings
from visae.errors import DataError
from visae.explore.latents import Latents
from visae.explore.pictures import NEW_PICTURE, Picture, asked_picture
from visae.explore.regions import of_class, of_mask, of_patches
from visae.features.codes import scan_codes
from visae.features.regions import rank_latents
from visae.figures import gallery
from visae.figures.pictures import load_pictures

# The asked picture may be an exemplar too, and is outlined only where it is asked about.
_ASKED = -2


@dataclass(frozen=True)
class Query:
    """The answer to a question about a region.

    Attributes
    ----------
    features
        What was asked.
    table
        latent, difference, mean_inside, mean_outside, sum_inside, sum_outside as `rank_latents` gives them, then name,
        class_name, f1 and frequency of each latent; the best first.
    picture
        The picture that was asked about; None for a class of the whole data set.
    inside
        Its patches inside, bool (rows, columns).
    """

    features: Latents
    table: pl.DataFrame
    picture: Picture | None
    inside: NDArray[np.bool_] | None

    @classmethod
    def of(
        cls,
        features: Latents,
        *,
        image: str | int | Path | None,
        patches: Sequence[int] | None,
        mask: str | Path | None,
        class_name: str | None,
        min_purity: float,
        device: str,
    ) -> Query:
        """Ask; the parameters are those of `Features.query`."""
        if sum(part is not None for part in (patches, mask, class_name)) != 1:
            raise DataError("query: give one of patches, mask and class")
        if features.tokens == "class":
            raise DataError(
                f"query: {features.files.folder}: latents of class tokens, which lie in no region; "
                "image_scores.parquet has the best ones of each class of pictures"
            )
        picture = None if image is None else asked_picture(features.files, image, device)
        inside = None
        if class_name is not None:
            if picture is not None and picture.image_id == NEW_PICTURE:
                raise DataError(f"class: {picture.path} is not in the data set, so no class is known in it")
            region = of_class(features.files, class_name, min_purity, None if picture is None else picture.image_id)
            if picture is not None:
                inside = np.isin(np.arange(np.prod(features.grid)), region.filter("inside")["token"])
                inside = inside.reshape(features.grid)
        elif picture is None:
            raise DataError("query: patches and masks are of a picture; name it by image")
        else:
            inside = (
                of_mask(str(mask), picture.path, features.card, features.grid)
                if patches is None
                else of_patches(patches, features.grid)
            )
            region = _region(picture.image_id, inside)
        codes = scan_codes(features.files.codes) if picture is None else picture.codes.lazy()
        known = features.table.select("latent", "name", "class_name", "f1", "frequency")
        ranked = rank_latents(codes, region).join(known, on="latent", how="left", maintain_order="left")
        return cls(features, ranked, picture, inside)

    def show(
        self, latents: int = 8, *, columns: int = 7, settings: FigureSettings | None = None
    ) -> gallery.GalleryFigure:
        """Draw the best latents: the asked picture with its region, then the pictures in which each is strongest."""
        return self.draw(self.gallery_table(latents, columns), columns, settings)

    def gallery_table(self, latents: int = 8, columns: int = 7) -> pl.DataFrame:
        """Return what `show` draws: one row a lit patch."""
        best = self.table["latent"].head(latents).to_list()
        asked = self._asked(best)
        shown = self.features.exemplars(best, "top").drop("path").filter(pl.col("rank") < columns - (asked.height > 0))
        if asked.height:
            shown = pl.concat([asked.select(shown.columns).cast(shown.schema), shown])
        return gallery.data(shown, best, self.features.table)

    def draw(
        self, table: pl.DataFrame, columns: int = 7, settings: FigureSettings | None = None
    ) -> gallery.GalleryFigure:
        """Draw what `gallery_table` returned."""
        pictures = self.features.pictures(table["image_id"])
        regions = {}
        if self.picture is not None and self.inside is not None:
            pictures |= load_pictures({_ASKED: self.picture.path}, self.features.card)
            regions[_ASKED] = self.inside
        return gallery.draw(
            table, settings or FigureSettings(), pictures, self.features.grid, columns=columns, regions=regions
        )

    def _asked(self, latents: Sequence[int]) -> pl.DataFrame:
        """Return the asked picture as an exemplar of each latent, standing for its strongest patch inside."""
        if self.picture is None or self.inside is None:
            return pl.DataFrame()
        tokens = np.flatnonzero(self.inside)
        here = self.picture.codes.filter(pl.col("latent").is_in(latents)).sort("latent", "token")
        inside = pl.col("token").is_in(tokens)
        peak = pl.col("value").filter(inside).arg_max()
        return here.group_by("latent").agg(
            pl.lit(gallery.QUERY).alias("kind"),
            pl.lit(None).alias("bin"),
            pl.lit(None).alias("low"),
            pl.lit(None).alias("high"),
            pl.lit(0).alias("rank"),
            pl.lit(_ASKED).alias("image_id"),
            pl.col("token").filter(inside).get(peak).alias("token"),
            pl.col("value").filter(inside).get(peak).alias("value"),
            pl.col("token").alias("tokens"),
            pl.col("value").alias("values"),
        )


def _region(image_id: int, inside: NDArray[np.bool_]) -> pl.DataFrame:
    tokens = pl.Series("token", range(inside.size), dtype=pl.Int16)
    return pl.DataFrame({"token": tokens, "inside": inside.ravel()}).with_columns(
        pl.lit(image_id, pl.Int32).alias("image_id")
    )
