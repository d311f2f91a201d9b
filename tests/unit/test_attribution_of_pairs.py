"""On pairs whose change is known, a network that sees each patch alone looks at the changed place alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from visae.activations.given import write_store
from visae.attribution.headline import attribution_lines
from visae.attribution.of_pairs import SCHEMA, SHARES, PairFiles, _changes, _responding, attribute_pairs, pair_shares
from visae.config.settings import AttributionSettings, FigureSettings, ModelSettings, ScenePairsSettings
from visae.data.images import pixels
from visae.data.index import build_index, read_index
from visae.data.pairs import read_pairs
from visae.errors import DataError
from visae.features.codes import scan_codes
from visae.features.encoding import encode_store
from visae.figures.attribution_of_pairs import draw_attribution_of_pairs
from visae.sae import SparseAutoencoder, save_sae
from visae.sae.variants.relu import Relu
from visae.vision.hook_points import HookPoint
from visae.vision.model import load_model, prepare_model

SIZE, LAYER, WIDTH = 64, 2, 16
SCENES = ScenePairsSettings(
    kind="scene_pairs", train=6, val=6, image_size=SIZE, causes=["texture", "place", "lighting"]
)
SETTINGS = AttributionSettings(points=1, window=1, pairs=4, latents_per_cause=3, bootstrap=100, batch_size=4)


def make_world(folder: Path) -> PairFiles:
    """Made pairs, a ViT whose blocks add nothing, and an SAE of random directions."""
    index, card = folder / "pairs/index.parquet", folder / "model/model.json"
    build_index(SCENES, index)
    weights = card.with_name("weights.safetensors")
    prepare_model(ModelSettings(architecture="test_vit", weights="random", image_size=SIZE), weights, card)
    state = load_file(weights)
    for name in state:
        if ".attn.proj." in name or ".mlp.fc2." in name:
            state[name].zero_()
    save_file(state, weights)
    model, point = load_model(card), HookPoint(LAYER)
    rows = read_index(index)
    tokens = model.read(torch.stack([pixels(path, model.card) for path in rows["path"]]), [point])[point]
    splits = {name: rows.filter(split=name).height for name in ("train", "val")}
    ids = model.card.tokens(LAYER)
    store = write_store(folder / "store", tokens.numpy(), ids, splits, layer=LAYER, grid=model.card.grid)
    patches = tokens[:, model.card.n_prefix :].flatten(0, 1)
    sae = SparseAutoencoder(tokens.shape[-1], WIDTH, Relu())
    directions = normalize(torch.randn(WIDTH, tokens.shape[-1], generator=torch.Generator().manual_seed(0)))
    state = sae.state_dict() | {"encoder_weight": directions, "decoder_weight": directions}
    sae.load_state_dict(state | {"mean": patches.mean(dim=0), "scale": patches.std()})
    config = save_sae(sae, folder / "sae")
    encode_store(store, config, folder / "codes", "cpu")
    return PairFiles(card=card, sae=config, index=index, codes=folder / "codes/manifest.json")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> PairFiles:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("done")
    summary = attribute_pairs(world, SETTINGS, str(LAYER), output, device="cpu")
    return output, summary, pl.read_parquet(output / "attribution_of_pairs.parquet")


def test_all_that_is_attributed_is_the_changed_patch(done):
    _, _, table = done
    assert dict(table.schema) == SCHEMA
    assert set(table["cause"]) == {"texture", "place"}
    # The code of a latent that sees one patch changes only on patches that the change reaches.
    assert (table["inside_token"] > 0).all()
    for name in ("attribution", "occlusion"):
        assert table[f"inside_{name}"].to_numpy() == pytest.approx(table["inside_token"].to_numpy(), abs=1e-4)
    for row in table.iter_rows(named=True):
        assert row["inside_area"] == pytest.approx(np.mean(row["region"]))
        assert row["activation"][row["token"]] >= abs(row["change"]) * (1 - 1e-3)
    assert table["inside_attribution"].mean() > table["inside_area"].mean()


def test_what_changes_everything_is_counted_and_left_out(done):
    _, summary, table = done
    assert set(summary["n_everywhere"]) == {"lighting"}
    assert summary["n_pairs"] == len(table) <= 2 * SETTINGS.pairs


def test_measured_are_pairs_of_val_and_each_once_a_cause(world, done):
    _, _, table = done
    known = {(pair.name, pair.cause): pair for pair in read_pairs(world.index)}
    assert table.select("pair", "cause").is_unique().all()
    for row in table.iter_rows(named=True):
        pair = known[row["pair"], row["cause"]]
        assert pair.split == "val"
        assert row["image_id"] == (pair.changed if row["change"] > 0 else pair.base)


def test_latents_of_a_cause_are_those_that_change_most_on_train(world):
    pairs = [pair for pair in read_pairs(world.index) if pair.split == "train" and pair.cause == "texture"]
    codes = scan_codes(world.codes).collect()
    dense = np.zeros((codes["image_id"].max() + 1, 16, WIDTH))
    dense[codes["image_id"], codes["token"], codes["latent"]] = codes["value"]
    changes = np.stack([dense[pair.changed] - dense[pair.base] for pair in pairs])
    by_hand = np.abs(changes).max(axis=1)
    found = _changes(world.codes, pairs)
    assert _responding(found, 5) == np.argsort(-by_hand.sum(axis=0), kind="stable")[:5].tolist()
    assert len(found) == (by_hand > 0).sum()
    for number, latent, token, change in found.iter_rows():
        assert change == pytest.approx(changes[number, token, latent])
        assert abs(change) == pytest.approx(by_hand[number, latent])


def test_shares_have_intervals_and_differences(done):
    _, summary, table = done
    found = {one["cause"]: one for one in summary["causes"]}
    assert set(found) == {"texture", "place", "mean"}
    for one in found.values():
        for name in SHARES:
            assert one[name]["low"] <= one[name]["value"] <= one[name]["high"]
        assert one["above_area"]["value"] == pytest.approx(one["attribution"]["value"] - one["area"]["value"])
    nothing = pair_shares(table.with_columns(inside_activation=pl.lit(None, pl.Float64)), 20, 0)
    assert nothing[0]["activation"]["value"] is None


def test_the_figure_and_the_headline_say_the_same(world, done, tmp_path):
    output, summary, _ = done
    table, record = (output / f"attribution_of_pairs.{kind}" for kind in ("parquet", "json"))
    draw_attribution_of_pairs(
        table, record, world.index, world.card, tmp_path / "figure", settings=FigureSettings(), layer=LAYER
    )
    drawn = pl.read_csv(tmp_path / "figure.csv").filter(pl.col("map") == "attribution", pl.col("cause") == "mean")
    (mean,) = (one for one in summary["causes"] if one["cause"] == "mean")
    assert drawn["share"].item() == pytest.approx(mean["attribution"]["value"])
    lines = attribution_lines(output, "topk", "pairs")
    assert f"{mean['attribution']['value']:.1%}" in lines[-1]


def test_pairs_of_one_split_alone_are_refused(world, tmp_path):
    read_index(world.index).with_columns(split=pl.lit("train")).write_parquet(tmp_path / "index.parquet")
    files = PairFiles(card=world.card, sae=world.sae, index=tmp_path / "index.parquet", codes=world.codes)
    with pytest.raises(DataError, match="split val has no pairs"):
        attribute_pairs(files, SETTINGS, str(LAYER), tmp_path, device="cpu")
