"""visae: find out what a vision transformer has learned, and prove it by experiment."""

__version__ = "0.1.0"
