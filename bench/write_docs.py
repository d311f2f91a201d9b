"""Write the tables in docs anew, each where a comment names the command that prints it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Commands are `-m bench.markdown …` or `-m visae …`, with or without `python` before them.
TABLE = re.compile(
    r"^(<!-- (?:python )?(-m (?:bench\.markdown|visae) [^>]*) -->\n)(.*?)^(<!-- end -->)", re.MULTILINE | re.DOTALL
)


def printed(command: str) -> str:
    done = subprocess.run([sys.executable, *command.split()], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        written = TABLE.sub(lambda found: found[1] + printed(found[2]) + found[4], text)
        if written != text:
            page.write_text(written)


if __name__ == "__main__":
    main()
