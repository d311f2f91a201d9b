"""What latents are called: by people in a CSV file, and by the classes that they find."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from visae.errors import DataError
from visae.files import atomic_path, read_json

NAMES_SCHEMA = {"latent": pl.Int32, "name": pl.String, "note": pl.String}
_CLASS_SCHEMA = {"latent": pl.Int32, "class_name": pl.String} | dict.fromkeys(
    ("f1", "f1_low", "f1_high", "f1_random"), pl.Float64
)


def read_names(path: str | Path, width: int | None = None) -> pl.DataFrame:
    """Read the names that people gave to latents.

    Parameters
    ----------
    path
        CSV file with the columns latent, name and, where there is one, note; others are left aside.
    width
        Latents of the SAE; without it, numbers have no upper limit.

    Returns
    -------
    DataFrame
        latent, name, note (null without one), sorted by latent.

    Raises
    ------
    DataError
        If there is no such file or column, or a latent has no name, two, or does not exist; the line is named.
    """
    table = read_table_of_latents(path, "name", width)
    seen: dict[int, int] = {}
    for line, latent in enumerate(table["latent"].to_list(), start=2):
        if latent in seen:
            raise DataError(f"{path}: line {line}: latent {latent} has a name in line {seen[latent]} already; keep one")
        seen[latent] = line
    note = pl.col("note") if "note" in table.columns else pl.lit(None, pl.String).alias("note")
    return table.select("latent", "name", note).sort("latent")


def read_table_of_latents(path: str | Path, word: str, width: int | None = None) -> pl.DataFrame:
    """Read a CSV file that says something of latents, in the order of its lines.

    Parameters
    ----------
    path
        CSV file with the columns latent and `word`.
    word
        Column of what is said: name, meaning.
    width
        Latents of the SAE; without it, numbers have no upper limit.

    Returns
    -------
    DataFrame
        latent (int32), `word`, and whatever other columns there are, as text.

    Raises
    ------
    DataError
        If there is no such file or column, or a line has no word or no latent that exists; the line is named.
    """
    if not Path(path).is_file():
        raise DataError(
            f"{path}: no such file; write a CSV file with the columns latent, {word} and, if you like, note"
        )
    try:
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not a CSV file: {str(error).splitlines()[0]}") from error
    missing = [column for column in ("latent", word) if column not in table.columns]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; it has {', '.join(table.columns)}")
    for line, (text, said) in enumerate(table.select("latent", word).iter_rows(), start=2):
        at = f"{path}: line {line}"
        if text is None or not (text.strip().isdecimal() and text.isascii()):
            raise DataError(f"{at}: latent {text!r}: write the latent's number")
        if width is not None and int(text) >= width:
            raise DataError(f"{at}: latent {int(text)}: this SAE has latents 0 to {width - 1}")
        if not (said or "").strip():
            raise DataError(f"{at}: latent {int(text)} has no {word}; write one or leave the line out")
    return table.with_columns(pl.col("latent").str.strip_chars().cast(pl.Int32), pl.col(word).str.strip_chars())


def write_names(path: Path, sae_config: Path, output: Path) -> None:
    """Check the names that people gave to an SAE's latents, and lay them beside the SAE.

    Parameters
    ----------
    path
        As for `read_names`.
    sae_config
        config.json of the SAE.
    output
        CSV file to write: latent, name, note.
    """
    names = read_names(path, read_json(sae_config)["width"])
    with atomic_path(output) as temporary:
        names.write_csv(temporary)


def best_classes(scores: pl.DataFrame | None) -> pl.DataFrame:
    """Return the class that each latent finds best on held-out pictures: latent, class_name, f1 and what is beside it.

    Parameters
    ----------
    scores
        scores.parquet; without it, the table is empty.

    Returns
    -------
    DataFrame
        latent, class_name, f1, f1_low, f1_high, f1_random, the best f1 first; a latent that was chosen for several
        classes stands once.
    """
    if scores is None:
        return pl.DataFrame(schema=_CLASS_SCHEMA)
    known = [name for name in _CLASS_SCHEMA if name in scores.columns]
    return (
        scores.filter(pl.col("latent").is_not_null() & pl.col("f1").is_not_null())
        .sort("f1", "class_id", "rank", descending=[True, False, False])
        .unique("latent", keep="first", maintain_order=True)
        .select(
            pl.col(name).cast(kind) if name in known else pl.lit(None, kind).alias(name)
            for name, kind in _CLASS_SCHEMA.items()
        )
    )


def described(stats: pl.DataFrame, scores: pl.DataFrame | None, names: pl.DataFrame | None) -> pl.DataFrame:
    """Return all that is known of each latent in one row.

    Parameters
    ----------
    stats, scores
        stats.parquet and, where the data set has masks, scores.parquet.
    names
        From `read_names`.

    Returns
    -------
    DataFrame
        latent, name, note, then the columns of `best_classes`, then those of stats, and log10_mean; by latent.
    """
    return (
        stats.select("latent")
        .join(pl.DataFrame(schema=NAMES_SCHEMA) if names is None else names, on="latent", how="left")
        .join(best_classes(scores), on="latent", how="left")
        .join(stats, on="latent", how="left")
        .with_columns(pl.col("mean").cast(pl.Float64).log10().alias("log10_mean"))
        .sort("latent")
    )
