"""The test against untrained dictionaries treats the tested one as all others, so it calls no more than it may."""

import numpy as np
import pytest
import torch

from visae.activations.given import write_store
from visae.activations.store import ActivationStore
from visae.arms.changes import AddVector
from visae.arms.dictionaries import untrained_dictionaries
from visae.arms.of_patches import PatchSelection
from visae.arms.targets import Activity
from visae.config.settings import InterventionSettings, ModelSettings
from visae.experiments.runner import Runner
from visae.experiments.untrained import dictionaries_compared, directions_of, rank_tests
from visae.features.concepts import Labels
from visae.heads.segmentation_head import SegmentationHead
from visae.sae import SparseAutoencoder
from visae.sae.variants.topk import TopK
from visae.tasks.counts import Target
from visae.tasks.segmentation import Segmentation
from visae.vision.model import load_model, prepare_model

N_CLASSES, N_FIT, N_MEASURED, PATCHES, WIDTH, LAYER, K = 4, 16, 8, 16, 32, 4, 4


class World:
    """Patches of four classes, each around a mean of its own, under a ViT and a head with weights at random."""

    def __init__(self, folder):
        settings = ModelSettings(architecture="test_vit", weights="random", image_size=64)
        card = prepare_model(settings, folder / "weights.safetensors", folder / "model.json")
        d_model, random = card.layers[0].d_model, np.random.default_rng(3)
        classes = random.integers(N_CLASSES, size=(N_FIT + N_MEASURED, PATCHES))
        means = random.normal(size=(N_CLASSES, d_model))
        tokens = random.normal(size=(N_FIT + N_MEASURED, 1 + PATCHES, d_model))
        tokens[:, 1:] += means[classes]
        splits = {"train": N_FIT, "val": N_MEASURED}
        store = ActivationStore.open(write_store(folder, tokens.astype(np.float32), card.tokens(0), splits))
        model = load_model(folder / "model.json")
        # A head that reads the class means as the network passes them on.
        with torch.inference_mode():
            passed = model.resume(store.read(range(N_FIT), "all"), LAYER)[:, 1:]
        weight = torch.stack([passed[torch.from_numpy(classes[:N_FIT] == c)].mean(dim=0) for c in range(N_CLASSES)])
        centred = weight - weight.mean(dim=0)
        head = SegmentationHead(centred, -(centred @ weight.mean(dim=0)), 1, card.grid)
        head.classes = [{"id": c + 1, "name": f"class {c + 1}"} for c in range(N_CLASSES)]
        truth = {i: torch.from_numpy(row.astype(np.int16)) for i, row in enumerate(classes)}
        self.task = Segmentation(model.resumed(LAYER), head.requires_grad_(False), store, truth, batch_size=64)
        self.task.look(range(N_FIT, N_FIT + N_MEASURED))
        self.base = SparseAutoencoder(d_model, WIDTH, TopK(K)).requires_grad_(False)
        settings = InterventionSettings(images=4, sample=4, choose_by="f1", latents_per_class=1)
        self.runner = Runner(self.task, self.base, settings, 0)
        labels = Labels(range(N_FIT), classes[:N_FIT], N_CLASSES)
        self.selection = PatchSelection(settings, self.task, self.base, "", Activity({}, {}), "train", 0, labels=labels)
        self.counts = [
            self.runner.pictures(Target(c, name, (0,), 0.0), "suppress") for c, name in self.task.names.items()
        ]
        self.means = means

    def directions(self, n, seed):
        """Chosen directions of n untrained dictionaries."""
        found = untrained_dictionaries(self.base, K, n, seed)
        return [directions_of(self.selection, dictionary) for dictionary in found]

    def tested(self, directions, scale=-4.0):
        # Strong enough for random directions to matter, too weak for all of them to take the class away.
        return dictionaries_compared(self.runner, self.selection, self.counts, directions, scale)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def test_the_head_sees_the_classes(world):
    truth = world.task.truth(world.task.measured)
    assert (world.task.seen == truth).mean() > 0.8


def test_a_dictionary_is_as_selective_tested_as_among_the_others(world):
    """What makes the rank exact: the tested dictionary and the untrained ones can change places."""
    directions = world.directions(4, seed=1)
    forward = world.tested(directions)
    backward = world.tested(directions[::-1])
    assert len(forward) == N_CLASSES
    for class_id, values in forward.items():
        np.testing.assert_allclose(values, backward[class_id][::-1])
        assert len(np.unique(values)) > 1


def test_untrained_dictionaries_are_called_no_more_often_than_the_rate_says(world):
    """Of many untrained dictionaries that are tested against others, at most the nominal share of classes is called."""
    n_null, n_tests = 9, 12
    p = []
    for number in range(n_tests):
        p += [found["p_untrained"] for found in rank_tests(world.tested(world.directions(1 + n_null, number))).values()]
    assert len(p) == n_tests * N_CLASSES
    for rate in (0.1, 0.2, 0.5):
        called = np.mean(np.array(p) <= rate)
        # Three standard errors of a binomial share, as if the classes of one dictionary were independent.
        assert called <= rate + 3 * np.sqrt(rate * (1 - rate) / len(p)), (rate, called)


def test_latents_along_the_class_means_are_called(world):
    trained = {
        class_id: AddVector(
            torch.nn.functional.normalize(
                torch.from_numpy(m).float() - torch.from_numpy(world.means.mean(axis=0)).float(), dim=0
            )
        )
        for class_id, m in zip(world.task.names, world.means, strict=True)
    }
    found = rank_tests(world.tested([trained, *world.directions(9, seed=5)], scale=-2.0))
    assert np.mean([test["p_untrained"] == 0.1 for test in found.values()]) >= 0.75


def test_a_dictionary_without_a_latent_for_a_class_comes_last(world):
    directions = world.directions(3, seed=2)
    found = world.tested([directions[0], {}, directions[2]])
    assert all(values[1] == -np.inf for values in found.values())
    assert world.tested([{}, *directions]) == {}
