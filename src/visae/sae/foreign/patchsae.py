"""SAEs of PatchSAE (763eceb), and of the code for ViTs that it goes back to: ReLU(W_enc^T (x - b_dec) + b_enc)."""

from __future__ import annotations

from visae.sae.foreign.contents import Contents
from visae.sae.foreign.given import Given, Parts, checked, oriented, refuse_other_sizes, sae_of, sizes
from visae.sae.foreign.places import place_of_layer
from visae.sae.foreign.unsaid import Unsaid
from visae.sae.variants.relu import Relu

_MATRICES = {"W_enc", "b_enc", "W_dec", "b_dec"}
ASKS = ()


def recognizes(contents: Contents) -> bool:
    """Whether the settings name a block as its do, beside matrices."""
    return not contents.is_headed and "block_layer" in contents.said and contents.tensors.keys() >= _MATRICES


def read(contents: Contents, unsaid: Unsaid) -> Given:
    """SAE of a file.

    Raises
    ------
    ModelError
        If it is damaged, or gated, which its code never computed.
    """
    said, of = contents.said, "SAE of PatchSAE"
    if said.get("gated_sae"):
        raise contents.wrong("gated_sae", said["gated_sae"], "false: PatchSAE has no code for it")
    width, d_model = sizes(contents, "b_enc", "W_enc", of=of)
    refuse_other_sizes(contents, said, {"d_in": d_model, "d_sae": width})
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_model, width), "W_dec": (width, d_model)}
    tensors = checked(contents, shapes | {"b_enc": (width,), "b_dec": (d_model,)}, of=of)
    parts = Parts(tensors["W_enc"].T, tensors["b_enc"], tensors["W_dec"], tensors["b_dec"], True)
    sae = sae_of(Relu(), oriented(contents.path, parts, unsaid).weights)
    sae.place = place_of_layer(
        said.get("model_name"), said.get("block_layer"), "class" if said.get("class_token") else "all"
    )
    return Given(sae, [])
