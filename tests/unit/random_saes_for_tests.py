"""SAEs of every variant and normalization with random weights, for tests of files that hold them."""

from typing import get_args

import torch

from visae.config.saes import Normalization
from visae.sae import Place, SparseAutoencoder
from visae.sae.variants.archetypal import Archetypal
from visae.sae.variants.baselines import BASELINES
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.frozen_decoder import FrozenDecoder
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.members import VARIANTS
from visae.sae.variants.pursuit import MatchingPursuit, OrthogonalMatchingPursuit
from visae.sae.variants.quantized import Quantized
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK

D_MODEL, WIDTH = 16, 48
RULES = {
    "topk": lambda: TopK(5),
    "frozen_decoder": lambda: FrozenDecoder(5),
    "batchtopk": lambda: BatchTopK(5),
    "matryoshka": lambda: Matryoshka(TopK(5)),
    "matryoshka-batchtopk": lambda: Matryoshka(BatchTopK(5)),
    "archetypal": lambda: Archetypal(WIDTH, D_MODEL, 10, 5),
    "relu": Relu,
    "jumprelu": lambda: JumpRelu(WIDTH),
    "gated": lambda: Gated(WIDTH),
    **{name: lambda kind=kind: kind(5) for name, kind in BASELINES.items()},
    "quantized": lambda: Quantized([0.0, 0.5, 1.5, 3.0], is_hard=True),
    "matching_pursuit": lambda: MatchingPursuit(5),
    "orthogonal_matching_pursuit": lambda: OrthogonalMatchingPursuit(5),
}
assert {name.partition("-")[0] for name in RULES} == {*VARIANTS}, "a variant that no export is tested with"
CASES = [(rule, kind) for rule in RULES for kind in get_args(Normalization)]


def some_sae(
    rule: str = "topk",
    kind: Normalization = "scale",
    d_target: int | None = None,
    clamp: float | None = None,
    has_skip: bool = False,
) -> SparseAutoencoder:
    """An SAE of random weights that fires, far from the origin, with unit decoder rows."""
    sae = SparseAutoencoder(D_MODEL, WIDTH, RULES[rule](), d_target, clamp, kind, has_skip)
    generator = torch.Generator().manual_seed(3)
    for name, tensor in sae.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if "mean" in name:
            drawn = 5 + drawn
        elif "scale" in name or name == "limit" or "threshold" in name:
            drawn = drawn.abs() + 0.5
        elif name == "decoder_weight":
            drawn = torch.nn.functional.normalize(drawn)
        elif name == "eps":
            continue
        tensor.copy_(drawn)
    sae.place = Place("vit_tiny_patch16_224", None, 7, "residual", "class")
    return sae.eval().requires_grad_(False)
