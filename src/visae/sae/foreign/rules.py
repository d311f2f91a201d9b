"""Code rules of other projects, as the variants that compute them."""

from __future__ import annotations

import torch
from torch import Tensor

from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Lost, filled
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.topk import TopK


def topk(contents: Contents, k: object, width: int, key: str = "k") -> TopK:
    """TopK of a stated k.

    Raises
    ------
    ModelError
        If it is missing, or no number of latents that there are.
    """
    return TopK(checked_k(contents, k, width, key))


def checked_k(contents: Contents, k: object, width: int, key: str = "k") -> int:
    """Codes kept of a token.

    Raises
    ------
    ModelError
        If it is missing, or no number of latents that there are.
    """
    if k is None:
        raise contents.wrong(key, k, f"a whole number from 1 to {width}; the file does not say it, --k does")
    # A comparison first: what is no number, or none that can be rounded, is not between the two.
    if isinstance(k, bool) or not isinstance(k, int | float) or not 1 <= k <= width or k != int(k):
        raise contents.wrong(key, k, f"a whole number from 1 to {width}")
    return int(k)


def batchtopk(k: int, threshold: float, is_from_it_on: bool = False) -> BatchTopK:
    """BatchTopK after its training: codes above a threshold, or from it on.

    A threshold of zero or less is none, and cuts at zero.
    """
    rule = BatchTopK(k)
    bound = torch.tensor(threshold, dtype=torch.float32)
    if is_from_it_on:
        bound = torch.nextafter(bound, torch.tensor(-torch.inf))
    filled(rule.threshold, bound.clamp(min=0))
    return rule


def lost_threshold(contents: Contents, unsaid: Unsaid, k: int | None) -> tuple[BatchTopK, Lost]:
    """BatchTopK whose file has no threshold: by what was said, else still to be learned.

    Parameters
    ----------
    k
        Codes kept of a token, where the file says it.

    Raises
    ------
    ModelError
        If neither a threshold nor k is known.
    """
    k = unsaid.k or k
    if unsaid.threshold is not None:
        return batchtopk(k or 1, unsaid.threshold, is_from_it_on=True), Lost()
    if k is None:
        raise contents.wrong(
            "threshold",
            None,
            "a number. It has been lost from the file, in which BatchTopK keeps codes from it on: say it with "
            "--threshold, or say with --k how many codes a token has and learn it again with --manifests",
        )
    return batchtopk(k, 0.0), Lost(codes_per_token=k)


def jumprelu(thresholds: Tensor) -> JumpRelu:
    """JumpReLU with thresholds (width,)."""
    rule = JumpRelu(len(thresholds))
    # Codes are positive there as well, so a threshold of zero or less is no other than a tiny one.
    filled(rule.log_threshold, thresholds.clamp(min=torch.finfo(torch.float32).tiny).log())
    return rule


def gated(log_scale: Tensor, magnitude_bias: Tensor, shift: Tensor) -> Gated:
    """Gated with r_mag and b_mag (width,).

    Parameters
    ----------
    shift
        (width,), what is to come off the shared projection.
    """
    rule = Gated(len(log_scale))
    filled(rule.log_scale, log_scale)
    filled(rule.magnitude_bias, magnitude_bias - log_scale.exp() * shift)
    return rule
