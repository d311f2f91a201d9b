"""Edits and arms against closed forms."""

import numpy as np
import pytest
import torch

from visae.interventions.arms import ARMS, WITHOUT_SCALE, Latents, outcomes
from visae.interventions.edits import edited, moved, patch_rows, with_rows
from visae.sae import SparseAutoencoder
from visae.sae.relu import Relu
from visae.sae.topk import TopK

D, WIDTH, PREFIX, PATCHES = 12, 40, 2, 9
VARIANTS = [TopK(k=5), Relu()]


@pytest.fixture(params=VARIANTS, ids=lambda v: v.name)
def sae(request):
    torch.manual_seed(0)
    sae = SparseAutoencoder(D, WIDTH, request.param)
    for name, tensor in sae.state_dict().items():
        tensor.copy_(torch.randn_like(tensor) if name != "scale" else torch.tensor(1.7))
    return sae.requires_grad_(False)


@pytest.fixture
def tokens():
    return torch.randn(3, PREFIX + PATCHES, D, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def patches():
    chosen = torch.rand(3, PATCHES, generator=torch.Generator().manual_seed(2)) < 0.5
    chosen[1] = False
    return chosen


def active_latents(sae, tokens):
    """Latents in the order of how often they are active."""
    codes = sae.encode(tokens[:, PREFIX:].flatten(0, 1))
    return (codes > 0).sum(dim=0).argsort(descending=True)


def test_an_edit_moves_along_the_direction_by_the_change_of_the_code(sae, tokens, patches):
    latents = active_latents(sae, tokens)[:2].tolist()
    result = edited(tokens, sae, latents, [4.0, -1.5], patches)
    for picture in range(3):
        for patch in range(PATCHES):
            x = tokens[picture, PREFIX + patch]
            code = sae.encode(x[None])[0]
            expected = x
            if patches[picture, patch]:
                for latent, new in zip(latents, (4.0, -1.5), strict=True):
                    step = sae.decoder_weight[latent] * sae.scale
                    expected = expected + (new - code[latent]) * step
            torch.testing.assert_close(result[picture, PREFIX + patch], expected, atol=1e-5, rtol=1e-5)


def test_only_chosen_patches_change_and_never_prefix_tokens(sae, tokens, patches):
    result = edited(tokens, sae, [int(active_latents(sae, tokens)[0])], [5.0], patches)
    same = (result == tokens).all(dim=2)
    assert same[:, :PREFIX].all()
    assert torch.equal(~same[:, PREFIX:], patches)
    assert not torch.equal(result, tokens)


def test_an_edit_leaves_the_input_alone(sae, tokens, patches):
    kept = tokens.clone()
    edited(tokens, sae, [0], [9.0], patches)
    assert torch.equal(kept, tokens)


def test_setting_a_latent_to_what_it_is_keeps_every_bit(sae, tokens, patches):
    codes = sae.encode(tokens[:, PREFIX:].flatten(0, 1))
    silent = int((codes > 0).sum(dim=0).argmin())
    assert (codes[:, silent] == 0).any()
    tokens[0, PREFIX:, 0] = -0.0  # adding +0.0 would turn it
    off = (sae.latent_values(tokens[:, PREFIX:].flatten(0, 1), [silent])[:, 0] == 0).view(3, PATCHES)
    assert off[0].any()
    result = edited(tokens, sae, [silent], [0.0], off)
    assert torch.equal(result.view(torch.int32), tokens.view(torch.int32))


def test_what_the_sae_does_not_reconstruct_stays(sae, tokens, patches):
    latent = int(active_latents(sae, tokens)[0])
    rows = patch_rows(tokens, patches)
    codes = sae.encode(rows)
    error = rows - sae.decode(codes)
    set_codes = codes.clone()
    set_codes[:, latent] = 2.5
    result = patch_rows(edited(tokens, sae, [latent], [2.5], patches), patches)
    torch.testing.assert_close(result - sae.decode(set_codes), error, atol=1e-4, rtol=1e-4)


def test_rows_go_back_where_they_came_from(tokens, patches):
    rows = patch_rows(tokens, patches)
    assert len(rows) == int(patches.sum())
    assert torch.equal(with_rows(tokens, patches, rows), tokens)
    assert torch.equal(patch_rows(with_rows(tokens, patches, rows + 1), patches), rows + 1)
    assert torch.equal(moved(rows, torch.zeros_like(rows)), rows)


def situation(sae, tokens, patches, draws=3):
    latents = active_latents(sae, tokens)[: 1 + draws].tolist()
    vectors = torch.nn.functional.normalize(torch.randn(draws, D, generator=torch.Generator().manual_seed(3)))
    largest = sae.encode(tokens[:, PREFIX:].flatten(0, 1)).amax(dim=0)[latents]
    return Latents(latents, largest, vectors).situation(sae, patch_rows(tokens, patches))


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("scale", [-2.0, 0.0, 1.0])
def test_every_arm_gives_finite_rows_of_the_same_shape(sae, tokens, patches, arm, scale):
    here = situation(sae, tokens, patches)
    draws = ARMS[arm](here, scale)
    assert len(draws) == (3 if arm.startswith("random") else 1)
    for rows in draws:
        assert rows.shape == here.rows.shape
        assert rows.isfinite().all()
    if arm in WITHOUT_SCALE:
        assert torch.equal(draws[0], ARMS[arm](here, scale + 1)[0])
    if arm == "none":
        assert torch.equal(draws[0], here.rows)


@pytest.mark.parametrize("scale", [-2.0, 0.0, 1.0])
def test_a_random_vector_is_as_long_as_the_automatic_change_on_each_patch(sae, tokens, patches, scale):
    here = situation(sae, tokens, patches)
    wanted = (ARMS["automatic"](here, scale)[0] - here.rows).norm(dim=1)
    assert wanted.max() > 0
    for rows in ARMS["random_vector"](here, scale):
        torch.testing.assert_close((rows - here.rows).norm(dim=1), wanted, atol=1e-4, rtol=1e-4)
        changes = torch.nn.functional.normalize(rows - here.rows)[wanted > 1e-3]
        torch.testing.assert_close(changes @ changes[0], torch.ones(len(changes)), atol=1e-3, rtol=1e-3)


def test_latent_arms_are_edits_to_multiples_of_their_own_largest(sae, tokens, patches):
    here = situation(sae, tokens, patches)
    latents = active_latents(sae, tokens)[:4].tolist()
    for arm, which in (("automatic", [0]), ("random_latent", [1, 2, 3])):
        for draw, rows in zip(which, ARMS[arm](here, -2.0), strict=True):
            new = -2.0 * float(here.largest[draw])
            expected = patch_rows(edited(tokens, sae, [latents[draw]], [new], patches), patches)
            torch.testing.assert_close(rows, expected)


def test_the_reconstruction_arm_is_the_saes_forward_pass(sae, tokens, patches):
    here = situation(sae, tokens, patches)
    torch.testing.assert_close(ARMS["reconstruction"](here, 0.0)[0], sae(here.rows), atol=1e-4, rtol=1e-4)


def test_outcomes_cover_every_arm_scale_and_draw(sae, tokens, patches):
    read = torch.Tensor.sum
    scales = (-2.0, 0.0)

    def by_picture(t):
        return read(t, dim=(1, 2))

    found = list(
        outcomes(tokens, patches, situation(sae, tokens, patches), scales, before=by_picture(tokens), read=by_picture)
    )
    seen = {(o.arm, scale, o.draw) for o in found for scale in o.scales}
    draws = {arm: 3 if arm.startswith("random") else 1 for arm in ARMS}
    assert seen == {(arm, scale, draw) for arm in ARMS for scale in scales for draw in range(draws[arm])}
    assert all(o.draws == draws[o.arm] for o in found)
    for o in found:
        assert o.after[1] == by_picture(tokens)[1]  # nothing is edited in the second picture
    none = next(o for o in found if o.arm == "none")
    assert torch.equal(none.after, by_picture(tokens))
    strong = next(o for o in found if o.arm == "automatic" and o.scales == (-2.0,))
    assert strong.after[0] != by_picture(tokens)[0]


def test_pictures_that_an_edit_leaves_alone_are_not_run_again(sae, tokens, patches):
    run = []

    def read(t):
        run.append(len(t))
        return t.sum(dim=(1, 2))

    list(outcomes(tokens, patches, situation(sae, tokens, patches), (1.0,), before=tokens.sum(dim=(1, 2)), read=read))
    assert run[0] == 3  # `none` is run in full
    assert max(run[1:]) == 2
    np.testing.assert_array_equal(patches.any(dim=1).numpy(), [True, False, True])
