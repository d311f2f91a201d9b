"""What the doctor says: findings in sections, each with the line that mends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from visae.errors import VisaeError
from visae.notices import Notice

Level = Literal["fine", "odd", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line: how it is, and what to change where it is not fine."""

    level: Level
    text: str
    mend: str = ""


@dataclass
class Section:
    """What was found of one part of a study."""

    title: str
    findings: list[Finding] = field(default_factory=list)

    def fine(self, text: str) -> None:
        """Add what is as it should be."""
        self.findings.append(Finding("fine", text))

    def odd(self, text: str, mend: str = "") -> None:
        """Add what may be meant, and may be a mistake."""
        self.findings.append(Finding("odd", text, mend))

    def wrong(self, text: str, mend: str = "") -> None:
        """Add what would stop the study, or make its numbers wrong."""
        self.findings.append(Finding("wrong", text, mend))

    def notices(self, notices: Iterable[Notice]) -> None:
        """Add notices of a data set or model: a warning is odd."""
        for notice in notices:
            self.findings.append(Finding("odd" if notice.level == "warning" else "fine", notice.text))

    def soften(self) -> None:
        """Turn what is wrong into something odd, where nothing depends on it."""
        self.findings = [replace(each, level="odd") if each.level == "wrong" else each for each in self.findings]

    @contextmanager
    def looking(self, what: str) -> Iterator[None]:
        """Turn an error of visae's own into something wrong, and any other into something that was not seen."""
        try:
            yield
        except VisaeError as error:
            for line in str(error).splitlines():
                self.wrong(line)
        except Exception as error:  # one look that fails must not hide all others
            self.odd(f"{what} could not be looked at: {type(error).__name__}: {error}")


def lines_of(sections: Iterable[Section]) -> Iterator[str]:
    """Lines of a report, the numbers of what is odd and wrong last."""
    numbers = {"odd": 0, "wrong": 0}
    for section in sections:
        yield section.title
        for finding in section.findings:
            if finding.level in numbers:
                numbers[finding.level] += 1
            first, *rest = finding.text.splitlines() or [""]
            yield f"  {finding.level:6} {first}"
            yield from (f"         {line}" for line in rest)
            if finding.mend:
                yield f"         -> {finding.mend}"
        yield ""
    yield ", ".join(f"{number} {level}" for level, number in numbers.items())


def is_wrong(sections: Iterable[Section]) -> bool:
    """Whether anything is."""
    return any(finding.level == "wrong" for section in sections for finding in section.findings)
