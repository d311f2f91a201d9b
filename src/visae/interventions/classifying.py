"""A frozen network with a classification probe, and what its selection split says of each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from visae.activations.store import ActivationStore
from visae.heads.probe import Probe
from visae.interventions.arms import ARMS, AUTOMATIC, Change, Draws, Reconstruction
from visae.interventions.dictionaries import Gradients, targets_by_gradient
from visae.interventions.directions import coordinates, random_vectors
from visae.interventions.targets import Activity, Manual, Target, drawn_controls, latent_draws
from visae.sae import SparseAutoencoder
from visae.vision.model import VisionModel

# Pictures of a class on which its gradients are taken, and of all classes on which neurons are compared.
_GRADIENT_IMAGES = 4
_MOST_IMAGES = 4096


class Classifier:
    """Reads class probabilities from tokens of one layer; `columns` is the probe's column of each class id."""

    def __init__(self, model: VisionModel, layer: int, probe: Probe, store: ActivationStore, batch_size: int) -> None:
        self.model, self.layer, self.probe, self.store, self.batch_size = model, layer, probe, store, batch_size
        self.columns = {c["id"]: column for column, c in enumerate(probe.classes)}
        self.device = probe.weight.device

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits (b, n_classes); differentiable in tokens."""
        return self.probe(self.model.resume(tokens, self.layer))

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """Class probabilities (b, n_classes)."""
        return self.logits(tokens).softmax(dim=1)

    def batches(self, image_ids: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Pictures by id, and their tokens (b, n_tokens, d_model)."""
        for start in range(0, len(image_ids), self.batch_size):
            batch = list(image_ids[start : start + self.batch_size])
            tokens = torch.cat([self.store.read(range(i, i + 1), "all") for i in batch])
            yield batch, tokens.to(self.device)

    def gradients(self, labels: Mapping[int, int], seed: int) -> Gradients:
        """Patches of some pictures of each class, and the gradients there of its log odds, by the probe's column.

        Odds, as a logit alone says nothing: the same number added to all changes no prediction.
        """
        drawn: dict[int, list[int]] = {}
        for image_id in np.random.default_rng([seed, 5]).permutation(sorted(labels)).tolist():
            if labels[image_id] in self.columns:
                drawn.setdefault(self.columns[labels[image_id]], []).append(image_id)
        found = {}
        for column, image_ids in sorted(drawn.items()):
            parts = []
            for _, tokens in self.batches(sorted(image_ids[:_GRADIENT_IMAGES])):
                tokens.requires_grad_(True)
                logits = self.logits(tokens)
                others = [other for other in range(logits.shape[1]) if other != column]
                odds = logits[:, column] - logits[:, others].logsumexp(dim=1)
                (slopes,) = torch.autograd.grad(odds.sum(), tokens)
                n_prefix = self.model.card.n_prefix
                parts.append((tokens.detach()[:, n_prefix:].flatten(0, 1), slopes[:, n_prefix:].flatten(0, 1)))
            rows, slopes = (torch.cat(values) for values in zip(*parts, strict=True))
            found[column] = (rows, slopes)
        return found


def classification_draws(
    classifier: Classifier,
    sae: SparseAutoencoder,
    targets: list[Target],
    activity: Activity,
    labels: Mapping[int, int],
    *,
    arms: Sequence[str],
    random_draws: int,
    split: str,
    manual: Manual,
    seed: int,
) -> dict[int, Draws]:
    """Draws of every arm for each class, by class id, in the order of ARMS.

    The automatic latents are chosen by AUC already, so there is no arm `latent_by_auc`.

    Parameters
    ----------
    labels
        Class of each picture of the selection split.
    manual
        Latents named by hand, by class name.
    """
    needs_gradients = {"head_weight", "latent_by_gradient"} & set(arms)
    gradients = classifier.gradients(labels, seed) if needs_gradients else {}
    controls = drawn_controls(targets, activity, random_draws, seed)
    names = {c["id"]: c["name"] for c in classifier.probe.classes}
    by_gradient: dict[int, Target] = {}
    if "latent_by_gradient" in arms:
        most = max((len(target.latents) for target in targets), default=1)
        by_gradient = {t.class_id: t for t in targets_by_gradient(sae, gradients, names, most)}
    pooled = _Pooled(classifier.store, labels, seed) if {"neuron", "class_difference"} & set(arms) else None
    vectors: list[tuple[int, str, Tensor]] = []
    for target in targets:
        class_id = target.class_id
        drawn = random_vectors(random_draws, sae.d_model, seed, class_id)
        vectors += [(class_id, "random_vector", vector) for vector in drawn]
        if pooled is not None and pooled.tells_apart(class_id):
            vectors.append((class_id, "neuron", pooled.neuron(class_id)))
            vectors.append((class_id, "class_difference", pooled.difference(class_id)))
        if classifier.columns[class_id] in gradients:
            vectors.append((class_id, "head_weight", gradients[classifier.columns[class_id]][1].mean(dim=0).cpu()))
    vectors = [vector for vector in vectors if vector[1] in arms]
    along: dict[tuple[int, str], list[Change]] = {}
    if vectors:
        stacked = torch.stack([vector for _, _, vector in vectors])
        for (class_id, arm, _), edit in zip(
            vectors, coordinates(classifier.store, split, stacked, classifier.device), strict=True
        ):
            along.setdefault((class_id, arm), []).append(edit)
    found: dict[int, Draws] = {}
    for target in targets:
        draws: dict[str, Sequence[Change]] = {"reconstruction": [Reconstruction()]}
        draws |= latent_draws(target, controls[target.class_id], activity)
        draws |= {arm: changes for (class_id, arm), changes in along.items() if class_id == target.class_id}
        chosen = by_gradient.get(target.class_id)
        if chosen is not None and set(chosen.latents) <= set(activity.largest):
            draws["latent_by_gradient"] = [activity.edit(chosen.latents)]
        if named := manual.get(target.class_name):
            draws["manual"] = [activity.edit(tuple(named))]
        wanted = {*arms, "manual", AUTOMATIC}
        found[target.class_id] = {arm: draws[arm] for arm in ARMS if arm in draws and arm in wanted}
    return found


class _Pooled:
    """Sum and extremes over the patches of each picture of the selection split, or of so many of them at random."""

    def __init__(self, store: ActivationStore, labels: Mapping[int, int], seed: int) -> None:
        drawn = np.random.default_rng([seed, 4]).permutation(sorted(labels))[:_MOST_IMAGES]
        means, peaks = [], []
        for image_id in sorted(drawn.tolist()):
            patches = store.read(range(image_id, image_id + 1))[0]
            means.append(patches.mean(dim=0))
            peaks.append(torch.cat([patches.amax(dim=0), -patches.amin(dim=0)]))
        self.labels = np.array([labels[image_id] for image_id in sorted(drawn.tolist())])
        self.means = torch.stack(means)
        # Average ranks, (n_images, 2 d_model): a picture's value is its largest, as a latent's is.
        self.ranks: NDArray[np.float64] = rankdata(torch.stack(peaks).numpy(), axis=0)

    def tells_apart(self, class_id: int) -> bool:
        """Whether there are pictures of the class and of others."""
        own = self.labels == class_id
        return bool(own.any() and not own.all())

    def difference(self, class_id: int) -> Tensor:
        """Mean patch of the class minus that of all others, (d_model,)."""
        own = torch.from_numpy(self.labels == class_id)
        return self.means[own].mean(dim=0) - self.means[~own].mean(dim=0)

    def neuron(self, class_id: int) -> Tensor:
        """Unit vector (d_model,) of the dimension, up or down, that tells pictures of the class best."""
        best = int(self.ranks[self.labels == class_id].mean(axis=0).argmax())
        d_model = self.means.shape[1]
        unit = torch.zeros(d_model)
        unit[best % d_model] = 1.0 if best < d_model else -1.0
        return unit
