"""Users and items whose truth is planted, and readouts that do not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tasks_for_tests import FIRST, USERS, save_rows, users_world

from visae.activations.store import ActivationStore
from visae.data.index import read_index
from visae.data.users import make_users
from visae.errors import DataError, ModelError
from visae.files import read_json
from visae.tasks.counts import SUPPRESS, Target


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return users_world(tmp_path_factory.mktemp("users"))


@pytest.fixture(scope="module")
def folder(world) -> Path:
    return Path(world.files.index).parent


def test_users_are_their_tastes_and_what_all_share_and_noise(world, folder):
    store = ActivationStore.open(world.files.manifest)
    assert store.splits == {"train": range(120), "val": range(120, 160), "test": range(160, 161)}
    vectors = store.read(range(store.n_images), "all")[:, 0].double().numpy()
    liked = pl.read_parquet(folder / "liked.parquet")
    tastes = load_file(folder / "truth.safetensors")["tastes"].double().numpy()
    np.testing.assert_allclose(np.linalg.norm(tastes, axis=1), 1, rtol=1e-6)
    strengths = np.zeros((len(vectors), USERS.tastes))
    strengths[liked["image_id"], liked["taste"]] = liked["strength"]
    likes = (strengths > 0).sum(axis=1)
    assert (likes.min(), likes.max()) == (1, USERS.tastes_per_user)
    assert strengths[strengths > 0].min() >= 0.5
    rest = vectors - strengths @ tastes
    # What all share is a unit vector; the noise of each has the length that the settings say.
    np.testing.assert_allclose(np.linalg.norm(rest - rest.mean(axis=0), axis=1), USERS.noise, atol=0.05)
    assert np.linalg.norm(rest.mean(axis=0)) == pytest.approx(1, abs=0.05)
    assert set(liked.filter(pl.col("image_id") >= 120, pl.col("image_id") < 160)["split"]) == {"val"}


def test_the_readout_names_its_items_and_their_tastes(world):
    with safe_open(world.files.readout, "pt") as file:
        weight, metadata = file.get_tensor("weight"), file.metadata()
    assert weight.shape == (USERS.tastes * USERS.items_per_taste, USERS.d_model)
    names, classes = json.loads(metadata["names"]), json.loads(metadata["classes"])
    assert (names[0], classes[0], classes[-1]) == ("item 1 of taste 1", "taste 1", f"taste {USERS.tastes}")
    assert [classes.count(kind) for kind in dict.fromkeys(classes)] == [USERS.items_per_taste] * USERS.tastes


def test_the_same_seed_makes_the_same_users_and_another_makes_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_users(USERS, tmp_path / name, seed)
    files = [p.relative_to(tmp_path / "a") for p in sorted((tmp_path / "a").rglob("*")) if p.is_file()]
    assert len(files) == 6
    for file in files:
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b
        assert a != c


def test_a_made_set_says_of_itself_how_it_was_made(folder):
    summary = read_json(folder / "summary.json")
    assert summary["kind"] == "users"
    assert summary["n_images"] == {"train": 120, "val": 40, "test": 1}
    assert len(read_index(folder / "index.parquet")) == 161


def test_without_the_taste_the_list_is_that_of_a_user_who_never_had_it(world, folder):
    """The planted truth of suppression: what the vector would be had the taste's strength been 0."""
    task, sae = world.opened(), world.sae()
    task.look(task.store.image_ids("val"))
    liked = pl.read_parquet(folder / "liked.parquet")
    tastes = load_file(folder / "truth.safetensors")["tastes"]
    same = []
    for class_id, latent in world.planted.items():
        counts = task.pictures(Target(class_id, task.names[class_id], (latent,), 1.0), SUPPRESS, None, 0)
        ids = task.measured[counts.images]
        strength = dict(liked.filter(taste=latent).select("image_id", "strength").iter_rows())
        tokens = torch.cat([task.store.read(range(int(i), int(i) + 1), "all") for i in ids])[:, 0]
        values = sae.latent_values(tokens, [latent])
        edited = tokens - values * sae.directions()[[latent]]
        never = tokens - torch.tensor([strength.get(int(i), 0.0) for i in ids])[:, None] * tastes[[latent]]
        lists = [task.listed(task.read(rows[:, None])) for rows in (edited, never, tokens)]
        same.append([(lists[0][:, :, None] == other[:, None]).any(2).float().mean().item() for other in lists[1:]])
    with_truth, with_before = np.mean(same, axis=0)
    assert with_truth > 0.8 > with_before


def opened_with(world, tmp_path, weight: torch.Tensor, names: list[str], **metadata: str):
    path = save_rows(tmp_path / "readout.safetensors", "weight", weight, names, **metadata)
    return dataclasses.replace(world, files=dataclasses.replace(world.files, readout=path)).opened()


def test_a_readout_over_a_store_of_another_width_is_refused(world, tmp_path):
    with pytest.raises(ModelError, match=r"a readout of 7 values over a store of 24 \(.*manifest.json\)"):
        opened_with(world, tmp_path, torch.randn(9, 7), [f"item {i}" for i in range(9)])


@pytest.mark.parametrize(
    ("names", "metadata", "message"),
    [
        (["a"] * 9, {}, "names: 'a' comes twice"),
        (["a", "b"], {}, "names: a JSON list of 9 texts, one a row of weight"),
        ([f"i{i}" for i in range(9)], {"classes": '["x"]'}, "classes must be a JSON list of 9 texts"),
        ([f"i{i}" for i in range(9)], {"classes": "{"}, "its metadata classes are no JSON"),
        ([f"i{i}" for i in range(9)], {"classes": json.dumps(["x"] * 9)}, "all outputs are of class 'x'"),
    ],
)
def test_a_readout_whose_names_do_not_match_is_refused(world, tmp_path, names, metadata, message):
    with pytest.raises(DataError, match=message):
        opened_with(world, tmp_path, torch.randn(9, USERS.d_model), names, **metadata)


def test_a_list_as_long_as_all_outputs_and_values_that_are_not_finite_are_refused(world, tmp_path):
    names = [f"i{i}" for i in range(9)]
    with pytest.raises(DataError, match=r"weight has values that are not finite"):
        opened_with(world, tmp_path, torch.full((9, USERS.d_model), torch.nan), names)
    with pytest.raises(DataError, match=rf"first: {FIRST}: a list is shorter than the 4 outputs"):
        opened_with(world, tmp_path, torch.randn(4, USERS.d_model), names[:4])


def test_outputs_without_classes_are_each_their_own(world, tmp_path):
    task = opened_with(world, tmp_path, torch.randn(9, USERS.d_model), [f"i{i}" for i in range(9)])
    assert [c["name"] for c in task.classes] == [f"i{i}" for i in range(9)]
    assert task.of_class.tolist() == list(range(9))
