"""`docs/security.md` promises nothing that no test keeps."""

from __future__ import annotations

import ast
import re

from imgflow_tests.docs_pages import ROOT

PAGE = ROOT / "docs" / "security.md"
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
FIRST, LAST = "## What is kept", "## What is not protected"
"""Headings between which every line of a list or table is a promise."""


def promises() -> list[str]:
    """Rows of the tables between the two headings, without the heads of the tables."""
    text = PAGE.read_text()
    kept = text[text.index(FIRST) : text.index(LAST)]
    rows = [line for line in kept.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.startswith(("| --", "| promise"))]


def names_of_tests(file: str) -> set[str]:
    """Names of the test functions of a file, also of those in classes."""
    tree = ast.parse((ROOT / "imgflow_tests" / file).read_text())
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_promise_names_a_test_that_exists() -> None:
    assert len(promises()) > 20
    for promise in promises():
        named = TEST.findall(promise)
        assert named, f"No test keeps: {promise}"
        for file, name in named:
            assert name in names_of_tests(file), (
                f"{file} has no {name}, which is to keep: {promise}"
            )


def test_every_file_of_attacks_keeps_a_promise() -> None:
    named = {file for promise in promises() for file, _ in TEST.findall(promise)}
    files = {f"attacks/{file.name}" for file in (ROOT / "imgflow_tests/attacks").glob("test_*.py")}
    assert files <= named
