"""The activation store: write, check, read in order, read shuffled, scan with polars."""

from visae.activations.store import ActivationStore, scan

__all__ = ["ActivationStore", "scan"]
