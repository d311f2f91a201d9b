"""Edits in every family of models, against timm's own forward pass in which a hook does the edit by hand.

By hand: codes from the SAE's weights, new codes written over the old ones, both decoded, and the difference added to
the tokens where the hook is. Nothing of `visae.edits` takes part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from families_for_tests import FAMILIES, SAME_SUMS, pictures, small_model
from torch import Tensor

from visae.arms.arms import Unedited, outcomes
from visae.arms.changes import SetLatents, situation
from visae.edits.edit import ActiveValues, Edit, PredictedAs, Site, edited, patch_rows
from visae.sae import SparseAutoencoder
from visae.sae.variants.topk import TopK
from visae.vision.model import HookPoint, VisionModel

K = 8
LARGEST = 3.0
SEEN = torch.tensor([1, 0, 1])
"""What a head predicts on all patches of each of the three pictures."""


@dataclass(frozen=True, eq=False)
class Example:
    """An edit and what it means.

    Attributes
    ----------
    new
        From its latents' codes (b, n_patches, m) to their new values; by default all are 0.
    where
        From the same to the edited patches, bool (b, n_patches); by default all.
    """

    edit: Edit
    new: Callable[[Tensor], Tensor] = torch.zeros_like
    where: Callable[[Tensor], Tensor] = lambda codes: torch.ones(codes.shape[:2], dtype=torch.bool)


class Scene:
    """A model of a family, its tokens of two layers, and an SAE with random weights for each of the two."""

    def __init__(self, name: str) -> None:
        self.model = small_model(name)
        self.images, depth = pictures(self.model, len(SEEN)), self.model.card.depth
        self.early, self.late = depth - 3, depth - 2
        read = self.model.read(self.images, [HookPoint(self.early), HookPoint(self.late)])
        self.tokens = {point.layer: tokens for point, tokens in read.items()}
        self.saes = {layer: random_sae(self.patches(tokens)) for layer, tokens in self.tokens.items()}
        # Of each layer the latent that does most, and another one: silent on most patches, so that it is switched on.
        self.latents = {
            layer: (int(by_hand(sae, self.patches(self.tokens[layer])).sum(dim=(0, 1)).argmax()), 1)
            for layer, sae in self.saes.items()
        }
        observed = {latent: np.array([1, LARGEST], np.float32) for latent in self.latents[self.early]}
        self.sites = {layer: Site(layer, sae, ActiveValues(observed)) for layer, sae in self.saes.items()}
        self.predicted = SEEN[:, None].expand(-1, self.patches(self.tokens[self.early]).shape[1])

    def patches(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.model.card.n_prefix :]

    def found(self, run: list[Example]) -> Tensor:
        """Final tokens by resuming the network after the lowest layer, whose edits are done before."""

        def after(layer: int) -> Callable[[Tensor], Tensor]:
            def change(tokens: Tensor) -> Tensor:
                for example in (example for example in run if example.edit.layer == layer):
                    tokens = edited(tokens, example.edit, self.sites[layer], self.model.card.n_prefix, self.predicted)
                return tokens

            return change

        first, *later = sorted({example.edit.layer for example in run} or {self.early})
        return self.model.resume(after(first)(self.tokens[first]), first, {layer: after(layer) for layer in later})

    def wanted(self, run: list[Example]) -> Tensor:
        """Final tokens of the whole forward pass, with hooks."""

        def after(layer: int) -> Callable[[Tensor], Tensor]:
            def change(tokens: Tensor) -> Tensor:
                for example in (example for example in run if example.edit.layer == layer):
                    tokens = edited_by_hand(tokens, example, self.saes[layer], self.model.card.n_prefix)
                return tokens

            return change

        with ExitStack() as stack:
            for layer in self.saes:
                stack.enter_context(hooked(self.model, layer, after(layer)))
            return self.model(self.images)


SLOW = {"Swin": pytest.mark.slow}  # its windows fix the size of its pictures


@pytest.fixture(scope="module", params=[pytest.param(name, marks=SLOW.get(name, ())) for name in FAMILIES])
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.param)


def random_sae(patches: Tensor) -> SparseAutoencoder:
    """SAE with weights at random in the units of patches (b, n_patches, d_model)."""
    d_model = patches.shape[2]
    sae = SparseAutoencoder(d_model, 3 * d_model, TopK(K))
    generator = torch.Generator().manual_seed(5)
    state = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in sae.state_dict().items()}
    for name in ("encoder_weight", "decoder_weight"):
        state[name] = torch.nn.functional.normalize(state[name])
    sae.load_state_dict(state | {"mean": patches.mean(dim=(0, 1)), "scale": patches.std()})
    return sae.requires_grad_(False)


def by_hand(sae: SparseAutoencoder, patches: Tensor) -> Tensor:
    """Codes (b, n_patches, width): of all scores the K largest, none below 0."""
    scores = (patches - sae.mean) / sae.scale @ sae.encoder_weight.T + sae.encoder_bias
    kept = scores.topk(K, dim=2)
    return torch.zeros_like(scores).scatter(2, kept.indices, kept.values.clamp(min=0))


def edited_by_hand(tokens: Tensor, example: Example, sae: SparseAutoencoder, n_prefix: int) -> Tensor:
    """Tokens whose patches are decoded from new codes, plus what the SAE had not reconstructed of them."""
    patches, latents = tokens[:, n_prefix:], list(example.edit.latents)
    codes = by_hand(sae, patches)
    old, new = codes[..., latents], codes.clone()
    new[..., latents] = torch.where(example.where(old)[..., None], example.new(old), old)
    before, after = (((c @ sae.decoder_weight) + sae.decoder_bias) * sae.scale + sae.mean for c in (codes, new))
    return torch.cat([tokens[:, :n_prefix], after + (patches - before)], dim=1)


@contextmanager
def hooked(model: VisionModel, layer: int, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change what a block gives, or what a stage gives, whose grid may have its channels first or last."""
    name = f"blocks.{layer}" if model.card.family == "blocks" else model.module.feature_info[layer]["module"]
    shape = model.card.layers[layer]

    def hook(_module: object, _inputs: object, output: Tensor) -> Tensor:
        if output.ndim == 3:
            return change(output)
        if output.shape[1:] == (*shape.grid, shape.d_model):
            return change(output.flatten(1, 2)).view_as(output)
        return change(output.flatten(2).mT).mT.reshape(output.shape)

    handle = model.module.get_submodule(name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def examples(scene: Scene) -> dict[str, list[Example]]:
    """Runs of every kind of edit, every kind of place, several latents and two layers."""
    early, late, one, both = scene.early, scene.late, scene.latents[scene.early][:1], scene.latents[scene.early]
    # As long as a token, so that an edit that is lost or done twice shows.
    size = scene.model.card.layers[early].d_model ** 0.5
    amounts = torch.tensor([size, -size / 2])
    picture = scene.tokens[early][0]
    theirs = by_hand(scene.saes[early], scene.patches(picture[None]))[..., list(both)]
    n_patches, later = theirs.shape[1], scene.latents[late]
    mask = torch.arange(n_patches) % 3 == 1
    listed = torch.zeros(n_patches, dtype=torch.bool)
    listed[[0, -1]] = True

    def everywhere(values: Tensor) -> Callable[[Tensor], Tensor]:
        return values.expand_as

    several = Example(Edit(early, both, amount=(size, -size / 2)), everywhere(amounts))
    first = Example(Edit(early, both, "add", size, where=(0, n_patches - 1)), lambda old: old + size, _at(listed))
    added = Example(Edit(late, later, "add", size), lambda old: old + size)
    silenced = Example(Edit(late, later[:1]))
    return {
        "suppress": [Example(Edit(early, one))],
        "set several": [several],
        "set to multiples of the largest": [
            Example(Edit(early, both, amount=-2.0, unit="largest"), everywhere(torch.tensor(-2 * LARGEST)))
        ],
        "scale where active": [
            Example(Edit(early, one, "scale", 9.0, where="active"), lambda old: 9 * old, lambda old: old[..., 0] > 0)
        ],
        "add on chosen patches": [first],
        "insert": [Example(Edit(early, both, "insert", source=picture), everywhere(theirs))],
        "insert the largest on a mask": [
            Example(
                Edit(early, both, "insert_largest", where=mask, source=picture),
                everywhere(theirs.amax(dim=1)),
                _at(mask),
            )
        ],
        "set where a class is predicted": [
            Example(
                Edit(early, both, amount=size, where=PredictedAs(1)), everywhere(torch.tensor(size)), _at(SEEN == 1, 1)
            )
        ],
        "twice at one layer": [several, first],
        "at two layers": [several, added, silenced],
        "at two layers, named from the last": [added, first],
        "at the later layer": [silenced],
        "nothing": [],
    }


def _at(chosen: Tensor, axis: int = 0) -> Callable[[Tensor], Tensor]:
    """Patches that are edited in every picture, or, along axis 1, pictures of which all patches are."""
    return lambda old: chosen.unsqueeze(axis).expand(old.shape[:2])


@torch.inference_mode()
def test_edits_are_what_a_hook_does_by_hand(scene: Scene) -> None:
    plain = scene.model(scene.images)
    for name, run in examples(scene).items():
        wanted = scene.wanted(run)
        scale = wanted.abs().max()
        assert (scene.found(run) - wanted).abs().max() < SAME_SUMS * scale, name
        changed = (wanted - plain).abs().amax(dim=(1, 2)) > 100 * SAME_SUMS * scale
        if name == "nothing":
            assert not changed.any()
        elif name == "set where a class is predicted":
            assert torch.equal(changed, SEEN == 1)
        else:
            assert changed.any(), name


@pytest.mark.parametrize("batch_size", [2, 100])
@torch.inference_mode()
def test_arms_are_what_a_hook_does_by_hand(scene: Scene, batch_size: int) -> None:
    """In one picture and in two, in batches that they share."""
    layer, latents, doses = scene.early, scene.latents[scene.early], (-2.0, 0.5)
    tokens, sae, plain = scene.tokens[layer], scene.saes[layer], scene.model(scene.images)
    for channel in (0, 1):
        patches = scene.predicted == channel
        draws = {"automatic": [SetLatents(latents, (LARGEST, LARGEST))]}
        here = situation(sae, patch_rows(tokens, patches), draws)
        read = scene.model.resumed(layer)
        found = outcomes(Unedited(tokens, patches, read(tokens), here), draws, doses, read=read, batch_size=batch_size)
        by_dose = {outcome.scales: outcome.after for outcome in found}
        for dose in doses:
            value = torch.tensor(dose * LARGEST)
            example = Example(Edit(layer, latents), value.expand_as, _at(SEEN.eq(channel), 1))
            wanted = scene.wanted([example])
            assert (wanted - plain).abs().max() > 100 * SAME_SUMS * wanted.abs().max()
            assert (by_dose[(dose,)] - wanted).abs().max() < SAME_SUMS * wanted.abs().max()
