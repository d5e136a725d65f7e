"""Every reason for which an image is rejected or waits comes with what a person does about it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import imgflow
from imgflow.advice import ADVICE, ANOTHER_FILE, advice, with_advice
from imgflow.errors import TROUBLE_CODES

PACKAGE = Path(imgflow.__file__).parent


def codes_in(file: Path) -> Iterator[str]:
    """The codes that a module rejects with: `Rejected(code, …)` and `rejected(task, code, …)`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        place = {"Rejected": 0, "Withheld": 0, "rejected": 1}.get(node.func.id)
        if place is not None:
            code = node.args[place]
            if isinstance(code, ast.Constant):
                yield str(code.value)
            else:
                assert ast.unparse(code) == "rejection.code", f"{file}: {ast.unparse(node)}"


def test_every_code_has_a_advice_and_every_advice_a_code() -> None:
    codes = {code for file in PACKAGE.rglob("*.py") for code in codes_in(file)}
    assert {"truncated", "ragged_row", "archived", "crashed"} <= codes
    assert codes | set(TROUBLE_CODES) == set(ADVICE)


def test_every_advice_is_a_sentence_that_begins_with_what_to_do() -> None:
    for code, text in ADVICE.items():
        assert text[0].isupper(), code
        assert text.endswith("."), code


def test_a_code_of_another_package_has_the_general_answer() -> None:
    assert advice("no_faces") == advice(None) == ANOTHER_FILE


def test_reason_and_advice_are_two_sentences_unless_the_reason_says_it_already() -> None:
    expected = f"line 3 has 2 cells where the header has 3. {ADVICE['ragged_row']}"
    for reason in (
        "line 3 has 2 cells where the header has 3",
        "line 3 has 2 cells where the header has 3.",
    ):
        assert with_advice(reason, "ragged_row") == expected
    assert (
        with_advice("it is archived: `aws s3api …`", "archived") == "it is archived: `aws s3api …`"
    )
