"""The variants by their names in the configuration and in config.json."""

from __future__ import annotations

from visae.sae.variants.archetypal import Archetypal
from visae.sae.variants.baselines import BASELINES
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.frozen_decoder import FrozenDecoder
from visae.sae.variants.gated import Gated
from visae.sae.variants.jumprelu import JumpRelu
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.pursuit import MatchingPursuit, OrthogonalMatchingPursuit
from visae.sae.variants.quantized import Quantized
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Variant

# Rules of files from elsewhere, which nothing here trains.
GIVEN_RULES: dict[str, type[Variant]] = {
    kind.name: kind for kind in (Quantized, MatchingPursuit, OrthogonalMatchingPursuit)
}
VARIANTS: dict[str, type[Variant]] = {**BASELINES, **GIVEN_RULES} | {
    kind.name: kind for kind in (TopK, FrozenDecoder, BatchTopK, Matryoshka, Archetypal, Relu, JumpRelu, Gated)
}
