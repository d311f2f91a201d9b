"""dictionary_learning's ae.pt and config.json, and those of projects that train vision SAEs by it.

Its classes by their tensors, with the code of x (dictionary-learning 0.1.0):

- AutoEncoder (`bias`): ReLU(W (x - bias) + b); its decoder's columns are brought to unit norm when it is opened there.
- AutoEncoderNew (`decoder.bias`): ReLU(W x + b).
- AutoEncoderTopK, BatchTopKSAE (`b_dec`, `k`, `threshold`): the k largest of ReLU(W (x - b_dec) + b), or those of them
  above the threshold, which is -1 until it is learned. Both have the same tensors; `dict_class` tells them apart.
- MatryoshkaBatchTopKSAE (`group_sizes`): as BatchTopK, with W_enc and W_dec.
- JumpReluAutoEncoder (a `threshold` for each latent): b_dec is not subtracted.
- GatedAutoEncoder (`gate_bias`, `r_mag`, `mag_bias`, `decoder_bias`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from visae.errors import ModelError
from visae.notices import Notice
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, Lost, Parts, checked, oriented, refuse_other_sizes, sae_of, sizes
from visae.sae.foreign.places import place_of_layer, tokens_of
from visae.sae.foreign.rules import batchtopk, checked_k, gated, jumprelu, lost_threshold, topk
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.variants.batchtopk import BatchTopK
from visae.sae.variants.matryoshka import Matryoshka
from visae.sae.variants.relu import Relu
from visae.sae.variants.variant import Variant


@dataclass(frozen=True)
class _Class:
    """Names of a class's tensors, and whether its decoder's bias is subtracted from what is encoded."""

    bias: str
    decoder_bias: str
    is_subtracted: bool
    own: tuple[str, ...] = ()
    is_linear: bool = True

    @property
    def matrices(self) -> tuple[str, str]:
        return ("encoder.weight", "decoder.weight") if self.is_linear else ("W_enc", "W_dec")

    @property
    def names(self) -> set[str]:
        return {*self.matrices, self.bias, self.decoder_bias, *self.own}


_KEPT = ("k", "threshold")
_CLASSES = {
    "AutoEncoder": _Class("encoder.bias", "bias", True),
    "AutoEncoderNew": _Class("encoder.bias", "decoder.bias", False),
    "AutoEncoderTopK": _Class("encoder.bias", "b_dec", True, _KEPT),
    "BatchTopKSAE": _Class("encoder.bias", "b_dec", True, _KEPT),
    "MatryoshkaBatchTopKSAE": _Class("b_enc", "b_dec", True, (*_KEPT, "group_sizes"), is_linear=False),
    "JumpReluAutoEncoder": _Class("b_enc", "b_dec", False, ("threshold",), is_linear=False),
    "GatedAutoEncoder": _Class("gate_bias", "decoder_bias", True, ("r_mag", "mag_bias")),
}
# Whole numbers beside the weights: how many codes, and how many latents are in each of Matryoshka's groups.
_COUNTS = ("k", "group_sizes")
# Files of earlier versions have none of these.
_YOUNG = {"k", "threshold"}
ASKS = ("k", "threshold", "code")


def recognizes(contents: Contents) -> bool:
    """Whether there are the tensors of one of its classes, and no other project's settings."""
    if contents.is_headed:
        return False
    if "dict_class" in contents.section("trainer"):
        return True
    return (
        bool(_fitting(contents)) and ("trainer" in contents.said or not contents.said) and not _is_visaebenchs(contents)
    )


def _is_visaebenchs(contents: Contents) -> bool:
    """Whether the decoder has a row for each latent, as of the classes with these names only visaebench's has."""
    decoder, encoder = (contents.tensors.get(f"{part}.weight") for part in ("decoder", "encoder"))
    return "decoder.bias" in contents.tensors and decoder is not None and encoder is not None and (
        decoder.shape == encoder.shape
    )  # fmt: skip


def _fitting(contents: Contents) -> list[str]:
    """Classes that have just the tensors of a file."""
    names = contents.tensors.keys()
    return [kind for kind, its in _CLASSES.items() if its.names - _YOUNG <= names <= its.names]


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of a file.

    Raises
    ------
    ModelError
        If it is damaged, of a class that is not known, or its tensors are not that class's.
    """
    kind = _class_of(contents, unsaid)
    tensors = _checked(contents, kind)
    its = _CLASSES[kind]
    encoder, decoder = (tensors[name] for name in its.matrices)
    matrices = (encoder, decoder.T) if its.is_linear else (encoder.T, decoder)
    parts = Parts(matrices[0], tensors[its.bias], matrices[1], tensors[its.decoder_bias], its.is_subtracted)
    parts = oriented(contents.path, parts, unsaid)
    if kind == "AutoEncoder":
        parts = parts.of_unit_rows()
    rule, notices, lost = _rule(contents, unsaid, kind, tensors, parts)
    sae, said = sae_of(rule, parts.weights), contents.section("trainer")
    tokens, hook = tokens_of(said.get("tokens")), said.get("submodule_name")
    sae.place = place_of_layer(said.get("lm_name"), said.get("layer"), tokens, hook)
    return Given(sae, notices, lost)


def _class_of(contents: Contents, unsaid: Unsaid) -> str:
    """Name of the class that a file is of."""
    said = contents.section("trainer").get("dict_class")
    if said is not None:
        if str(said) not in _CLASSES:
            raise contents.wrong("trainer.dict_class", said, ", ".join(_CLASSES))
        return str(said)
    fitting = _fitting(contents)
    if "AutoEncoderTopK" in fitting:
        chosen = {"topk": "AutoEncoderTopK", "batchtopk": "BatchTopKSAE"}.get(unsaid.code or "")
        if chosen is None:
            raise contents.wrong(
                "trainer.dict_class",
                None,
                "AutoEncoderTopK, BatchTopKSAE. Their files have the same tensors, and there is no config.json that "
                "says which: put it beside the file, or say --code topk or --code batchtopk",
            )
        return chosen
    if not fitting:
        raise ModelError(
            f"{contents.path}: tensors of no class of dictionary_learning: {', '.join(sorted(contents.tensors)[:12])}; "
            f"known are those of {', '.join(_CLASSES)}"
        )
    return fitting[0]


def _checked(contents: Contents, kind: str) -> dict[str, Tensor]:
    """Weights and what stands beside them in double precision."""
    its, of = _CLASSES[kind], f"{kind} of dictionary_learning"
    width, d_model = sizes(contents, its.bias, its.matrices[0], of=of)
    refuse_other_sizes(contents, contents.section("trainer"), {"dict_size": width, "activation_dim": d_model})
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(its.names, (width,))
    shapes[its.decoder_bias] = (d_model,)
    linear, other = (width, d_model), (d_model, width)
    shapes |= zip(its.matrices, (linear, other) if its.is_linear else (other, linear), strict=True)
    if "k" in its.own:
        groups = contents.tensors.get("group_sizes", torch.zeros(0))
        shapes |= {"k": (), "threshold": (), "group_sizes": tuple(groups.shape)}
    shapes = {name: shape for name, shape in shapes.items() if name in its.names}
    counts = {name: contents.tensors[name].float() for name in _COUNTS if name in contents.tensors}
    whole = replace(contents, tensors=contents.tensors | counts)
    return checked(whole, shapes, _YOUNG & {*its.own} if "k" in its.own else (), of=of)


def _rule(
    contents: Contents, unsaid: Unsaid, kind: str, tensors: dict[str, Tensor], parts: Parts
) -> tuple[Variant, list[Notice], Lost]:
    """Code rule of a class, what is to be said of it, and what it has lost."""
    if kind in ("AutoEncoder", "AutoEncoderNew"):
        return Relu(), [], Lost()
    if kind == "GatedAutoEncoder":
        return gated(tensors["r_mag"], tensors["mag_bias"], parts.shift), [], Lost()
    if kind == "JumpReluAutoEncoder":
        return jumprelu(tensors["threshold"]), [], Lost()
    k = _k(contents, unsaid, tensors, len(parts.encoder))
    if kind == "AutoEncoderTopK":
        return topk(contents, k, len(parts.encoder)), [], Lost()
    rule, notices, lost = _thresholded(contents, unsaid, tensors.get("threshold"), k)
    return Matryoshka(rule) if kind == "MatryoshkaBatchTopKSAE" else rule, notices, lost


def _thresholded(
    contents: Contents, unsaid: Unsaid, threshold: Tensor | None, k: int
) -> tuple[BatchTopK, list[Notice], Lost]:
    """BatchTopK by its threshold, which the file may have lost, or training never learned."""
    if threshold is None or unsaid.threshold is not None:
        rule, lost = lost_threshold(contents, unsaid, k)
        return rule, [], lost
    text = (
        f"threshold {float(threshold):g}: training was too short to learn it, and every positive value is a code, as "
        f"dictionary_learning has it, not {k} a token; --threshold says another"
    )
    return batchtopk(k, float(threshold)), [Notice("warning", text)] if threshold < 0 else [], Lost()


def _k(contents: Contents, unsaid: Unsaid, tensors: dict[str, Tensor], width: int) -> int:
    """Codes kept of a token: what the file says, which nothing may contradict."""
    stated = {
        "k": tensors["k"].item() if "k" in tensors else None,
        "trainer.k": contents.section("trainer").get("k"),
        "--k": unsaid.k,
    }
    known = {key: value for key, value in stated.items() if value is not None}
    if any(value != known[next(iter(known))] for value in known.values()):
        said = ", ".join(f"{key} {value}" for key, value in known.items())
        raise ModelError(f"{contents.path}: {said}: these contradict one another; keep the one that is right")
    return checked_k(contents, next(iter(known.values()), None), width)
