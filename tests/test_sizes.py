"""No file of more than 400 lines and no function of more than 60 (CONTRIBUTING.md): what wants more is two concepts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("agent", "gossip", "attestation", "contracts", "tests", "benchmarks")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def too_long(source: str, where: str) -> Iterator[str]:
    """What is too long in one file; the lines of a function are counted from its `def`."""
    lines = source.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{where}: {lines} lines; move a concept into a file of its own"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{where}:{node.lineno}: {node.name} has {length} lines; split it"


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_functions_stay_readable(package: str) -> None:
    files = [path for path in sorted((ROOT / package).rglob("*.py")) if "node_modules" not in path.parts]
    assert files
    found = [each for path in files for each in too_long(path.read_text(), str(path.relative_to(ROOT)))]
    assert not found, "\n".join(found)


def test_what_is_too_long_is_found() -> None:
    function = "async def long() -> None:\n" + "    pass\n" * FUNCTION_LINES_MAX
    assert list(too_long(function, "a.py")) == ["a.py:1: long has 61 lines; split it"]
    assert list(too_long("x = 1\n" * FILE_LINES_MAX, "a.py")) == []
    over = list(too_long("x = 1\n" * (FILE_LINES_MAX + 1), "a.py"))
    assert over == ["a.py: 401 lines; move a concept into a file of its own"]
