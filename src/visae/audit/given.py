"""Proposals that come from elsewhere: names, a user's own list, and the causes that an atlas found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from visae.audit.meanings import PATCH_CLASS, PICTURE_CLASS, Vocabulary
from visae.audit.proposals import SOURCES, Proposal
from visae.config.tasks import TASKS
from visae.discovery.effects import read_atlas, read_effects
from visae.errors import DataError
from visae.features.names import read_names, read_table_of_latents

NAMES, USER, ATLAS = "names", "user", "atlas"
"""Sources: a CSV file of names, a CSV file of proposals, and, followed by the name of a task, an atlas of causes."""


def from_names(path: Path, width: int, vocabulary: Vocabulary) -> list[Proposal]:
    """Take names that people gave to latents for proposals; those that name no class or cause cannot be tested.

    Raises
    ------
    DataError
        As `visae.features.names.read_names`.
    """
    rows = read_names(path, width).select("latent", "name").iter_rows()
    return [Proposal(NAMES, latent, name, vocabulary.find(name)) for latent, name in rows]


def from_user(path: Path, width: int, vocabulary: Vocabulary) -> list[Proposal]:
    """Read a user's proposals, for instance those of a language model.

    Parameters
    ----------
    path
        CSV file with the columns latent, meaning and, where several sources stand in it, source.
    width
        Latents of the SAE.
    vocabulary
        What can be tested.

    Raises
    ------
    DataError
        If a column is missing, a line is wrong, stands twice, or calls its source as one of those that are made here.
    """
    table = read_table_of_latents(path, "meaning", width)
    if "source" not in table.columns:
        table = table.with_columns(source=pl.lit(USER))
    table = table.with_columns(pl.col("source").str.strip_chars().replace("", USER).fill_null(USER))
    seen: dict[tuple[str, int, str], int] = {}
    found = []
    for line, (latent, meaning, source) in enumerate(table.select("latent", "meaning", "source").iter_rows(), start=2):
        at = f"{path}: line {line}"
        if source in (*SOURCES, NAMES) or source.startswith(ATLAS):
            raise DataError(f"{at}: source {source!r} is one of visae's own; choose another name")
        if first := seen.get((source, latent, meaning.casefold())):
            raise DataError(f"{at}: latent {latent}: {meaning!r} stands in line {first} already; keep one")
        seen[source, latent, meaning.casefold()] = line
        found.append(Proposal(source, latent, meaning, vocabulary.find(meaning)))
    return found


def from_atlas(
    effects: Path, made_from: Sequence[str], width: int, vocabulary: Vocabulary, aspects: Collection[str]
) -> list[Proposal]:
    """Propose for each latent the class that it supports most, of the first pairs by estimate.

    The estimate is of split train alone. What edits on other pictures said of the pair goes along: `replicates`.

    Parameters
    ----------
    effects
        effects.parquet of a task; atlas.json lies beside it.
    made_from
        Manifest of the codes that the atlas has to be of.
    width
        Latents of the SAE.
    vocabulary, aspects
        What can be tested, and names of the aspects that there are.

    Raises
    ------
    DataError
        If its files cannot be read, or are of another SAE.
    """
    task = str(read_atlas(effects.with_name("atlas.json"), made_from)["task"])
    table = read_effects(effects).filter(pl.col("rank_estimate").is_not_null(), pl.col("estimate") < 0)
    if len(outside := table.filter(pl.col("latent") >= width)):
        raise DataError(f"{effects}: latent {outside['latent'][0]}: this SAE has latents 0 to {width - 1}")
    wanted = PATCH_CLASS if TASKS[task].unit == "patch" else PICTURE_CLASS
    # Without an aspect of the task's own units, words alone decide.
    aspect = wanted if wanted in aspects else None
    first = table.sort("rank_estimate").unique("latent", keep="first", maintain_order=True)
    return [
        Proposal(
            f"{ATLAS}_{task}",
            row["latent"],
            row["class_name"],
            vocabulary.find(row["class_name"], aspect),
            -row["estimate"],
            # Edited and not verified is an answer too.
            None if row["effect"] is None else bool(row["replicates"]),
        )
        for row in first.iter_rows(named=True)
    ]
