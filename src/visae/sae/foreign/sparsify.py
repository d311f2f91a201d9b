"""sparsify's cfg.json and sae.safetensors (eai-sparsify 1.3): the k largest of ReLU(W (x - b_dec) + b).

A transcoder (`transcode`) subtracts nothing. W_skip times x may be added to what is decoded.
"""

from __future__ import annotations

from visae.errors import ModelError
from visae.notices import Notice
from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, Parts, checked, oriented, refuse_other_sizes, sae_of, sizes
from visae.sae.foreign.places import place_of_module
from visae.sae.foreign.rules import topk
from visae.sae.foreign.unsaid import Unsaid

_DECISIVE = ("activation", "k", "num_latents", "expansion_factor", "transcode", "skip_connection", "signed", "d_in")
_WITHOUT_EFFECT = ("normalize_decoder", "multi_topk", "init_enc_as_dec_transpose")
ASKS = ("k",)


def recognizes(contents: Contents) -> bool:
    """Whether there is a linear encoder with a decoder that is a matrix."""
    return not contents.is_headed and {"encoder.weight", "W_dec"} <= contents.tensors.keys()


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE or transcoder of a file.

    Raises
    ------
    ModelError
        If it is damaged, or has a rule that is not TopK.
    """
    said, of = contents.said, "SAE of sparsify"
    if unknown := sorted(said.keys() - {*_DECISIVE, *_WITHOUT_EFFECT}):
        raise ModelError(
            f"{contents.said_in}: unknown keys: {', '.join(unknown)}: sparsify 1.3 has none of these, and they may "
            "change the codes; take them out if you know that they do not"
        )
    width, d_model = sizes(contents, "encoder.bias", "encoder.weight", of=of)
    refuse_other_sizes(contents, said, {"d_in": d_model, **({"num_latents": width} if said.get("num_latents") else {})})
    rows = (width, d_model)
    shapes: dict[str, tuple[int, ...]] = {"encoder.weight": rows, "encoder.bias": (width,), "W_dec": rows}
    shapes |= {"b_dec": (d_model,), "W_skip": (d_model, d_model)}
    tensors = checked(contents, shapes, ("W_skip",), of=of)
    if said.get("activation", "topk") != "topk":
        raise contents.wrong("activation", said["activation"], "topk")
    if said.get("signed"):
        raise contents.wrong("signed", said["signed"], "false")
    is_transcoder = bool(said.get("transcode", False))
    parts = Parts(
        tensors["encoder.weight"], tensors["encoder.bias"], tensors["W_dec"], tensors["b_dec"], not is_transcoder
    )
    parts = oriented(contents.path, parts, unsaid)
    rule = topk(contents, said.get("k", unsaid.k), width)
    sae = sae_of(rule, parts.weights, d_model if is_transcoder else None, skip=tensors.get("W_skip"))
    # The folder of an SAE there is named as the module whose output it was trained on.
    sae.place = place_of_module(contents.path.parent.name)
    notices = [] if said else [Notice("warning", "no cfg.json beside it: taken as TopK, and as no transcoder")]
    return Given(sae, notices)
