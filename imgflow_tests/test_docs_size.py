"""The documentation stays short: the README fits a few screens, and a terminal shows every line.

Words are counted as `wc -w` counts them, in the README, CONTRIBUTING and every page below `docs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from imgflow_tests.docs_pages import ROOT, pages, tokens

README_LINES = 110
WORDS = 29_750
WIDTH = 120
PAGES = [page for page in pages() if page != "CHANGELOG.md"]
NOT_PROSE = ("fence", "code_block", "table_open", "html_block")
"""Blocks whose lines may be longer: code is copied, and a row of a table is one line."""


def prose(page: str) -> Iterator[tuple[int, str]]:
    """The lines of a page outside code and tables, from 1, without the addresses of links."""
    lines = (ROOT / page).read_text().splitlines()
    other: set[int] = set()
    for token in tokens(page):
        if token.type in NOT_PROSE and token.map:
            other.update(range(*token.map))
    for number, line in enumerate(lines):
        if number not in other:
            yield number + 1, re.sub(r"\]\([^)]*\)", "]", line)


def test_the_readme_fits_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES


def test_all_documents_together_are_short() -> None:
    words = {page: len((ROOT / page).read_text().split()) for page in PAGES}
    assert sum(words.values()) <= WORDS, sorted(words.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_prose_is_wider_than_a_terminal(page: str) -> None:
    wide = [f"{page}:{number}" for number, line in prose(page) if len(line) > WIDTH]
    assert not wide
