"""The version of visae."""

__version__ = "0.1.0"
