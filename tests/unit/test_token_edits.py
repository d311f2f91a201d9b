"""Edits of class tokens and of all tokens, under every normalization: closed forms, and an experiment with a truth."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from planted_for_tests import LAST, MIDDLE, N_CLASSES, N_FIT, N_MEASURE, PATCHES, SETTINGS, files_of, make_planted

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.arms.changes import Reconstruction, SetLatents, situation
from visae.arms.dictionaries import mean_input, neurons, targets_by_gradient, untrained_dictionaries
from visae.config.settings import FaithfulnessSettings, FigureSettings, ModelSettings
from visae.config.tasks import TASKS, TaskKind
from visae.edits.edit import ActiveValues, Edit, PredictedAs, Site, edited, patch_rows
from visae.errors import DataError, ModelError
from visae.experiments.experiment import run_experiment
from visae.experiments.faithfulness import measure_faithfulness
from visae.features.encoding import encode_store
from visae.figures import doses as figure_of_doses
from visae.figures import faithfulness as figure_of_faithfulness
from visae.figures import probabilities
from visae.heads.probe import image_labels
from visae.heads.tokens import open_store
from visae.sae import Place, SparseAutoencoder, load_sae, save_sae
from visae.sae.place import among_last
from visae.sae.variants.relu import Relu
from visae.tasks.pictures import PictureTask
from visae.vision.model import load_model, prepare_model

D, WIDTH, PREFIX, N_PATCHES = 12, 40, 2, 9
KINDS = ("none", "scale", "per_dimension", "per_token")
OWN = {"patches": slice(PREFIX, None), "class": slice(0, 1), "all": slice(None)}
LATENTS = (7, 0, 21)


def random_sae(tokens, normalization):
    generator = torch.Generator().manual_seed(7)
    sae = SparseAutoencoder(D, WIDTH, Relu(), normalization=normalization)
    for name, tensor in sae.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(tensor if name == "eps" else drawn.abs() + 0.5 if name == "scale" else drawn)
    sae.place = Place(tokens=tokens)
    return sae.requires_grad_(False)


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(1)
    sizes = torch.rand(3, PREFIX + N_PATCHES, 1, generator=generator) * 9 + 0.5
    return torch.randn(3, PREFIX + N_PATCHES, D, generator=generator) * sizes + 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize(("how", "amount"), [("set", -3.0), ("add", 2.0), ("scale", 0.5)])
def test_an_edit_moves_own_tokens_by_finite_differences_of_the_decoder(own, kind, how, amount, tokens):
    sae = random_sae(own, kind)
    found = edited(tokens, Edit(4, LATENTS, how=how, amount=amount), Site(4, sae), PREFIX)
    rows = tokens[:, OWN[own]]
    codes = sae.encode(rows)
    changed = codes.clone()
    old = codes[..., list(LATENTS)]
    changed[..., list(LATENTS)] = {"set": torch.full_like(old, amount), "add": old + amount, "scale": old * amount}[how]
    wanted = tokens.clone()
    wanted[:, OWN[own]] += sae.decode(changed, like=rows) - sae.decode(codes, like=rows)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-3)
    others = [place for place in range(tokens.shape[1]) if place not in range(*OWN[own].indices(tokens.shape[1]))]
    assert torch.equal(found[:, others], tokens[:, others])


def test_under_per_token_the_change_is_deviation_times_code_times_row(tokens):
    sae = random_sae("class", "per_token")
    found = edited(tokens, Edit(4, (7,), how="add", amount=2.5), Site(4, sae), PREFIX)
    x = tokens[:, 0].double()
    deviation = ((x - x.mean(1, keepdim=True)).square().sum(1, keepdim=True) / (D - 1)).sqrt() + 1e-5
    wanted = x + deviation * 2.5 * sae.decoder_weight[7].double()
    torch.testing.assert_close(found[:, 0].double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own", OWN)
def test_active_means_own_tokens_that_are_active(own, tokens):
    sae = random_sae(own, "per_token")
    found = edited(tokens, Edit(4, (7,), how="add", amount=1.0, where="active"), Site(4, sae), PREFIX)
    active = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    active[:, OWN[own]] = sae.encode(tokens[:, OWN[own]])[..., 7] > 0
    assert torch.equal((found != tokens).any(dim=2), active)


def test_places_on_the_grid_are_of_patches(tokens):
    mask = torch.rand(N_PATCHES, generator=torch.Generator().manual_seed(3)) < 0.5
    predicted = torch.arange(3)[:, None].expand(3, N_PATCHES)
    for where in (mask, (0, 4), PredictedAs(1)):
        edit = Edit(4, (7,), how="add", amount=1.0, where=where)
        patches, both = (
            edited(tokens, edit, Site(4, random_sae(own, "per_token")), PREFIX, predicted) for own in ("patches", "all")
        )
        assert torch.equal(patches, both)
        with pytest.raises(DataError, match="is of class tokens, which lie on no patch; write all, or active"):
            edited(tokens, edit, Site(4, random_sae("class", "per_token")), PREFIX, predicted)


def test_an_unknown_place_and_a_model_without_class_token_are_refused(tokens):
    with pytest.raises(DataError, match="where: 'everywhere'; allowed: all, active"):
        edited(tokens, Edit(4, (7,), where="everywhere"), Site(4, random_sae("all", "none")), PREFIX)
    with pytest.raises(DataError, match="an SAE of class tokens, and a model without one"):
        edited(tokens, Edit(4, (7,)), Site(4, random_sae("class", "none")), 0)


@pytest.mark.parametrize("own", OWN)
def test_insertion_takes_the_value_at_the_same_token_of_another_picture(own, tokens):
    sae = random_sae(own, "per_token")
    source = tokens[2]
    values = sae.encode(source[OWN[own]])[..., [7]]
    rows = tokens[:, OWN[own]]
    old = sae.encode(rows)[..., [7]]
    for how, new in (("insert", values), ("insert_largest", values.amax(0, keepdim=True))):
        found = edited(tokens, Edit(4, (7,), how=how, source=source), Site(4, sae), PREFIX)
        wanted = rows + sae.change(new - old, [7], like=rows)
        torch.testing.assert_close(found[:, OWN[own]], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_arms_are_in_raw_units_of_their_tokens(kind, tokens):
    sae = random_sae("class", kind)
    mask = among_last(torch.ones(3, 1, dtype=torch.bool), "class", tokens.shape[1])
    rows = patch_rows(tokens, mask)
    assert torch.equal(rows, tokens[:, 0])
    draws = {"automatic": [SetLatents(LATENTS, (2.0, 3.0, 4.0))], "reconstruction": [Reconstruction()]}
    here = situation(sae, rows, draws)
    edit = Edit(4, LATENTS, amount=-2.0, unit="largest")
    observed = ActiveValues({latent: np.array([size]) for latent, size in zip(LATENTS, (2.0, 3.0, 4.0), strict=True)})
    found = edited(tokens, edit, Site(4, sae, observed), PREFIX)[:, 0]
    torch.testing.assert_close(rows + draws["automatic"][0](here, -2.0), found, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(rows + draws["reconstruction"][0](here, -2.0), sae(rows), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_attributions_are_gradients_in_codes(kind, tokens):
    """Of the decoder with the token's own units held fixed, as an edit holds them."""
    sae, rows = random_sae("class", kind), tokens[:, 0]
    slopes = torch.randn(3, D, generator=torch.Generator().manual_seed(4))
    codes = sae.encode(rows).requires_grad_(True)
    (found,) = torch.autograd.grad((sae.decode(codes, like=rows) * slopes).sum(), codes)
    torch.testing.assert_close(sae.along(slopes, like=rows), found, rtol=1e-4, atol=1e-4)
    target = targets_by_gradient(sae, {0: (rows, slopes)}, {3: "brick"}, 2)[0]
    attributed = (codes.detach() * found).mean(0)
    assert target.class_id == 3
    assert list(target.latents) == attributed.topk(2).indices.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_dictionaries_without_training_are_centred_as_the_data_are(kind, tokens):
    """A random direction is then above its mean on about half of the tokens, whatever the normalization."""
    sae = random_sae("patches", kind)
    rows = torch.randn(4000, D, generator=torch.Generator().manual_seed(5)) + torch.linspace(0, 6, D)
    if sae.centres:
        sae.mean.copy_(rows.mean(0))
    middle = mean_input(sae, rows)
    torch.testing.assert_close(middle, sae.unclamped(rows).mean(0) if not sae.centres else torch.zeros(D))
    for dictionary in (neurons(sae, 2 * D, middle), next(untrained_dictionaries(sae, WIDTH, 1, 0, middle))):
        assert (dictionary.normalization, dictionary.place) == (kind, sae.place)
        share = (dictionary.encode(rows) > 0).float().mean(0)
        assert 0.4 < float(share.min()) <= float(share.max()) < 0.6


def test_a_model_without_a_class_token_takes_no_sae_of_class_tokens(tmp_path):
    settings = ModelSettings(architecture="test_resnet", weights="random", image_size=64)
    prepare_model(settings, tmp_path / "weights.safetensors", tmp_path / "model.json")
    model = load_model(tmp_path / "model.json", torch.device("cpu"))
    with pytest.raises(ModelError, match=r"tokens: class: test_resnet\S* has no \[CLS\] token"):
        model.card.token_slice("class")


class ByClassToken(PictureTask):
    """How far the final class token lies along each class's vector."""

    name = "by_class_token"

    @classmethod
    def open(cls, files, model, layer, batch_size=32):
        store, labels = open_store(files.manifest, model.card, layer), image_labels(files.index)
        classes = [{"id": number + 1, "name": f"class {number + 1}"} for number in range(N_CLASSES)]
        task = cls(model.resumed(layer), store, model.card.n_prefix, model.card.grid, classes, (), labels, batch_size)
        task.vectors = torch.tensor(json.loads(Path(files.readout).read_text()))
        return task

    def answers(self, final):
        return 20 * torch.nn.functional.normalize(final[:, 0], dim=1) @ self.vectors.T


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Class tokens that carry one direction a class, which is latent 10 + c of an SAE of class tokens, per token."""
    folder = tmp_path_factory.mktemp("planted")
    base = make_planted(folder)
    rng = np.random.default_rng(8)
    first = load_sae(base.sae_config)
    directions = first.decoder_weight.numpy()
    n, d = N_FIT + N_MEASURE, directions.shape[1]
    classes = base.labels - 1
    rows = rng.normal(size=(n, 1 + PATCHES, d)) * 0.5
    rows[:, 0] = rng.uniform(4, 6, (n, 1)) * directions[10 + classes] + 0.2 * rng.normal(size=(n, d))
    for latent in range(10):
        rows[:, 0] += np.where(rng.random((n, 1)) < 0.3, rng.uniform(1, 2, (n, 1)), 0) * directions[latent]
    # Each picture's class token has a size and a mean of its own, which no code may depend on.
    rows[:, 0] = rows[:, 0] * rng.uniform(0.5, 4, (n, 1)) + rng.uniform(-3, 3, (n, 1))
    card = load_model(folder / "model.json", torch.device("cpu")).card
    splits = {"train": N_FIT, "val": N_MEASURE}
    manifest = write_store(folder / "class", rows.astype(np.float32), card.tokens(0), splits, layer=LAST)
    sae = SparseAutoencoder(d, len(directions), Relu(), normalization="per_token")
    sae.weights.encoder.copy_(first.weights.encoder)
    sae.weights.decoder.copy_(first.weights.decoder)
    sae.weights.encoder_bias.fill_(-0.5)
    sae.place = Place(tokens="class")
    config = save_sae(sae, folder / "class-sae")
    encode_store(manifest, config, folder / "class-codes", "cpu")
    (folder / "vectors.json").write_text(json.dumps(directions[10 : 10 + N_CLASSES].tolist()))
    files = files_of(base, "classification", MIDDLE)
    return replace(
        files,
        manifest=str(manifest),
        sae=str(config),
        codes=str(folder / "class-codes/manifest.json"),
        readout=str(folder / "vectors.json"),
    )


@pytest.fixture(scope="module", autouse=True)
def by_class_token():
    with pytest.MonkeyPatch.context() as patch:
        kind = TaskKind("test_token_edits:ByClassToken", "picture", "own pictures", "other classes' pictures")
        patch.setitem(TASKS, "by_class_token", kind)
        yield


@pytest.mark.parametrize("choose_by", ["f1", "gradient"])
def test_suppressing_the_planted_latents_of_class_tokens_takes_the_class(planted, choose_by, tmp_path):
    settings = replace(SETTINGS, choose_by=choose_by)
    summary = run_experiment("by_class_token", planted, settings, LAST, tmp_path, device="cpu")
    assert [entry["latents"] for entry in summary["classes"]] == [[10], [11], [12]]
    table = pl.read_parquet(tmp_path / "arms.parquet").filter(edit="suppress", scale=-2.0)
    for class_id in (1, 2, 3):
        own = table.filter(arm="automatic", class_id=class_id).row(0, named=True)
        assert own["probability_before"] > 0.8
        assert own["target_change"] == 1
        assert own["other_change"] == 0
        control = table.filter(arm="random_latent", size="natural", class_id=class_id)["target_change"]
        assert control.max() < 0.5
    nothing = table.filter(arm="none", class_name="mean").row(0, named=True)
    assert nothing["target_change"] == 0
    edited_tokens = pl.read_parquet(tmp_path / "examples.parquet")["edited"].explode().drop_nulls()
    assert set(edited_tokens) == {-1}
    inserted = pl.read_parquet(tmp_path / "arms.parquet").filter(edit="insert", arm="automatic", class_name="mean")
    assert inserted["target_change"].item() > 0.9
    doses = pl.read_parquet(tmp_path / "doses.parquet").filter(arm="automatic", unit="largest")
    assert doses["natural_norm_share"].is_between(0, 1).all()
    assert all(test["p_untrained"] < 0.2 for test in summary["classes"])
    assert summary["tokens"] == "class"
    said = drawn_texts(probabilities, pl.read_parquet(tmp_path / "arms.parquet"))
    assert any("Own pictures, active class tokens" in text for text in said)
    assert any("Other pictures, class token" in text for text in said)
    assert not any("patch" in text or "quarter" in text for text in said)
    said = drawn_texts(figure_of_doses, pl.read_parquet(tmp_path / "doses.parquet"), "classification")
    assert "Edited class tokens of natural norm" in said


def drawn_texts(figure, table, *more):
    found = figure.draw(figure.data(table), FigureSettings(), *more)
    return [axes.get_title(loc="left") for axes in found.axes]


def test_faithfulness_replaces_class_tokens_alone(planted, tmp_path):
    settings = FaithfulnessSettings(bootstrap=20)
    found = measure_faithfulness({"by_class_token": planted}, planted.sae, settings, LAST, tmp_path, device="cpu")
    measures = found["measures"]["by_class_token_accuracy"]
    assert measures["as_is"]["value"] == 1
    assert measures["reconstruction"]["value"] == 1
    assert measures["mean"]["value"] < 1
    table = figure_of_faithfulness.data(pl.read_parquet(tmp_path / "faithfulness.parquet"))
    labels = figure_of_faithfulness.draw(table, FigureSettings()).axes[0].get_yticklabels()
    assert "Mean class token" in [label.get_text() for label in labels]
    # The readout reads class tokens: replacing patches would have changed nothing in the last block.
    store = ActivationStore.open(planted.manifest)
    assert store.n_tokens("class") == 1


@pytest.mark.parametrize(("layer", "finds_some"), [(MIDDLE, True), (LAST, False)])
def test_on_classes_of_patches_class_tokens_are_chosen_by_what_they_do(planted, layer, finds_some, tmp_path):
    """After the last block no patch hears of the class token, so no latent of it is found for any class."""
    folder = Path(planted.index).parent
    names = {"scores": "", "readout": str(folder / "head/metrics.json"), "labels": str(folder / "patch_labels.parquet")}
    rows = ActivationStore.open(planted.manifest).read(range(N_FIT + N_MEASURE), "all")
    patches = ActivationStore.open(folder / f"store{layer}/manifest.json").read(range(N_FIT + N_MEASURE), "all")
    both = torch.cat([rows[:, :1], patches[:, 1:]], 1).numpy()
    tokens = [-1, *range(PATCHES)]
    manifest = write_store(tmp_path / "store", both, tokens, {"train": N_FIT, "val": N_MEASURE}, layer=layer)
    files = replace(planted, manifest=str(manifest), **names)
    summary = run_experiment("segmentation", files, SETTINGS, layer, tmp_path, device="cpu")
    assert bool(summary["classes"]) == finds_some
    assert {entry["chosen_by"] for entry in summary["classes"]} <= {"gradient"}
    table, examples = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("arms", "examples"))
    assert bool(table.height) == finds_some
    assert set(examples["edited"].explode().drop_nulls()) <= {-1}
    if finds_some:
        assert (table.filter(arm="none")["target_change"] == 0).all()
