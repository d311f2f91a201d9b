"""What files of other projects do not say of their SAEs, said by hand."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from visae.config.fields import setting
from visae.config.saes import TokenKinds

DecoderBias = Literal["subtracted", "not-subtracted"]
CodeRule = Literal[
    "relu",
    "topk",
    "batchtopk",
    "jumprelu",
    "quantized",
    "quantized-hard",
    "matching-pursuit",
    "orthogonal-matching-pursuit",
]
Format = Literal[
    "visae",
    "saev",
    "saelens",
    "sparsify",
    "visaebench",
    "overcomplete",
    "dictionary_learning",
    "sae-for-vlm",
    "vision-interp",
    "ViSAE",
    "prisma",
    "patchsae",
]
# Of the place.
PLACE = ("layer", "hook", "tokens")
Rows = Literal["l2", "max_l2", "l1", "max_l1", "identity"]


@dataclass(frozen=True)
class Unsaid:
    """What is said by hand; None leaves it to the file."""

    as_: Format | None = setting("Format of the file; left out, told by what is in it.", None)
    member: str | None = setting(
        "Which SAE, where the source has several: a run of its manifest.jsonl, or a path.", None
    )
    normalization: str | None = setting(
        "JSON file with `mean` (d_model numbers) and `scale` (a number, or d_model): what the project subtracted from "
        "raw activations and then divided them by before its SAE saw them. `data` computes both from --manifests, as "
        "the project did; `none` says that nothing was done; `per_token` that each token was standardized by itself. "
        "Left out, what the file says, and for saev 0.1.0 and visaebench, whose files have lost it, `data` where there "
        "are --manifests. For `expected_average_only_in` of SAELens, mean 0 and scale the activations' mean norm over "
        "the root of d_model.",
        None,
    )
    decoder_bias: DecoderBias | None = setting(
        "saev: whether b_dec is subtracted from activations before they are encoded. Needed for schema 1 alone, which "
        "was written in either case.",
        None,
    )
    code: CodeRule | None = setting(
        "overcomplete, dictionary_learning, visaebench: which codes, where the file does not say.", None
    )
    k: int | None = setting("Codes kept for a token, where the file does not say.", None, minimum=1)
    threshold: float | None = setting(
        "BatchTopK: value from which codes are kept, where the file has lost it. Left out, --manifests and --k learn "
        "it again: the value that k codes a token are above.",
        None,
    )
    rows: Rows | None = setting(
        "overcomplete: how its dictionary's rows are normalized, where they do not show it.", None
    )
    delta: float | None = setting(
        "overcomplete, archetypal: bound of what a row departs from the points' hull.", None, minimum=0
    )
    layer: int | None = setting(
        "Block that it was trained on, counted from 0, where the file does not say.", None, minimum=0
    )
    hook: Literal["residual", "attention", "mlp", "norm"] | None = setting(
        "What of that block, as a study's `hook`, where the file does not say.", None
    )
    tokens: TokenKinds | None = setting("Tokens that it was trained on, where the file does not say.", None)
    transposed: Literal["none", "encoder", "decoder", "both"] | None = setting(
        "Which matrices the file has the other way round, where they are square; left out, one that looks transposed "
        "is refused.",
        None,
    )

    def useless(self, known: tuple[str, ...]) -> list[str]:
        """Options that were given and that a format whose own are `known` has no use for, as they are written."""
        always = ("as_", "member", "transposed", "normalization", *PLACE, *known)
        given = [spec.name for spec in fields(Unsaid) if getattr(self, spec.name) is not None]
        return [f"--{name.replace('_', '-')}" for name in given if name not in always]

    @property
    def by_hand(self) -> Unsaid:
        """These alone, of a section that says more."""
        return Unsaid(**{spec.name: getattr(self, spec.name) for spec in fields(Unsaid)})
