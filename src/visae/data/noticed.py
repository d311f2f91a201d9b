"""What a listing passes over, and what it wonders at: counted by kind with one example each, so that memory is flat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from visae.notices import Notice

Level = Literal["warning", "note"]


@dataclass
class _Count:
    level: Level
    n: int = 0
    example: str = ""

    def add(self, n: int, example: str) -> None:
        self.n, self.example = self.n + n, self.example or example


class Noticed:
    """Collects while pictures are listed, and tells once all are.

    A listing fills it as it is iterated. Where it walks over its files several times, only the first walk counts: each
    begins with `first_walk`.
    """

    def __init__(self) -> None:
        self._left_out: dict[str, _Count] = {}
        self._counted: dict[str, _Count] = {}
        self._walked = False

    def first_walk(self) -> Noticed:
        """Return this collector for the first walk, and for every later one another, which nobody reads."""
        collector = Noticed() if self._walked else self
        self._walked = True
        return collector

    def leave_out(self, what: str, example: str, n: int = 1, level: Level = "note") -> None:
        """Count files that are not listed.

        Parameters
        ----------
        what
            Their kind in the plural, such as `.heic files`; it names them in summary.json.
        example
            Path or locator of one.
        level
            `warning` where they may have been meant.
        """
        self._left_out.setdefault(what, _Count(level)).add(n, example)

    def count(self, level: Level, text: str, example: str, n: int = 1) -> None:
        """Count what is listed and odd; `text` becomes a notice, with `{n}` and `{example}` filled in."""
        self._counted.setdefault(text, _Count(level)).add(n, example)

    def left_out(self) -> list[dict[str, Any]]:
        """Return what, n_files and example of all that was left out, the most first."""
        kinds = sorted(self._left_out.items(), key=lambda kind: (-kind[1].n, kind[0]))
        return [{"what": what, "n_files": count.n, "example": count.example} for what, count in kinds]

    def notices(self) -> Iterator[Notice]:
        """Yield what has to be said of it all."""
        for entry in self.left_out():
            level = self._left_out[entry["what"]].level
            read = "; convert, rename or move them if they are meant" if level == "warning" else ""
            yield Notice(level, f"left out: {entry['n_files']} {entry['what']}, such as {entry['example']}{read}")
        for text, count in self._counted.items():
            # No str.format: a path may have braces.
            yield Notice(count.level, text.replace("{n}", str(count.n)).replace("{example}", count.example))
