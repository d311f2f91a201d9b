"""Edits and arms against closed forms."""

import numpy as np
import pytest
import torch

from visae.arms.arms import WITHOUT_SCALE, Unedited, outcomes
from visae.arms.changes import Reconstruction, SetCoordinate, SetLatents, situation
from visae.edits.edit import ActiveValues, Edit, PredictedAs, Site, edited, moved, of_length, patch_rows, with_rows
from visae.errors import DataError
from visae.sae import SparseAutoencoder
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

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


def codes_of(sae, tokens):
    """Dense codes (b, n_patches, width)."""
    return sae.encode(tokens[:, PREFIX:].flatten(0, 1)).view(*tokens[:, PREFIX:].shape[:2], -1)


def expected(sae, tokens, latents, new):
    """Tokens whose patches have new codes (b, n_patches, m) of some latents, by the closed form."""
    result = tokens.clone()
    change = new - codes_of(sae, tokens)[..., latents]
    result[:, PREFIX:] += torch.einsum("bpm,md->bpd", change, sae.decoder_weight[latents] * sae.scale)
    return result


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_setting_adding_and_scaling_follow_the_closed_form(sae, tokens):
    latents = active_latents(sae, tokens)[:2].tolist()
    codes, site = codes_of(sae, tokens)[..., latents], Site(7, sae)
    amounts = torch.tensor([4.0, -1.5])

    def after(**how):
        return edited(tokens, Edit(7, tuple(latents), **how), site, PREFIX)

    close(after(amount=(4.0, -1.5)), expected(sae, tokens, latents, amounts.expand_as(codes)))
    close(after(how="add", amount=(4.0, -1.5)), expected(sae, tokens, latents, codes + amounts))
    close(after(how="scale", amount=(4.0, -1.5)), expected(sae, tokens, latents, codes * amounts))
    close(after(how="scale", amount=3.0), expected(sae, tokens, latents, codes * 3))
    close(after(), expected(sae, tokens, latents, torch.zeros_like(codes)))


def test_units_are_what_latents_do_on_the_selection_split(sae, tokens):
    latents = tuple(active_latents(sae, tokens)[:2].tolist())
    values = {latents[0]: np.array([1, 2, 3, 4], np.float32), latents[1]: np.array([5, 7], np.float32)}
    site = Site(0, sae, ActiveValues(values))
    for unit, amount, plain in (("largest", -2.0, (-8.0, -14.0)), ("quantile", 0.5, (2.5, 6.0))):
        for how in ("set", "add"):
            found = edited(tokens, Edit(0, latents, how, amount, unit), site, PREFIX)
            close(found, edited(tokens, Edit(0, latents, how, plain), site, PREFIX))


def test_inserting_takes_the_values_of_another_picture(sae, tokens):
    latents = active_latents(sae, tokens)[:2].tolist()
    site, source = Site(0, sae), tokens[2]
    theirs = codes_of(sae, tokens)[2][:, latents]
    same_place = edited(tokens[:2], Edit(0, tuple(latents), "insert", source=source), site, PREFIX)
    close(same_place, expected(sae, tokens[:2], latents, theirs.expand(2, -1, -1)))
    largest = edited(tokens[:2], Edit(0, tuple(latents), "insert_largest", source=source), site, PREFIX)
    close(largest, expected(sae, tokens[:2], latents, theirs.amax(dim=0).expand(2, PATCHES, -1)))
    # On some patches only, values still come from the same places.
    some = edited(tokens[:2], Edit(0, tuple(latents), "insert", where=(1, 4), source=source), site, PREFIX)
    close(some[:, [PREFIX + 1, PREFIX + 4]], same_place[:, [PREFIX + 1, PREFIX + 4]])


def test_only_chosen_patches_change_and_never_prefix_tokens(sae, tokens, patches):
    latent = int(active_latents(sae, tokens)[0])
    active = codes_of(sae, tokens)[..., latent] > 0
    everywhere = torch.ones_like(patches)
    grid = patches[0].view(3, 3)
    listed = torch.zeros_like(patches)
    listed[:, [0, 5]] = True
    for where, chosen in (
        ("all", everywhere),
        ("active", active),
        ((0, 5), listed),
        (grid, patches[:1].expand_as(patches)),
        (PredictedAs(4), patches),
    ):
        edit = Edit(0, (latent,), amount=50.0, where=where)
        result = edited(tokens, edit, Site(0, sae), PREFIX, torch.where(patches, 4, 2))
        same = (result == tokens).all(dim=2)
        assert same[:, :PREFIX].all()
        assert torch.equal(~same[:, PREFIX:], chosen)
    assert active.any()
    assert not active.all()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(0, (WIDTH,)), "latents 0 to 39"),
        (Edit(0, ()), "latents 0 to 39"),
        (Edit(0, (0,), where=(9,)), "patches 0 to 8"),
        (Edit(0, (0,), where=torch.ones(4, 4, dtype=torch.bool)), "a mask of torch.bool"),
        (Edit(0, (0,), where=torch.ones(3, 3)), "a mask of torch.float32"),
        (Edit(0, (0,), where=PredictedAs(1)), "head's predictions"),
        (Edit(0, (0,), "insert"), "give as source"),
        (Edit(0, (0,), "insert", source=torch.zeros(3, D)), "give as source"),
        (Edit(0, (0, 1), amount=(1.0, 2.0, 3.0)), "3 numbers for 2 latents"),
        (Edit(0, (0,), amount=2.0, unit="largest"), "latent 0 is never active on the selection split"),
        (Edit(0, (0,), amount=0.5, unit="quantile"), "latent 0 is never active on the selection split"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(sae, tokens, edit, message):
    with pytest.raises(DataError, match=message):
        edited(tokens, edit, Site(0, sae, ActiveValues({0: np.array([], np.float32)})), PREFIX)


def test_an_edit_leaves_the_input_alone(sae, tokens):
    kept = tokens.clone()
    edited(tokens, Edit(0, (0,), amount=9.0), Site(0, sae), PREFIX)
    assert torch.equal(kept, tokens)


def test_setting_a_latent_to_what_it_is_keeps_every_bit(sae, tokens):
    codes = codes_of(sae, tokens)
    silent = int((codes > 0).sum(dim=(0, 1)).argmin())
    tokens[0, PREFIX:, 0] = -0.0  # adding +0.0 would turn it
    off = codes_of(sae, tokens)[..., silent] == 0
    assert off[0].any()
    result = edited(tokens, Edit(0, (silent,), where=PredictedAs(1)), Site(0, sae), PREFIX, off.long())
    assert torch.equal(result.view(torch.int32), tokens.view(torch.int32))


def test_what_the_sae_does_not_reconstruct_stays(sae, tokens, patches):
    latent = int(active_latents(sae, tokens)[0])
    rows = patch_rows(tokens, patches)
    codes = sae.encode(rows)
    error = rows - sae.decode(codes)
    set_codes = codes.clone()
    set_codes[:, latent] = 2.5
    edit = Edit(0, (latent,), amount=2.5, where=PredictedAs(1))
    result = patch_rows(edited(tokens, edit, Site(0, sae), PREFIX, patches.long()), patches)
    close(result - sae.decode(set_codes), error)


def test_rows_go_back_where_they_came_from(tokens, patches):
    rows = patch_rows(tokens, patches)
    assert len(rows) == int(patches.sum())
    assert torch.equal(with_rows(tokens, patches, rows), tokens)
    assert torch.equal(patch_rows(with_rows(tokens, patches, rows + 1), patches), rows + 1)
    assert torch.equal(moved(rows, torch.zeros_like(rows)), rows)


def draws_of(sae, tokens):
    """Draws of every kind of arm, and the latents that they edit."""
    latents = active_latents(sae, tokens)[:5].tolist()
    largest = sae.encode(tokens[:, PREFIX:].flatten(0, 1)).amax(dim=0)
    vectors = torch.nn.functional.normalize(torch.randn(2, D, generator=torch.Generator().manual_seed(3)))

    def edit(*chosen):
        return SetLatents(chosen, tuple(float(largest[latent]) for latent in chosen))

    draws = {
        "reconstruction": [Reconstruction()],
        "random_vector": [SetCoordinate(vector, 0.5, 3.0) for vector in vectors],
        "random_latent": [edit(latents[2]), edit(latents[3]), edit(latents[4])],
        "automatic": [edit(*latents[:2])],
    }
    return draws, latents


SCALES = (-2.0, 0.0, 1.0)


@pytest.mark.parametrize("scale", SCALES)
def test_latent_arms_are_edits_to_multiples_of_their_own_largest(sae, tokens, patches, scale):
    draws, _ = draws_of(sae, tokens)
    here = situation(sae, patch_rows(tokens, patches), draws)
    for arm in ("automatic", "random_latent"):
        for change in draws[arm]:
            amount = tuple(scale * value for value in change.largest)
            edit = Edit(0, change.latents, amount=amount, where=PredictedAs(1))
            wanted = patch_rows(edited(tokens, edit, Site(0, sae), PREFIX, patches.long()), patches)
            close(here.rows + change(here, scale), wanted)


@pytest.mark.parametrize("scale", SCALES)
def test_a_direction_is_edited_as_a_latent_is(sae, tokens, patches, scale):
    draws, _ = draws_of(sae, tokens)
    here = situation(sae, patch_rows(tokens, patches), draws)
    for change in draws["random_vector"]:
        after = here.rows + change(here, scale)
        close(after @ change.vector, torch.full((len(here.rows),), 0.5 + scale * 3.0))
        others = torch.eye(D) - torch.outer(change.vector, change.vector)
        close(after @ others, here.rows @ others)


def test_the_reconstruction_arm_is_the_saes_forward_pass(sae, tokens, patches):
    draws, _ = draws_of(sae, tokens)
    here = situation(sae, patch_rows(tokens, patches), draws)
    close(here.rows + draws["reconstruction"][0](here, 0.0), sae(here.rows))


def test_a_length_is_given_to_each_row():
    change = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    instead = torch.tensor([[9.0, 9.0], [0.0, -2.0], [0.0, 0.0], [9.0, 9.0]])
    found = of_length(change, torch.tensor([[10.0], [3.0], [3.0], [0.0]]), instead)
    close(found, torch.tensor([[6.0, 8.0], [0.0, -3.0], [0.0, 0.0], [0.0, 0.0]]))


def run(sae, tokens, patches, scales, read, batch_size=32):
    draws, _ = draws_of(sae, tokens)
    here = situation(sae, patch_rows(tokens, patches), draws)
    batch = Unedited(tokens, patches, read(tokens), here)
    found = outcomes(batch, draws, scales, read=read, batch_size=batch_size)
    return draws, here, list(found)


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_outcomes_cover_every_arm_size_scale_and_draw(sae, tokens, patches, batch_size):
    draws, here, found = run(sae, tokens, patches, SCALES, lambda t: t.clone(), batch_size)
    sizes = {arm: ("natural",) if arm == "automatic" else ("natural", "matched") for arm in draws}
    wanted = {(a, size, s, d) for a in draws for size in sizes[a] for s in SCALES for d in range(len(draws[a]))}
    seen = [(o.arm, o.size, scale, o.draw) for o in found for scale in o.scales]
    assert len(seen) == len(set(seen))
    assert set(seen) == wanted | {("none", "natural", scale, 0) for scale in SCALES}
    assert torch.equal(found[0].after, tokens)
    for o in found[1:]:
        assert o.draws == len(draws[o.arm])
        assert torch.equal(o.after[1], tokens[1])  # nothing is edited in the second picture
        change = patch_rows(o.after, patches) - here.rows
        for scale in o.scales:
            natural = draws[o.arm][o.draw](here, scale)
            if o.size == "natural":
                close(change, natural)
                assert o.arm in WITHOUT_SCALE or len(o.scales) == 1
            else:
                lengths = draws["automatic"][0](here, scale).norm(dim=1)
                close(change.norm(dim=1), lengths)
                along = (change * natural).sum(dim=1)
                close(along, natural.norm(dim=1) * lengths)  # the same direction, where there is one


def test_pictures_that_an_edit_leaves_alone_are_not_run_again(sae, tokens, patches):
    sizes = []

    def read(t):
        sizes.append(len(t))
        return t.sum(dim=(1, 2))

    run(sae, tokens, patches, (1.0,), read, batch_size=4)
    assert sizes[:2] == [3, 3]  # what was before, and `none`, are run in full
    # Two of the three pictures a run: two runs share a batch, and the last of thirteen has one to itself.
    assert sizes[2:] == [4] * 6 + [2]
    assert patches.any(dim=1).tolist() == [True, False, True]
