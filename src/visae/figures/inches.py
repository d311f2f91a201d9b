"""A page on which things are placed in inches."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from visae.figures.style import PAGE_WIDTH


class Page:
    """A figure in inches from its upper left corner."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.figure, self.height = figure, height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes of a size at a place."""
        box = (left / PAGE_WIDTH, 1 - (top + height) / self.height, width / PAGE_WIDTH, height / self.height)
        return self.figure.add_axes(box)

    def text(self, left: float, top: float, text: str, **options: Any) -> None:
        """Text below a place."""
        self.figure.text(left / PAGE_WIDTH, 1 - top / self.height, text, va="top", **options)
