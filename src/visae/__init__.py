"""visae: find out what a vision transformer has learned, and prove it by experiment."""

import importlib
from typing import TYPE_CHECKING, Any

from visae.version import __version__

if TYPE_CHECKING:
    from visae.explore.features import Features
    from visae.study import Study

__all__ = ["Features", "Study", "__version__"]

_PLACES = {"Features": "visae.explore.features", "Study": "visae.study"}


def __getattr__(name: str) -> Any:
    """Import what is offered here when it is asked for: `import visae` must not wait for Matplotlib and torch."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
