"""Figures of latents of class tokens: whole pictures, and words that say what is counted."""

import numpy as np
import polars as pl
import pytest

from visae.config.settings import FigureSettings
from visae.figures import feature_map, gallery, strips
from visae.figures.pictures import Shown, peak_crop
from visae.figures.strips import Strip

GRID = (2, 3)


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Shown(pixels, np.kron(pixels, np.ones((2, 2, 1), dtype=np.uint8)))


def exemplars(tokens, token):
    row = {"latent": 5, "kind": "top", "bin": None, "low": None, "high": None, "rank": 0, "image_id": 7}
    values = [float(number + 1) for number in range(len(tokens))]
    return pl.DataFrame(
        [{**row, "token": token, "value": values[tokens.index(token)], "tokens": tokens, "values": values}]
    )


def described(kind):
    table = pl.DataFrame({"latent": [5], "name": ["sky"], "class_name": [None], "f1": [None], "frequency": [0.25]})
    return table if kind == "patches" else table.with_columns(tokens=pl.lit(kind))


def drawn(kind, tokens, token, picture, view="overlay"):
    """The picture that is drawn of an exemplar, its outlines, and all texts."""
    table = gallery.data(exemplars(tokens, token), [5], described(kind))
    figure = gallery.draw(table, FigureSettings(), {7: picture}, GRID, columns=4, views=[view])
    (axes,) = figure.axes
    return axes.images[0].get_array(), axes.patches, [text.get_text() for text in figure.texts]


def test_an_exemplar_of_a_class_token_is_the_whole_picture_without_a_map(picture):
    for view, shown in (("overlay", picture.seen), ("crop", picture.fine), ("picture", picture.seen)):
        image, outlines, texts = drawn("class", [-1], -1, picture, view)
        np.testing.assert_array_equal(image, shown)
        assert not len(outlines)
        assert any("active on 25 % of pictures" in text for text in texts)


def test_of_all_tokens_patches_are_lit_and_only_a_patch_is_outlined(picture):
    lit, outlines, texts = drawn("all", [-1, 0, 4], 4, picture)
    assert len(outlines) == 1
    assert any("active on 25 % of tokens" in text for text in texts)
    # The last patch, which token -1 must not be taken for, is as silent as patch 1.
    grey = lit[20:, 40:].astype(int)
    assert (grey == grey[..., :1]).all()
    assert not (lit[:20, :20].astype(int) == lit[:20, :20, :1]).all()
    _, outlines, _ = drawn("all", [-1, 0, 4], -1, picture)
    assert not len(outlines)


def test_of_patches_nothing_is_said_otherwise(picture):
    _, outlines, texts = drawn("patches", [0, 4], 4, picture)
    assert len(outlines) == 1
    assert any("active on 25 % of patches" in text for text in texts)


def test_a_crop_around_a_class_token_is_the_picture(picture):
    assert peak_crop(picture, -1, GRID) is picture.fine
    assert peak_crop(picture, 0, GRID).shape == picture.fine.shape


@pytest.mark.parametrize(
    ("edited", "where"),
    [
        ([0, 4], "the outlined patches"),
        ([-1], "the class token"),
        ([-1, 4], "the outlined patches and the class token"),
        ([-2, -1, 4], "the outlined patches and the class token and registers"),
    ],
)
def test_strips_say_what_is_edited(edited, where, picture):
    title = strips.title([5], {}, -2.0, edited)
    assert title.endswith(f"on {where}")
    outcome = pl.DataFrame({"class_name": ["a", "b"], "before": [0.9, 0.1], "after": [0.2, 0.8], "control": [0.9, 0.1]})
    table = strips.data([Strip(title, 7, edited, [5], outcome)], exemplars([-1], -1))
    figure = strips.draw(table, FigureSettings(), {7: picture}, GRID, "random change")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), picture.seen)
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), picture.seen)
    patches = [token for token in edited if token >= 0]
    outlines = [len(lines.get_segments()) for lines in figure.axes[0].collections]
    assert sum(outlines) == (0 if not patches else len(outlined(patches)))


def outlined(patches):
    """Sides of patches on the grid that are between inside and outside."""
    inside = np.zeros(GRID, dtype=int)
    inside.flat[patches] = 1
    padded = np.pad(inside, 1)
    return [side for axis in (0, 1) for side in np.argwhere(np.diff(padded, axis=axis))]


@pytest.mark.parametrize(("kind", "unit"), [("patches", "patches"), ("class", "pictures"), ("all", "tokens")])
def test_the_feature_map_says_of_what_the_share_is(kind, unit):
    stats = {"latent": [0, 1], "frequency": [0.1, 0.2], "mean": [1.0, 2.0], "log10_frequency": [-1.0, -0.7]}
    table = pl.DataFrame(stats, schema_overrides={"latent": pl.Int32})
    table = table if kind == "patches" else table.with_columns(tokens=pl.lit(kind))
    figure = feature_map.draw(feature_map.data(table, None, None), FigureSettings())
    assert figure.axes[0].get_xlabel() == f"log10 share of {unit} that the latent is active on"
