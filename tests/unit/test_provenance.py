from pathlib import Path

import pytest

from visae import provenance


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "visae"
    folder.mkdir()
    for name in ("__init__", "errors"):
        (folder / f"{name}.py").write_text("X = 1\n")
    (folder / "upper.py").write_text("from visae.lower import f\nfrom visae.errors import X\n")
    (folder / "lower.py").write_text('def f():\n    """Say it."""\n    return 1\n')
    (folder / "apart.py").write_text("Y = 1\n")
    monkeypatch.setattr(provenance, "_PACKAGE", folder)
    return folder


def fingerprint(module: str) -> str:
    provenance.code_fingerprint.cache_clear()
    provenance._read.cache_clear()
    return provenance.code_fingerprint(module)


def test_a_changed_function_below_changes_the_fingerprint(package: Path) -> None:
    before = fingerprint("visae.upper")
    (package / "lower.py").write_text('def f():\n    """Say it."""\n    return 2\n')
    assert fingerprint("visae.upper") != before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("lower.py", 'def f():\n    """Say it better."""\n    # a comment\n    return 1\n'),
        ("apart.py", "Y = 2\n"),
        ("errors.py", "X = 2\n"),
    ],
)
def test_what_cannot_change_a_result_does_not(package: Path, file: str, text: str) -> None:
    before = fingerprint("visae.upper")
    (package / file).write_text(text)
    assert fingerprint("visae.upper") == before
