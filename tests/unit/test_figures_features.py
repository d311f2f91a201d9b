"""Figures of features show what their tables hold, and are written alike every time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from visae.config.settings import FeatureSettings, FigureSettings
from visae.data.index import SCHEMA
from visae.features.exemplars import find_exemplars
from visae.features.names import read_names
from visae.features.statistics import latent_statistics
from visae.figures import class_latents, exemplars, feature_map, gallery, pictures, score_nulls, training
from visae.figures.of_tables import draw_tables
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
    f1 = pl.col("f1")
    pl.DataFrame(rows, schema=types, orient="row").with_columns(
        (f1 - 0.1).alias("f1_low"),
        (f1 + 0.05).alias("f1_high"),
        (f1 / 4).alias("f1_random"),
        pl.lit(30).alias("n_patches"),
    ).write_parquet(tmp_path / "scores.parquet")
    (tmp_path / "names.csv").write_text("latent,name\n3,$and\n1,tarmac\n")
    paths = [str(tmp_path / f"{number}.png") for number in range(6)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    index = {"image_id": range(6), "path": paths} | {
        name: [None] * 6 for name in SCHEMA if name not in ("image_id", "path")
    }
    pl.DataFrame(index, schema=SCHEMA).write_parquet(tmp_path / "index.parquet")
    card = dict.fromkeys(("architecture", "weights", "weights_origin", "weights_sha256"), "x")
    card |= dict.fromkeys(("d_final", "n_classes", "n_prefix"), 1)
    card |= {"family": "blocks", "layers": [{"d_model": 1, "grid": GRID}], "precision": "float32"}
    card |= {"image_size": [32, 32], "fit": "crop", "has_class_token": True}
    card |= {"crop_share": 1.0, "activation_function": "gelu", "timm_notes": [], "notices": []}
    card |= dict.fromkeys(("tag", "hub_id", "license"))
    write_json(tmp_path / "model.json", card | {"mean": [0] * 3, "std": [1] * 3, "interpolation": "bicubic"})
    return tmp_path


def check_files(stem: Path, table: pl.DataFrame) -> None:
    assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in stem.with_suffix(".pdf").read_bytes()
    with Image.open(stem.with_suffix(".png")) as picture:
        assert np.asarray(picture.convert("L")).std() > 1
    assert pl.read_csv(stem.with_suffix(".csv"), schema=table.schema).equals(table)


def sheet_files(folder: Path) -> exemplars.SheetFiles:
    found = {name: folder / f"{name}.parquet" for name in ("exemplars", "stats")}
    return exemplars.SheetFiles(**found, index_path=folder / "index.parquet", card_path=folder / "model.json")


def draw_sheet(folder: Path, stem: Path, scores: bool = True) -> pl.DataFrame:
    files = replace(sheet_files(folder), scores=folder / "scores.parquet" if scores else None)
    exemplars.draw_exemplars(files, stem, settings=SETTINGS)
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
    frequency = pl.Series([-0.6, -2.0, -2.0, -0.6, None])
    stats = pl.read_parquet(folder / "stats.parquet").with_columns(log10_frequency=frequency)
    found = pl.read_parquet(folder / "exemplars.parquet")
    settings = FigureSettings(latents=5)
    strength = {n: found.filter(latent=n, kind="top")["value"].mean() for n in (1, 2)}
    expected = sorted(strength, key=lambda n: -strength[n])
    assert exemplars.chosen_latents(found, stats, None, settings) == expected
    weaker = stats.filter(pl.col("latent").is_in([1, 2])).sort("mean")["latent"][0]
    limits = [-9.0, float(np.log10(stats.filter(latent=weaker)["mean"].item()) + 1e-6)]
    narrow = FigureSettings(latents=5, log10_mean=limits)
    assert exemplars.chosen_latents(found, stats, None, narrow) == [weaker]


def test_only_lit_patches_keep_colour() -> None:
    picture = np.full((8, 8, 3), (0, 0, 200), np.uint8)
    activation = np.zeros((2, 2))
    activation[0, 1] = 1
    shown = pictures.lit(picture, activation).astype(int)
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


def test_named_latents_are_marked_on_the_map_before_classes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [pl.read_parquet(folder / f"{name}.parquet") for name in ("stats", "scores")]
    table = feature_map.data(*tables, read_names(folder / "names.csv"))
    monkeypatch.setattr(feature_map, "MOST_LABELS", 2)
    labels = {text.get_text() for text in feature_map.draw(table, SETTINGS).axes[0].texts}
    assert labels == {r"“\$and”", "“tarmac”, road 0.80"}


def test_names_on_the_map_stand_near_their_latents_and_apart() -> None:
    apart = [0.9, 0.5, 0.2]
    assert feature_map._apart(np.array(apart)).tolist() == apart
    for heights in (np.full(feature_map.MOST_LABELS, 0.5), np.linspace(0.1, -0.1, 9), np.full(3, 1.0)):
        places = feature_map._apart(heights)
        assert (-np.diff(places) > 0.062).all()
        assert places.min() > 0.029
        assert places.max() < 0.971
    assert feature_map._apart(np.zeros(0)).size == 0


def test_the_sheet_of_the_whole_range_shows_each_bin(folder: Path) -> None:
    files = replace(sheet_files(folder), scores=folder / "scores.parquet", names=folder / "names.csv")
    exemplars.draw_exemplars(files, folder / "range", settings=SETTINGS, whole_range=True)
    table = pl.read_csv(folder / "range.csv")
    assert table["name"].unique().sort().to_list() == [None, "tarmac"]
    # 6 pictures: 2 of the strongest and 2 random ones, and bins of 2, 1, 2 and 1.
    counts = table.unique(["row", "kind", "bin", "rank"]).group_by("row", "kind", "bin").len()
    for row in (0, 1):
        found = {(kind, number): n for _, kind, number, n in counts.filter(row=row).iter_rows()}
        assert found[("top", None)] == found[("random", None)] == 2
        assert sum(n for (kind, _), n in found.items() if kind == "bin") == 6
        assert {number for kind, number in found if kind == "bin"} == {0, 1, 2, 3}
    order = table.filter(row=0).unique(["kind", "bin"], maintain_order=True)["bin"].to_list()
    assert order == [None, 3, 2, 1, 0, None]


def test_groups_that_do_not_fit_begin_a_line() -> None:
    def group(heading: str, n: int) -> gallery._Group:
        return gallery._Group(heading, [pl.DataFrame({"place": [place]}) for place in range(n)])

    groups = [group("a", 2), group("b", 2), group("c", 9), group("d", 1)]
    lines = gallery._lines(groups, 4)
    assert [[(part.heading, len(part.cells)) for part in line] for line in lines] == [
        [("a", 2), ("b", 2)],
        [("c", 4)],
        [("", 4)],
        [("", 1), ("d", 1)],
    ]


def test_crops_stay_within_the_picture_and_show_the_finest_pixels() -> None:
    assert pictures.crop_box(0, (4, 5)) == (0, 0, 3, 3)
    assert pictures.crop_box(19, (4, 5)) == (1, 2, 4, 5)
    assert pictures.crop_box(7, (4, 5)) == (0, 1, 3, 4)
    assert pictures.crop_box(1, (2, 2)) == (0, 0, 2, 2)
    fine = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50, 1).astype(np.uint8).repeat(3, axis=2)
    shown = pictures.Shown(fine[::2, ::2], fine)
    np.testing.assert_array_equal(pictures.peak_crop(shown, 7, (4, 5)), fine[0:30, 10:40])


def test_a_regions_outline_goes_around_it() -> None:
    region = np.zeros((3, 4), bool)
    region[1, 1:3] = True
    axes = Figure().add_subplot()
    pictures.draw_region(axes, region)
    segments = {tuple(map(tuple, segment.astype(int).tolist())) for segment in axes.collections[0].get_segments()}
    sides = {((1, 1), (1, 2)), ((3, 1), (3, 2))}
    above_and_below = {((x, y), (x + 1, y)) for x in (1, 2) for y in (1, 2)}
    assert segments == sides | above_and_below


def test_classes_stand_in_order_beside_chance(folder: Path) -> None:
    class_latents.draw_class_latents(folder / "scores.parquet", folder / "c", SETTINGS, folder / "names.csv")
    table = class_latents.data(pl.read_parquet(folder / "scores.parquet"), read_names(folder / "names.csv"))
    check_files(folder / "c", table)
    assert table.select("class_name", "rank", "latent", "name").rows() == [
        ("road", 0, 1, "tarmac"),
        ("road", 1, 2, None),
        ("$ky", 0, 0, None),
    ]
    axes = class_latents.draw(table, SETTINGS).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["road  1 “tarmac”", r"\$ky  0"]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[0.7, 0]])
    np.testing.assert_allclose(axes.collections[1].get_offsets(), [[0.2, 0], [0.1, -1]])
    bars = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bars, [[[0.7, 0], [0.85, 0]], [[0.3, -1], [0.45, -1]]])


def test_scores_are_drawn_against_their_nulls(folder: Path) -> None:
    draw_tables("score_nulls", folder / "scores.parquet", folder / "nulls", SETTINGS)
    scores = pl.read_parquet(folder / "scores.parquet")
    table = score_nulls.data(scores)
    check_files(folder / "nulls", table)
    assert sorted(table["score"]) == [0.4, 0.7, 0.8]
    axes = score_nulls.draw(table.with_columns(null_value=pl.Series([0.9, 0.1, 0.1])), SETTINGS).axes[0]
    assert axes.get_title(loc="left") == "2 of 3 beat the strictest null"
    dots = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(dots, [[0.9, 0.4], [0.1, 0.8], [0.1, 0.7]])
    # Other metrics and nulls are drawn where scores have them.
    more = scores.with_columns(auc=pl.col("f1"), auc_null_best=0.6, f1_null_best=pl.col("f1") + 0.1)
    figure = score_nulls.draw(score_nulls.data(more), SETTINGS)
    assert [len(axes.collections) for axes in figure.axes] == [2, 1]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"{n} of 3 beat the strictest null" for n in (0, 2)]
    assert score_nulls.data(scores.drop("f1_random")).is_empty()


@pytest.mark.parametrize("first", ["f1", "auc"])
def test_a_null_has_the_colour_that_the_legend_gives_it_in_every_panel(folder: Path, first: str) -> None:
    other = {"f1": "auc", "auc": "f1"}[first]
    scores = pl.read_parquet(folder / "scores.parquet").rename({"f1_random": f"{first}_random"})
    more = {f"{metric}{ending}": pl.lit(0.5) for metric in (first, other) for ending in ("", "_null", "_null_best")}
    figure = score_nulls.draw(score_nulls.data(scores.with_columns(**more)), SETTINGS)
    legend = figure.legends[0]
    named = [
        (text.get_text(), to_rgba(handle.get_facecolor()[0]))
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    ]
    assert [text for text, _ in named] == list(score_nulls.NULLS.values())
    assert len({colour for _, colour in named}) == 3
    drawn = [
        {(kind.get_label(), to_rgba(kind.get_facecolor()[0])) for kind in axes.collections} for axes in figure.axes
    ]
    assert sorted(map(len, drawn)) == [2, 3]
    assert all(dots <= set(named) for dots in drawn)


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
    draw_tables("training", paths, [folder / f"curves.{kind}" for kind in ("png", "csv", "pdf")], SETTINGS)
    table = training.data({name: pl.read_parquet(path) for name, path in paths.items()})
    check_files(folder / "curves", table)
    lines = training.draw(table, SETTINGS).axes[0].lines
    drawn = {(line.get_linestyle(), line.get_color()): list(line.get_ydata()) for line in lines}
    assert sorted(drawn.values()) == [[0.35], [0.5, 0.3], [0.7], [1.0, 0.6]]
    assert {style for (style, _), values in drawn.items() if len(values) == 2} == {"--"}
