"""Counterfactual pairs: exactly one cause differs, nothing else to the bit, and what belongs to no pair is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image

from visae.config.scenes import CAUSES
from visae.config.settings import ScenePairsSettings, ScenesSettings, TableSettings
from visae.data.index import build_index
from visae.data.painting import covered_by
from visae.data.paired import difference
from visae.data.pairs import read_cause_values, read_pairs
from visae.data.scene_pairs import _drawn_group, make_group
from visae.data.scenes import make_scene
from visae.errors import DataError

SIZE = 64


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "index.parquet"
    build_index(ScenePairsSettings(kind="scene_pairs", train=10, val=6, image_size=SIZE), path, seed=3)
    return path


def test_every_scene_has_a_base_and_a_picture_of_every_cause(index):
    pairs = read_pairs(index)
    assert len(pairs) == 16 * len(CAUSES)
    by_base: dict[int, list[str]] = {}
    for pair in pairs:
        by_base.setdefault(pair.base, []).append(pair.cause)
    assert set(map(tuple, by_base.values())) == {CAUSES}
    assert {split: sum(pair.split == split for pair in pairs) for split in ("train", "val")} == {"train": 60, "val": 36}
    rows = polars.read_parquet(index)
    assert rows["image_id"].to_list() == list(range(16 * 7))
    assert rows["split"].to_list() == ["train"] * 70 + ["val"] * 42


def test_exactly_one_cause_differs_in_every_pair(index):
    values = {row.pop("image_id"): row for row in read_cause_values(index).to_dicts()}
    for pair in read_pairs(index):
        base, changed = values[pair.base], values[pair.changed]
        assert [cause for cause in CAUSES if base[cause] != changed[cause]] == [pair.cause]


def test_pixels_outside_the_region_are_the_same_and_those_inside_are_not(index):
    covered: dict[str, list[float]] = {cause: [] for cause in CAUSES}
    for pair in read_pairs(index):
        found = difference(pair)
        region = pair.region()
        assert found.level == 0, pair
        assert not found.outside > 0, pair
        # A region that is far larger than what changes would make that easy.
        assert found.inside > (0.05 if pair.cause in ("shape", "place") else 0.5), pair
        covered[pair.cause].append(float(region.mean()))
    assert min(covered["lighting"]) == 1
    assert np.mean(covered["texture"]) < 0.3 < np.mean(covered["background"])
    # An object and its shadow at two places, beside the object alone.
    assert np.mean(covered["place"]) > 1.8 * np.mean(covered["tint"])


@pytest.mark.parametrize("image_size", [96, 224])
def test_what_both_shapes_cover_wholly_is_the_same_surface(image_size):
    for number in range(4):
        base, changed, _ = _drawn_group(5, "val", number, image_size, ["shape"])
        pictures = [pair.image for pair in make_group(5, "val", number, image_size, ["shape"])]
        covers = [covered_by(causes.objects[0], image_size) == 1 for causes in (base, changed["shape"])]
        both = covers[0] & covers[1]
        assert both.sum() > 0.3 * covers[0].sum()
        np.testing.assert_array_equal(pictures[0][both], pictures[1][both])


def test_summary_says_how_pictures_differ(index):
    told = json.loads(index.with_name("summary.json").read_text())
    assert [entry["cause"] for entry in told["pairs"]] == list(CAUSES)
    assert all(entry["n_pairs"] == {"train": 10, "val": 6} for entry in told["pairs"])
    assert all(entry["largest_outside"] == 0 and entry["n_the_same"] == 0 for entry in told["pairs"])
    assert not [notice for notice in told["notices"] if notice["level"] == "warning" and "pairs of" in notice["text"]]


def test_fewer_causes_and_a_longer_run_make_the_same_pictures(tmp_path, index):
    few = tmp_path / "index.parquet"
    settings = ScenePairsSettings(kind="scene_pairs", train=4, val=2, image_size=SIZE, causes=["tint", "texture"])
    build_index(settings, few, seed=3)
    assert polars.read_parquet(few).height == settings.n_pictures == 6 * 3
    for name in ("train/000003-base", "train/000002-tint", "val/000001-texture"):
        one, other = (folder.parent / f"pictures/images/{name}.png" for folder in (few, index))
        assert one.read_bytes() == other.read_bytes()
    build_index(dataclasses.replace(settings, train=2), few, seed=3)
    assert len(list(few.parent.glob("pictures/*/train/*.png"))) == 2 * 3 + 2 * 2


def test_no_base_is_a_picture_of_scenes():
    base = next(make_group(0, "train", 0, SIZE, []))
    assert not np.array_equal(base.image, make_scene(0, "train", 0, SIZE).image)


def test_share_of_patches_is_the_region_as_the_model_crops_it(index):
    @dataclasses.dataclass
    class Card:
        image_size: tuple[int, int] = (48, 48)
        fit: str = "crop"
        crop_share: float = 0.75
        interpolation: str = "bicubic"

    pair = next(pair for pair in read_pairs(index) if pair.cause == "tint")
    shares = pair.share_of_patches(Card(), (12, 12))
    inner = pair.region()[8:56, 8:56]  # three quarters of 64, from the centre
    np.testing.assert_allclose(shares, inner.reshape(12, 4, 12, 4).mean(axis=(1, 3)).ravel(), atol=1e-6)


# --- pairs of the user's own ---


def table(folder: Path, rows: list[dict], **settings) -> Path:
    folder.mkdir(exist_ok=True)
    polars.DataFrame(rows, infer_schema_length=None).write_csv(folder / "table.csv")
    section = TableSettings(kind="table", file=str(folder / "table.csv"), **settings)
    build_index(section, folder / "own" / "index.parquet", seed=0)
    return folder / "own" / "index.parquet"


def picture(folder: Path, name: str, square: int = 0, size: tuple[int, int] = (32, 32), stray: int = 0) -> str:
    """A ramp, with a square of another brightness, and one other pixel that is `stray` levels brighter."""
    folder.mkdir(exist_ok=True)
    values = np.tile(np.arange(size[0], dtype=np.uint8), (size[1], 1))
    values[4:12, 4:12] += square
    values[-1, -1] += stray
    Image.fromarray(values).convert("RGB").save(folder / name)
    return name


def region(folder: Path, name: str = "region.png", size: tuple[int, int] = (32, 32)) -> str:
    values = np.zeros(size[::-1], dtype=np.uint8)
    values[4:12, 4:12] = 255
    Image.fromarray(values).save(folder / name)
    return name


def rows_of(folder: Path, n: int = 12, **changed) -> list[dict]:
    """Pairs of a base and a picture with a brighter square."""
    found = []
    for number in range(n):
        base = picture(folder, f"{number}.png", square=number)
        other = picture(folder, f"{number}-sun.png", **{"square": 100 + number, **changed})
        found.append({"path": base, "pair": f"p{number}", "cause": None, "region": None})
        found.append({"path": other, "pair": f"p{number}", "cause": "sun", "region": region(folder)})
    return found


def test_pairs_of_a_table_stay_together_when_splits_are_drawn(tmp_path):
    own = table(tmp_path / "data", rows_of(tmp_path / "data"), val_share=0.4, test_share=0.0)
    pairs = read_pairs(own)
    assert {pair.cause for pair in pairs} == {"sun"}
    assert len(pairs) == 12
    assert {pair.split for pair in pairs} == {"train", "val"}
    assert pairs[0].region().sum() == 64
    told = json.loads(own.with_name("summary.json").read_text())["pairs"][0]
    assert (told["differs_inside"], told["differs_outside"], told["n_without_region"]) == (1, 0, 0)
    values = read_cause_values(own)
    assert values["sun"].value_counts().sort("sun").rows() == [("changed", 12), ("unchanged", 12)]


def test_what_differs_outside_the_region_is_measured_and_warned_of(tmp_path, caplog):
    own = table(tmp_path / "data", rows_of(tmp_path / "data", stray=7))
    told = json.loads(own.with_name("summary.json").read_text())
    assert told["pairs"][0]["differs_outside"] == pytest.approx(1 / (32 * 32 - 64))
    assert (told["pairs"][0]["largest_outside"], told["pairs"][0]["n_differ_outside"]) == (7, 12)
    assert any("12 of 12 differ outside their region" in notice["text"] for notice in told["notices"])
    assert "by up to 7 of 255 levels" in caplog.text


def test_pairs_without_regions_and_without_a_difference_are_told(tmp_path):
    rows = [{**row, "region": None} for row in rows_of(tmp_path / "data", n=3, square=0)]
    rows = [{key: value for key, value in row.items() if key != "region"} for row in rows]
    own = table(tmp_path / "data", rows)
    told = json.loads(own.with_name("summary.json").read_text())
    assert read_pairs(own)[0].region() is None
    assert (told["pairs"][0]["differs_outside"], told["pairs"][0]["n_without_region"]) == (None, 3)
    # Squares are as bright as the base's in the first pair alone.
    assert any("in 1 of 3 nothing differs" in notice["text"] for notice in told["notices"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "wide.png"}, r"have 32 x 32 and 40 x 32 pixels; pictures of a pair have one size"),
        ({"cause": None, "region": None}, r"has to be the base, whose cause is empty, and the index has 2 such"),
        ({"pair": None}, r"row 2 has a cause and no pair"),
        ({"cause": "image_id"}, r"row 2: the cause image_id is called as a column of tables is; rename it"),
        ({"cause": None}, r"row 2 has a region and no cause"),
        ({"region": "large.png"}, r"the mask has 64 x 64 pixels, its picture 32 x 32"),
        ({"region": "nothing.png"}, r"the region of .*0-sun.png is 0 everywhere"),
        ({"split": "val"}, r"are in the splits train and val; a pair has to be in one"),
    ],
)
def test_pairs_that_do_not_belong_together_are_refused(tmp_path, change, message):
    folder = tmp_path / "data"
    rows = [{"split": "train", **row} for row in rows_of(folder, n=2)]
    picture(folder, "wide.png", size=(40, 32))
    region(folder, "large.png", size=(64, 64))
    Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(folder / "nothing.png")
    rows[1] |= change
    with pytest.raises(DataError, match=message):
        table(folder, rows)


def test_two_pictures_of_one_cause_and_a_lone_base_are_refused(tmp_path):
    folder = tmp_path / "data"
    rows = rows_of(folder, n=2)
    with pytest.raises(DataError, match=r"both have the cause sun; give one of them a pair of its own"):
        table(folder, [*rows, {**rows[1], "path": picture(folder, "again.png", square=50)}])
    with pytest.raises(DataError, match=r"0.png is alone; give it a picture with a cause, or no pair"):
        table(folder, rows[:1] + rows[2:])
    with pytest.raises(DataError, match=r"pair: p0: one of its pictures has to be the base.*has none"):
        table(folder, rows[1:])


def test_data_sets_without_pairs_say_so(tmp_path):
    build_index(ScenesSettings(kind="scenes", train=2, val=1, test=1, image_size=32), tmp_path / "index.parquet")
    with pytest.raises(DataError, match="it has no counterfactual pairs; make a data set of kind scene_pairs"):
        read_pairs(tmp_path / "index.parquet")
