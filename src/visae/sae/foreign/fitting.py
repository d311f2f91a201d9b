"""Whether an SAE from elsewhere is the one that was wanted, and belongs to the activations that it is taken in for."""

from __future__ import annotations

from pathlib import Path

from visae.config.published import Wanted
from visae.errors import ModelError
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.data import TrainingData
from visae.sae.place import Place
from visae.sae.published import place_of


def check_wanted(sae: SparseAutoencoder, sha256: str, wanted: Wanted, name: str) -> None:
    """Refuse another file or number of latents than was wanted.

    Parameters
    ----------
    sha256
        Of its file of weights.
    name
        Where it was taken from, named in errors.

    Raises
    ------
    ModelError
        If it is another one.
    """
    if wanted.sha256 is not None and sha256 != wanted.sha256:
        raise ModelError(
            f"{name}: sha256: its weights have {sha256}, and {wanted.sha256} was wanted; another file, or a changed one"
        )
    if wanted.width is not None and sae.width != wanted.width:
        raise ModelError(f"{name}: width: it has {sae.width} latents, and {wanted.width} were wanted")
    if wanted.of_patches and sae.place.tokens == "class":
        raise ModelError(
            f"{name}: tokens: it was trained on class tokens, as its file says; write tokens: class in its section, so "
            "that nothing is asked about patches"
        )


def check_place(place: Place, data: TrainingData, manifest: Path, name: str) -> None:
    """Refuse stores of another block, hook point or model than an SAE was trained on, where that is known.

    Raises
    ------
    ModelError
        If it was trained on others.
    """
    store = place_of(data)
    for key, said, read in (
        ("layer", place.layer, store.layer),
        ("hook", place.hook if place.layer is not None else None, store.hook if store.layer is not None else None),
        ("model's weights", place.weights_sha256, store.weights_sha256),
    ):
        if said is not None and read is not None and said != read:
            raise ModelError(
                f"{name}: it was trained on {key} {said}, and {manifest} has {key} {read}; give the store that it "
                "belongs to, or, where its file is wrong, say layer and hook by hand"
            )


def located(place: Place, data: TrainingData) -> Place:
    """Where an SAE belongs, with what only the stores tell that it is taken in for."""
    store = place_of(data)
    hook = store.hook if place.layer is None else place.hook
    return Place(
        place.model or store.model,
        place.weights_sha256 or store.weights_sha256,
        store.layer if place.layer is None else place.layer,
        hook,
        place.tokens,
    )
