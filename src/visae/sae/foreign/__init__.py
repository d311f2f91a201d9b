"""Sparse autoencoders in other projects' files."""
