"""Sparse autoencoders: the module, its variants, training."""

from visae.sae.autoencoder import SparseAutoencoder, load_sae, save_sae
from visae.sae.entries import load_place
from visae.sae.place import Place
from visae.sae.variants.sparse import SparseCodes

__all__ = ["Place", "SparseAutoencoder", "SparseCodes", "load_place", "load_sae", "save_sae"]
