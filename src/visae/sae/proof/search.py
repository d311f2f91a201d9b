"""All places of a model, from a few tokens; and those of them that are worth many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import torch

from visae.config.saes import TokenKinds
from visae.errors import ModelError
from visae.progress import progress_bar
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.proof.fits import Fit, fit
from visae.sae.proof.hypotheses import Hypothesis, Setup, moments_of, placed, setups
from visae.sae.proof.tokens import PointTokens
from visae.sae.proof.verdict import error_of
from visae.vision.hook_points import Hook
from visae.vision.model import HookPoint, VisionModel

# Places of the first look that are looked at again, beside what is claimed and all neighbours.
_AGAIN = 6


def readable_points(model: VisionModel, d_model: int) -> list[HookPoint]:
    """Hook points of a model whose activations have so many dimensions.

    Raises
    ------
    ModelError
        If it has none.
    """
    card = model.card
    wide = [number for number, layer in enumerate(card.layers) if layer.d_model == d_model and layer.can_read]
    if not wide:
        widths = ", ".join(str(width) for width in sorted({layer.d_model for layer in card.layers}))
        raise ModelError(
            f"--model {card.architecture}: its layers have {widths} dimensions, and the SAE is for {d_model}: it is of "
            "another model; give that one's model.json or timm's name"
        )
    blank = torch.zeros(1, 3, *card.image_size, dtype=torch.uint8, device=model.device)
    points = []
    for hook in get_args(Hook):
        of_hook = [HookPoint(layer, hook) for layer in wide]
        try:
            card.check(of_hook[0], "--model")
            model.read(blank, of_hook)
        except ModelError:  # stages have no parts, and some blocks add theirs together
            continue
        points += of_hook
    return sorted(points)


def kinds_of(model: VisionModel) -> list[TokenKinds]:
    """Kinds of tokens that a model has: without any before the patches, all are patches."""
    card = model.card
    has: dict[TokenKinds, bool] = {"patches": True, "class": card.has_class_token, "all": card.n_prefix > 0}
    return [kind for kind, is_there in has.items() if is_there]


def fits_at(
    sae: SparseAutoencoder,
    wanted: Sequence[Hypothesis],
    points: Mapping[HookPoint, PointTokens],
    most_codes: float | None,
    what: str,
) -> Iterator[Fit]:
    """Fit the SAE to each place that is wanted; the moments of each place are taken once."""
    moments = {}
    with progress_bar(len(wanted), what, "places") as bar:
        for hypothesis in wanted:
            key = hypothesis.point, hypothesis.tokens
            read = points[hypothesis.point]
            if key not in moments:
                moments[key] = moments_of(read, hypothesis.tokens)
            there = placed(sae, hypothesis, read, moments[key])
            yield fit(there, hypothesis, read, moments[key].mean, most_codes)
            bar.update()


def by_setup(fits: Sequence[Fit]) -> list[tuple[Setup, dict[TokenKinds, Fit]]]:
    """Fits of each place by kind of token, the place with the smallest error of any kind first."""
    found: dict[Setup, dict[TokenKinds, Fit]] = {}
    for each in fits:
        found.setdefault(each.hypothesis.setup, {})[each.hypothesis.tokens] = each
    return sorted(found.items(), key=lambda entry: min(error_of(each) for each in entry[1].values()))


def most_codes_of(sae: SparseAutoencoder, first_look: Sequence[Fit]) -> float:
    """Codes a token at which places are compared: the SAE's own k, or the fewest of any place that it fits.

    A place of another scale has latents fire that were silent in training, and more codes leave a smaller error.
    """
    if (k := sae.variant.options().get("k")) is not None:
        return float(k)
    best = max(1 - error_of(each) for each in first_look)
    return min((each.l0 for each in first_look if 1 - error_of(each) >= best / 2), default=float(sae.width))


def worth_more(
    sae: SparseAutoencoder, ranked: Sequence[Setup], claimed: Setup | None, points: Sequence[HookPoint]
) -> list[Setup]:
    """The best places of the first look, the claimed one, and the neighbours of both."""
    chosen = dict.fromkeys(ranked[:_AGAIN])
    for middle in (*ranked[:1], *([claimed] if claimed else [])):
        chosen |= dict.fromkeys([middle, *_neighbours(sae, middle, points)])
    return list(chosen)


def _neighbours(sae: SparseAutoencoder, middle: Setup, points: Sequence[HookPoint]) -> Iterator[Setup]:
    """Places that differ in one thing: the block before or after, the hook, or what is done to activations."""
    for point in points:
        far = abs(point.layer - middle.point.layer)
        if (far == 1 and point.hook == middle.point.hook) or (far == 0 and point != middle.point):
            yield middle._replace(point=point)
    yield from setups(sae, middle.point)


def every_kind(setup_list: Sequence[Setup], kinds: Sequence[TokenKinds]) -> list[Hypothesis]:
    """Hypotheses of each kind of token at each place."""
    return [Hypothesis(setup, kind) for setup in setup_list for kind in kinds]
