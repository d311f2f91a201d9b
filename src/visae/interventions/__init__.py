"""Edits of single latents, their controls, and the experiments that compare them."""
