"""Whoever calls a function has to keep its parameters in mind: a public one takes eight at most."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "visae"
MOST = 8


def public_functions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Public functions of a module, and public methods of its public classes, constructors among them."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            yield within + node.name, node


def parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def too_long(text: str) -> dict[str, int]:
    found = {name: len(parameters(function)) for name, function in public_functions(ast.parse(text).body)}
    return {name: count for name, count in found.items() if count > MOST}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_public_function_takes_eight_parameters_at_most(path: Path) -> None:
    assert too_long(path.read_text()) == {}


def test_longer_ones_are_found() -> None:
    nine = ", ".join(f"p{number}" for number in range(MOST + 1))
    text = f"class Of:\n    def method(self, {nine}): ...\n    def _own(self, {nine}): ...\ndef f(*, {nine}): ...\n"
    assert too_long(text) == {"Of.method": 9, "f": 9}
