"""Write the tables of benchmarks into docs anew, each where a comment names the command that prints it."""

from __future__ import annotations

import re
from pathlib import Path

from markdown import markdown

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(r"^(<!-- bench/markdown\.py (\S+) ?([^>]*?) -->\n).*?^(<!-- end -->)", re.MULTILINE | re.DOTALL)


def main() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        written = TABLE.sub(lambda found: found[1] + markdown(ROOT / found[2], found[3].split()) + found[4], text)
        if written != text:
            page.write_text(written)


if __name__ == "__main__":
    main()
