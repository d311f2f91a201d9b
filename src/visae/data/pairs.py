"""Read the counterfactual pairs of a data set, and what the causes are in each of its pictures."""

from __future__ import annotations

from pathlib import Path

import polars

from visae.data.index import read_index
from visae.data.paired import Pair, pairs_of
from visae.errors import DataError


def read_pairs(index_path: str | Path) -> list[Pair]:
    """Read the counterfactual pairs of a data set, in the order of their changed pictures.

    Parameters
    ----------
    index_path
        index.parquet.

    Raises
    ------
    DataError
        If it has none, or a pair is not whole: one base picture (without a cause), pictures of other causes in the same
        split and of the same size, at most one of each.
    """
    rows = read_index(index_path)
    found = pairs_of(rows) if "pair" in rows.columns else []
    if not found:
        raise DataError(
            f"{index_path}: it has no counterfactual pairs; make a data set of kind scene_pairs, or give a table the "
            "columns pair and cause"
        )
    return found


def read_cause_values(index_path: str | Path) -> polars.DataFrame:
    """What each cause is in each picture that has a part in pairs: image_id, and one column of text a cause.

    Of made pairs all causes are known. Of others it is known that a picture was changed: its own cause is `changed`
    in it, and `unchanged` in every other picture.
    """
    made = Path(index_path).parent / "pictures" / "causes.parquet"
    pairs = read_pairs(index_path)
    causes = list(dict.fromkeys(pair.cause for pair in pairs))
    if made.is_file():
        return polars.read_parquet(made, columns=["image_id", *causes])
    rows = read_index(index_path).filter(polars.col("pair").is_not_null())
    columns = [
        polars.when(polars.col("cause") == cause)
        .then(polars.lit("changed"))
        .otherwise(polars.lit("unchanged"))
        .alias(cause)
        for cause in causes
    ]
    return rows.select("image_id", *columns)
