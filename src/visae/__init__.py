"""visae: find out what a vision transformer has learned, and prove it by experiment."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from visae.explore.features import Features

__all__ = ["Features", "__version__"]


def __getattr__(name: str) -> Any:
    """Import what is offered here when it is asked for: `import visae` must not wait for Matplotlib and torch."""
    if name == "Features":
        from visae.explore.features import Features

        return Features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
