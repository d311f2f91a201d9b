"""What tests of other projects' files share."""

import torch
from published_for_tests import D_MODEL

from visae.sae.foreign.registry import read_foreign
from visae.sae.foreign.unsaid import Unsaid


def inputs(d_model=D_MODEL, n=300):
    return torch.randn(n, d_model, generator=torch.Generator().manual_seed(5)) * 2 + 0.5


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


def same(found, expected, within=1e-5):
    return relative_error(found, expected) < within


def read_saelens(folder):
    return read_foreign(folder, Unsaid(as_="saelens")).given
