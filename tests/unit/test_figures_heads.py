"""Figures of heads and of faithfulness show what their tables hold, and are written alike every time."""

from pathlib import Path

import polars as pl
import pytest

from visae.config.settings import FigureSettings
from visae.figures import calibration, confusion, faithfulness
from visae.figures.of_tables import draw_tables
from visae.files import write_json

SETTINGS = FigureSettings(dpi=60)
PAIRS = ["label_id", "label_name", "predicted_id", "predicted_name", "n"]


@pytest.fixture
def pairs() -> pl.DataFrame:
    """Three classes: nothing is labelled `$one`, `two` is right in 3 of 4, `three` always."""
    rows = [(1, "$one", 1, "$one", 0), (2, "two", 2, "two", 3), (2, "two", 1, "$one", 1), (3, "three", 3, "three", 5)]
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def test_shares_are_of_the_label(pairs: pl.DataFrame) -> None:
    table = confusion.data(pairs)
    assert table["level"].unique().to_list() == ["picture"]
    shares = {(row[1], row[3]): row[6] for row in table.iter_rows()}
    assert len(shares) == 9
    assert [shares[2, column] for column in (1, 2, 3)] == [0.25, 0.75, 0]
    assert [shares[1, column] for column in (1, 2, 3)] == [None] * 3  # no label: unknown, not 0
    image = confusion.draw(table, SETTINGS).axes[0].images[0].get_array()
    assert image[1].tolist() == [0.25, 0.75, 0]
    assert image.mask[0].all()


def test_of_many_classes_those_mistaken_most_are_drawn() -> None:
    n = confusion.MOST_CLASSES + 4
    rows = [(i, f"class {i}", i, f"class {i}", 10) for i in range(n)]
    rows += [(i, f"class {i}", (i + 1) % n, f"class {(i + 1) % n}", 1) for i in range(n) if i not in (2, 5, 7, 11)]
    table = confusion.data(pl.DataFrame(rows, schema=PAIRS, orient="row"))
    assert set(range(n)) - set(table["label_id"]) == {2, 5, 7, 11}
    assert table.filter(label_id=1, predicted_id=1)["share"].item() == pytest.approx(10 / 11)  # 2 counts, undrawn
    assert "mistaken most often" in confusion.draw(table, SETTINGS).axes[0].get_title(loc="left")


def test_patches_and_pixels_stand_side_by_side(pairs: pl.DataFrame) -> None:
    both = pl.concat(pairs.select(pl.lit(level).alias("level"), pl.all()) for level in ("patch", "pixel"))
    titles = [axes.get_title(loc="left") for axes in confusion.draw(confusion.data(both), SETTINGS).axes]
    assert titles[:2] == ["Share of each label's patches (%)", "Share of each label's pixels (%)"]


def test_bins_stand_where_their_confidence_is() -> None:
    reliability = pl.DataFrame(
        {
            "lower": [0.4, 0.9],
            "upper": [0.5, 1.0],
            "n_images": [1, 3],
            "confidence": [0.45, 0.97],
            "accuracy": [0.0, 1.0],
            "accuracy_low": [0.0, 1.0],
            "accuracy_high": [0.0, 1.0],
        }
    )
    table = calibration.data(reliability)
    assert table["share"].to_list() == [0.25, 0.75]
    metrics = {"rms_calibration_error": 0.2, "rms_calibration_error_low": 0.1, "rms_calibration_error_high": 0.3}
    figure = calibration.draw(table, metrics, SETTINGS)
    assert figure.axes[0].get_title(loc="left") == "RMS calibration error 0.200 [0.100, 0.300]"
    unknown = calibration.draw(table, dict.fromkeys(metrics), SETTINGS)
    assert unknown.axes[0].get_title(loc="left") == "RMS calibration error not measurable"
    assert figure.axes[0].lines[1].get_xydata().tolist() == [[0.45, 0], [0.97, 1]]
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0.25, 0.75]


@pytest.fixture
def kept() -> pl.DataFrame:
    values = {"as_is": 0.8, "reconstruction": 0.7, "mean": 0.1, "zero": 0.2}
    values |= {"recovered_from_zero": 0.75, "recovered_from_mean": None}
    rows = [
        {"measure": measure, "quantity": name, "value": value, "low": value, "high": value, "n_images": 9}
        for measure in ("patch_miou", "accuracy")
        for name, value in values.items()
    ]
    return pl.DataFrame(rows)


def test_bars_and_shares_are_those_of_the_table(kept: pl.DataFrame) -> None:
    figure = faithfulness.draw(faithfulness.data(kept), SETTINGS)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Accuracy of the probe", "Mean IoU by patches"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.8, 0.7, 0.1, 0.2]
    said = figure.axes[0].get_xlabel()
    assert said == "Recovered\nfrom zero: 75 % [75, 75]\nfrom mean: no clear loss"


def test_figures_are_written_alike_every_time(tmp_path: Path, pairs: pl.DataFrame, kept: pl.DataFrame) -> None:
    pairs.write_parquet(tmp_path / "confusion.parquet")
    kept.write_parquet(tmp_path / "faithfulness.parquet")
    bin_ = {"lower": 0.0, "upper": 1.0, "n_images": 2, "confidence": 0.6, "accuracy": 0.5}
    pl.DataFrame({**bin_, "accuracy_low": 0.0, "accuracy_high": 1.0}).write_parquet(tmp_path / "reliability.parquet")
    error = dict.fromkeys((f"rms_calibration_error{end}" for end in ("", "_low", "_high")), 0.1)
    write_json(tmp_path / "metrics.json", error)
    written = []
    for folder in (tmp_path / "first", tmp_path / "second"):
        draw_tables("confusion", tmp_path / "confusion.parquet", folder / "confusion", SETTINGS)
        draw_tables("faithfulness", tmp_path / "faithfulness.parquet", folder / "faithfulness", SETTINGS)
        calibration.draw_calibration(
            tmp_path / "reliability.parquet", tmp_path / "metrics.json", folder / "calibration", SETTINGS
        )
        written.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert len(written[0]) == 9
    assert written[0] == written[1]
