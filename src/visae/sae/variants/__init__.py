"""Variants of sparse autoencoders: what is a code, what a step's loss; all of `Variant`."""
