"""Figures of features show what their tables hold, and are written alike every time."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from visae.config.settings import FeatureSettings, FigureSettings
from visae.data.index import SCHEMA
from visae.features.exemplars import find_exemplars
from visae.features.statistics import latent_statistics
from visae.figures import exemplars, feature_map, training
from visae.files import write_json

SETTINGS = FigureSettings(dpi=60, latents=3, exemplars=2)
GRID = (4, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features of 6 pictures with 5 latents: 4 is dead, 0 is best for `$ky`, 1 for `road`."""
    random = np.random.default_rng(0)
    image, token = np.divmod(np.arange(6 * 16), 16)
    latent = np.arange(6 * 16) % 4
    codes = pl.LazyFrame(
        {
            "image_id": image.astype(np.int32),
            "token": token.astype(np.int16),
            "latent": latent.astype(np.int32),
            "value": (1 + random.random(96)).astype(np.float32),
        }
    )
    find_exemplars(codes, FeatureSettings(exemplars=3)).write_parquet(tmp_path / "exemplars.parquet")
    latent_statistics(codes, range(5), 96, {}).write_parquet(tmp_path / "stats.parquet")
    rows = [(1, "$ky", 0, 0, 0.4), (2, "road", 0, 1, 0.8), (2, "road", 1, 2, 0.7), (3, "gone", 0, None, None)]
    types = {"class_id": pl.Int32, "class_name": pl.String, "rank": pl.Int16, "latent": pl.Int32, "f1": pl.Float64}
    pl.DataFrame(rows, schema=types, orient="row").write_parquet(tmp_path / "scores.parquet")
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    index = {"image_id": range(6), "path": paths} | {
        name: [None] * 6 for name in SCHEMA if name[:2] not in ("im", "pa")
    }
    pl.DataFrame(index, schema=SCHEMA).write_parquet(tmp_path / "index.parquet")
    card = dict.fromkeys(("architecture", "weights", "weights_origin", "weights_sha256"), "x")
    card |= dict.fromkeys(("d_final", "n_classes", "n_prefix"), 1)
    card |= {"family": "blocks", "layers": [{"d_model": 1, "grid": GRID}], "precision": "float32"}
    card |= {"image_size": [32, 32], "fit": "crop", "has_class_token": True}
    write_json(tmp_path / "model.json", card | {"mean": [0] * 3, "std": [1] * 3, "interpolation": "bicubic"})
    return tmp_path


def check_files(stem: Path, table: pl.DataFrame) -> None:
    assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in stem.with_suffix(".pdf").read_bytes()
    with Image.open(stem.with_suffix(".png")) as picture:
        assert np.asarray(picture.convert("L")).std() > 1
    assert pl.read_csv(stem.with_suffix(".csv"), schema=table.schema).equals(table)


def draw_sheet(folder: Path, stem: Path, scores: bool = True) -> pl.DataFrame:
    features = [folder / f"{name}.parquet" for name in ("exemplars", "stats", "index")]
    found = folder / "scores.parquet" if scores else None
    exemplars.draw_exemplars(*features, folder / "model.json", stem, settings=SETTINGS, scores=found)
    read = [pl.read_parquet(folder / f"{name}.parquet") for name in ("exemplars", "stats", "scores")]
    return exemplars.data(read[0], read[1], read[2] if scores else None, SETTINGS)


def test_sheet_shows_best_latents_and_is_reproducible(folder: Path) -> None:
    table = draw_sheet(folder, folder / "one")
    check_files(folder / "one", table)
    # Latents 2 and 3 are dense: too frequent to fill the third row.
    assert table.unique("row", maintain_order=True).select("latent", "class_name", "f1").rows() == [
        (1, "road", 0.8),
        (0, "$ky", 0.4),
    ]
    assert table.group_by("row", "rank").agg(pl.col("peak").sum())["peak"].to_list() == [1] * 4
    peaks = table.filter("peak").join(table.group_by("row", "rank").agg(pl.col("value").max()), on=["row", "rank"])
    assert peaks["value"].equals(peaks["value_right"], check_names=False)
    draw_sheet(folder, folder / "two")
    for kind in (".pdf", ".png", ".csv"):
        assert (folder / "one").with_suffix(kind).read_bytes() == (folder / "two").with_suffix(kind).read_bytes()


def test_moderate_latents_fill_the_sheet_without_scores(folder: Path) -> None:
    stats = pl.read_parquet(folder / "stats.parquet").with_columns(frequency=pl.Series([0.25, 0.01, 0.01, 0.25, 0.0]))
    found = pl.read_parquet(folder / "exemplars.parquet")
    strength = {n: found.filter(latent=n, kind="top")["value"].mean() for n in (1, 2)}
    assert exemplars.chosen_latents(found, stats, None, 5) == sorted(strength, key=lambda n: -strength[n])


def test_only_lit_patches_keep_colour() -> None:
    picture = np.full((8, 8, 3), (0, 0, 200), np.uint8)
    activation = np.zeros((2, 2))
    activation[0, 1] = 1
    shown = exemplars.lit(picture, activation).astype(int)
    silent = np.ones((8, 8), bool)
    silent[:4, 4:] = False
    assert (np.ptp(shown[silent], axis=1) == 0).all()
    assert (np.ptp(shown[~silent], axis=1) > 0).all()
    assert shown[silent].min() > shown[~silent].mean()  # what is silent fades towards white paper


def test_feature_map_counts_dead_and_names_best(folder: Path) -> None:
    feature_map.draw_feature_map(folder / "stats.parquet", folder / "map", SETTINGS, folder / "scores.parquet")
    table = feature_map.data(pl.read_parquet(folder / "stats.parquet"), pl.read_parquet(folder / "scores.parquet"))
    check_files(folder / "map", table)
    assert table["class_name"].to_list() == ["$ky", "road", None, None, None]
    assert table["log10_mean"].null_count() == 1
    axes = feature_map.draw(table, SETTINGS).axes[0]
    assert "5 latents, 1 never active" in axes.get_title(loc="left")
    assert [text.get_text() for text in axes.texts if "road" in text.get_text()] == ["road 0.80"]
    assert len(axes.collections[0].get_offsets()) == 4
    assert len(axes.collections[1].get_offsets()) == 2


def test_training_curves_are_the_table(folder: Path) -> None:
    paths = {}
    for name, factor in (("topk", 1.0), ("relu", 2.0)):
        paths[name] = folder / f"{name}.parquet"
        pl.DataFrame(
            {
                "step": [10, 20, 20],
                "split": ["train", "train", "val"],
                "normalized_mse": [0.5 * factor, 0.3 * factor, 0.35 * factor],
                "l0": [32.0, 32.0, 31.0],
                "dead_share": [0.1, None, 0.2],
            }
        ).write_parquet(paths[name])
    training.draw_training(paths, [folder / f"curves.{kind}" for kind in ("png", "csv", "pdf")], SETTINGS)
    table = training.data({name: pl.read_parquet(path) for name, path in paths.items()})
    check_files(folder / "curves", table)
    lines = training.draw(table, SETTINGS).axes[0].lines
    drawn = {(line.get_linestyle(), line.get_color()): list(line.get_ydata()) for line in lines}
    assert sorted(drawn.values()) == [[0.35], [0.5, 0.3], [0.7], [1.0, 0.6]]
    assert {style for (style, _), values in drawn.items() if len(values) == 2} == {"--"}
