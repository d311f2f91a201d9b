"""Where a result came from, and whether the code that made it has changed."""

from __future__ import annotations

import ast
import functools
import hashlib
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from visae.files import file_sha256
from visae.version import __version__

_PACKAGE = Path(__file__).parent
# These carry settings, files, messages and bars to a stage; what of them matters is in the job's spec already.
_WITHOUT_EFFECT = (
    *("visae.config", "visae.errors", "visae.progress", "visae.provenance", "visae.files", "visae.device"),
    *("visae.sae.sources", "visae.sae.hub"),
)


class Provenance:
    """Clock and record of one job; `record()` is what every JSON summary carries.

    Parameters
    ----------
    settings
        The config section (a frozen dataclass) that the job was run with.
    inputs
        Small files that decide the result (manifests, indexes, cards): their sha256 is kept.
    seed, device
        As used.
    """

    def __init__(self, settings: Any, inputs: Iterable[str | Path], seed: int, device: str) -> None:
        self._started = time.monotonic()
        paths = [Path(path) for path in inputs]
        names = [path.name for path in paths]
        self._fields = {
            "visae_version": __version__,
            "git_commit": git_commit(),
            "settings": asdict(settings),
            # Of two files of one name, the whole paths.
            "inputs": {
                path.name if names.count(path.name) == 1 else path.as_posix(): file_sha256(path) for path in paths
            },
            "seed": seed,
            "device": device,
        }

    def record(self) -> dict[str, Any]:
        """Return the record, wall time until now included."""
        return {**self._fields, "wall_seconds": round(time.monotonic() - self._started, 3)}


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that the package runs from, marked `-dirty` where it was changed; None outside git."""
    command = ["git", "-C", str(_PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


@functools.cache
def code_fingerprint(module: str) -> str:
    """Hash of a module's code and of all of visae that it imports, docstrings and comments left out.

    A rule passes it as a parameter: then a changed library function runs the jobs again whose result it
    may change, and a reworded comment runs nothing.

    Parameters
    ----------
    module
        Dotted name below `visae`, such as `visae.sae.trainer`.
    """
    digest = hashlib.sha256()
    for name in sorted(_reached(module)):
        digest.update(f"{name} {_read(name).code}\n".encode())
    return digest.hexdigest()[:16]


class _Source(NamedTuple):
    """What a module's text amounts to: a hash of its code, and the modules of visae that it imports."""

    code: str
    imports: list[str]


@functools.cache
def _read(module: str) -> _Source:
    tree = ast.parse(_source(module).read_text(encoding="utf-8"))
    imports = _imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return _Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports)


def _reached(module: str) -> set[str]:
    """Modules of visae that `module` reaches by imports, itself included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name == "visae" or name.startswith(_WITHOUT_EFFECT):
            continue
        found.add(name)
        waiting.extend(_read(name).imports)
    return found


def _imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("visae.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "visae":
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                names.append(submodule if _exists(submodule) else str(node.module))
    return names


def _exists(module: str) -> bool:
    base = _PACKAGE.parent.joinpath(*module.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _source(module: str) -> Path:
    base = _PACKAGE.parent.joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not path.is_file():
        raise ModuleNotFoundError(f"{module} is not part of visae")
    return path
