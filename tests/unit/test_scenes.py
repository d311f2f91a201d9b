"""Made pictures: their causes are true, independent, and depend on nothing but the seed."""

import hashlib
import math
from pathlib import Path

import numpy as np
import polars
import pytest
from PIL import Image
from scipy.stats import chi2_contingency

from visae.config.settings import ScenesSettings
from visae.data.painting import LIGHTS, shadow
from visae.data.scenes import BACKGROUND_CLASS, CLASSES, SPLITS, TEXTURE_NAMES, make_scene, make_scenes
from visae.data.shapes import OUTLINES, SHAPES, coverage, reach
from visae.data.textures import background_crop, surface_patch, surfaces


def made(folder: Path, train: int, val: int, test: int, *, image_size: int = 64, seed: int = 3) -> Path:
    settings = ScenesSettings(kind="scenes", train=train, val=val, test=test, image_size=image_size)
    make_scenes(settings, folder, seed)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("many"), train=400, val=40, test=40)


@pytest.fixture(scope="module")
def causes(many: Path) -> polars.DataFrame:
    return polars.read_parquet(many / "causes.parquet")


def test_same_seed_same_bytes(tmp_path):
    first = hashes(made(tmp_path / "first", 6, 2, 2))
    assert first == hashes(made(tmp_path / "second", 6, 2, 2))
    other = hashes(made(tmp_path / "third", 6, 2, 2, seed=4))
    pictures = [name for name in first if name.endswith(".jpg")]
    assert len(pictures) == 10
    assert all(first[name] != other[name] for name in pictures)


def test_longer_run_keeps_the_pictures_and_shorter_run_removes_the_rest(tmp_path):
    short = hashes(made(tmp_path / "short", 5, 3, 2))
    long = hashes(made(tmp_path / "long", 11, 4, 2))
    pictures = [name for name in short if name.endswith((".jpg", ".png"))]
    assert len(pictures) == 20
    assert all(short[name] == long[name] for name in pictures)
    assert hashes(made(tmp_path / "long", 5, 3, 2)) == short


def test_splits_do_not_repeat_each_other(many):
    found = [value for name, value in hashes(many).items() if name.endswith(".jpg")]
    assert len(set(found)) == len(found) == 480


@pytest.mark.parametrize("cause", ["shape", "tint", "lighting", "background"])
def test_causes_are_independent_of_the_label(causes, cause):
    largest = causes.filter("is_largest")
    table = largest.pivot(on=cause, index="texture", values="image_id", aggregate_function="len").drop("texture")
    assert min(table.shape) >= 4
    assert chi2_contingency(table.fill_null(0).to_numpy()).pvalue > 0.001


@pytest.mark.parametrize("cause", ["size", "rotation", "centre_x", "centre_y", "lighting_strength"])
def test_measured_causes_do_not_tell_the_label(causes, cause):
    largest = causes.filter("is_largest")
    between = largest.group_by("texture").agg(polars.col(cause).mean())[cause]
    # The variance of eight means of 60 draws is 1/60 of the draws' own where nothing depends on the texture.
    assert between.var() / (largest[cause].var() / 60) < 3.5  # chi-square with 7 degrees: p below 0.001


def test_labels_are_balanced_and_not_in_a_fixed_order(causes):
    for split, rounds in (("train", 50), ("val", 5), ("test", 5)):
        textures = causes.filter("is_largest", split=split)["texture"].to_list()
        assert sorted(textures) == sorted(TEXTURE_NAMES * rounds)
        assert textures[:8] != textures[8:16]


def test_masks_show_what_the_causes_say(many, causes):
    numbers = {name: number for number, name in CLASSES.items()}
    for (path,), rows in causes.group_by("path"):
        mask = np.asarray(Image.open(many / str(path).replace("images", "annotations").replace(".jpg", ".png")))
        counts = np.bincount(mask.ravel(), minlength=BACKGROUND_CLASS + 1)
        told = np.zeros_like(counts)
        told[[numbers[name] for name in rows["texture"]]] = rows["visible_pixels"].to_numpy()
        told[BACKGROUND_CLASS] = mask.size - told.sum()
        np.testing.assert_array_equal(counts, told)


def test_label_is_the_texture_that_covers_most(many, causes):
    for path, texture in causes.filter("is_largest").select("path", "texture").iter_rows():
        mask = np.asarray(Image.open(many / path.replace("images", "annotations").replace(".jpg", ".png")))
        assert CLASSES[int(np.bincount(mask.ravel())[:BACKGROUND_CLASS].argmax())] == texture


def test_every_picture_has_one_to_three_objects_of_different_textures(causes):
    per_picture = causes.group_by("image_id").agg(
        polars.len(), polars.col("texture").n_unique().alias("kinds"), polars.col("is_largest").sum().alias("largest")
    )
    assert set(per_picture["len"]) == {1, 2, 3}
    assert (per_picture["len"] == per_picture["kinds"]).all()
    assert (per_picture["largest"] == 1).all()
    assert sorted(per_picture["image_id"]) == list(range(480))


def test_nothing_hides_the_largest_and_little_hides_the_others(causes):
    area = math.pi * causes["size"] ** 2
    shown = causes.with_columns(shown=causes["visible_pixels"] / area)
    assert shown.filter("is_largest")["shown"].is_between(0.93, 1.07).all()
    assert shown["shown"].min() > 0.6


def test_objects_lie_at_their_centres(many, causes):
    """The mass of a lone object's mask has its centre where the causes say, and its area."""
    alone = causes.filter(polars.len().over("image_id") == 1)
    assert len(alone) > 100
    for path, x, y in alone.select("path", "centre_x", "centre_y").iter_rows():
        mask = np.asarray(Image.open(many / path.replace("images", "annotations").replace(".jpg", ".png")))
        rows, columns = np.nonzero(mask != BACKGROUND_CLASS)
        assert abs(columns.mean() + 0.5 - x) < 0.35
        assert abs(rows.mean() + 0.5 - y) < 0.35


def test_tint_changes_colour_only_inside_the_objects():
    """Red over blue is larger in red-tinted objects than in blue-tinted ones of the grey textures."""
    ratios: dict[str, list[float]] = {"red": [], "blue": []}
    for number in range(150):
        scene = make_scene(0, "train", number, 64)
        for cause in scene.causes:
            if cause["tint"] in ratios and cause["texture"] in ("brick", "grass", "gravel", "coins", "print"):
                inside = scene.image[scene.mask == TEXTURE_NAMES.index(cause["texture"]) + 1].astype(float)
                ratios[cause["tint"]].append(inside[:, 0].mean() / inside[:, 2].mean())
    assert len(ratios["red"]) > 10
    assert len(ratios["blue"]) > 10
    assert min(ratios["red"]) > 1.15
    assert max(ratios["blue"]) < 0.85


def test_light_comes_from_where_the_causes_say():
    differences: dict[str, list[float]] = {"left": [], "right": [], "top": [], "bottom": []}
    for number in range(160):
        scene = make_scene(1, "val", number, 48)
        brightness = scene.image.mean(axis=2)
        across = brightness[:, :24].mean() - brightness[:, 24:].mean()
        down = brightness[:24].mean() - brightness[24:].mean()
        light = scene.causes[0]["lighting"]
        differences[light].append(across if light in ("left", "right") else down)
    assert np.mean(differences["left"]) > 5 > -5 > np.mean(differences["right"])
    # Backgrounds are brighter at the top on their own.
    assert np.mean(differences["top"]) > np.mean(differences["bottom"]) + 10


def test_classes_file_and_layout(many):
    lines = (many / "classes.txt").read_text().splitlines()
    assert lines == [f"{number}\t{name}" for number, name in enumerate([*TEXTURE_NAMES, "background"], start=1)]
    for split in SPLITS:
        pictures = sorted(path.stem for path in (many / "images" / split).iterdir())
        assert pictures == sorted(path.stem for path in (many / "annotations" / split).iterdir())


def test_size_of_the_picture_scales_everything():
    small, large = make_scene(0, "train", 5, 56), make_scene(0, "train", 5, 224)
    for one, other in zip(small.causes, large.causes, strict=True):
        assert (one["shape"], one["texture"], one["tint"]) == (other["shape"], other["texture"], other["tint"])
        assert other["size"] == pytest.approx(4 * one["size"])
        assert other["visible_pixels"] == pytest.approx(16 * one["visible_pixels"], rel=0.05)
    shrunk = np.asarray(Image.fromarray(large.image).resize((56, 56), Image.Resampling.BOX), dtype=float)
    assert np.corrcoef(shrunk.ravel(), small.image.ravel().astype(float))[0, 1] > 0.95


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_has_the_same_area_for_every_shape(shape):
    covered = coverage(shape, (80.3, 77.9), 40.0, 33.0, 160)
    assert covered.sum() == pytest.approx(math.pi * 40**2, rel=0.02)
    assert covered.min() == 0
    assert covered.max() == 1
    assert ((covered > 0) & (covered < 1)).sum() > 100  # soft edges
    rows, columns = np.mgrid[:160, :160] + 0.5
    assert (columns * covered).sum() / covered.sum() == pytest.approx(80.3, abs=0.2)
    assert (rows * covered).sum() / covered.sum() == pytest.approx(77.9, abs=0.2)
    farthest = np.hypot(columns - 80.3, rows - 77.9)[covered > 0.1].max()
    assert farthest == pytest.approx(40 * reach(shape), abs=2)


def test_rotation_turns_clockwise():
    upright = coverage("triangle", (50, 50), 25, 0, 100)
    assert upright[:35].sum() < upright[50:].sum()  # the tip is up
    turned = coverage("triangle", (50, 50), 25, 90, 100)
    assert np.abs(turned - np.rot90(upright, -1)).mean() < 0.01


@pytest.mark.parametrize("light", LIGHTS)
def test_shadow_falls_away_from_the_light_and_stays_on_its_side(light):
    covered = coverage("square", (50, 50), 20, 45, 100)
    x, y = LIGHTS[light]
    rows, columns = np.mgrid[:100, :100] + 0.5
    cast = shadow(covered, light)
    moved = (columns * cast).sum() / cast.sum() - 50, (rows * cast).sum() / cast.sum() - 50
    assert moved == pytest.approx((-4 * x * 100 / 224, -4 * y * 100 / 224), abs=0.15)
    at_edge = np.zeros((100, 100), dtype=np.float32)
    at_edge[-20:, -20:] = 1
    assert shadow(at_edge, light)[:60, :60].max() == 0


def test_shapes_differ():
    masks = [coverage(shape, (50, 50), 25, 0, 100) >= 0.5 for shape in SHAPES]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert (one & other).sum() / (one | other).sum() < 0.92
    assert set(OUTLINES) == set(SHAPES)


def test_surface_patch_without_turn_or_zoom_is_a_crop():
    surface = surfaces(224)["brick"]
    patch = surface_patch(surface, 60, 1.0, 0.0, (0.0, 0.0))
    np.testing.assert_allclose(patch, np.asarray(surface)[:60, :60], atol=1)
    turned = surface_patch(surface, 60, 1.0, 90.0, (0.0, 0.0))
    np.testing.assert_allclose(turned, np.rot90(patch, -1), atol=1)


@pytest.mark.parametrize("texture", TEXTURE_NAMES)
def test_surfaces_hold_the_largest_disc(texture):
    """No corner place shows anything outside the photograph, which would be black."""
    surface = Image.new("RGB", surfaces(224)[texture].size, "white")
    side = 2 * math.ceil(58 * max(map(reach, SHAPES)) + 1)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    disc = np.hypot(rows, columns) < side / 2 - 1.5
    for place in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
        assert surface_patch(surface, side, 1.25, 30.0, place)[disc].min() == 255


def test_background_crop_covers_what_it_says():
    whole = background_crop("astronaut", 64, 1.0, (0.3, 0.9))
    np.testing.assert_array_equal(whole, background_crop("astronaut", 64, 1.0, (0.0, 0.0)))
    corner = background_crop("astronaut", 64, 0.5, (0.0, 0.0))
    shrunk = np.asarray(Image.fromarray(corner.astype(np.uint8)).resize((32, 32), Image.Resampling.BOX), dtype=float)
    assert np.abs(shrunk - whole[:32, :32]).mean() < 6
