"""Text of strangers looks as it is wherever it is shown, and does nothing."""

from __future__ import annotations

import json
import time
import unicodedata
from string import punctuation

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from imgflow.errors import Rejected, Trouble
from imgflow.foreign_text import HIDDEN, JOINERS, json_line, markdown, visible

HOSTILE = [
    "![x](/graphql?query=mutation)",
    "[x](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<https://evil.test>",
    "a\r\r![x](/y)",
    "a\n\n# b\n\n    c",
    "a\u2028\u2029![x](/y)",
    "- a\n- b",
    "1. a",
    "`a` ``b``",
    "~~a~~ **b** _c_ __d__",
    "[x]: /y",
    "a | b\n--|--",
    "&lt;img&gt;&#60;",
    "\\![x](/y)\\",
    "\x1b]8;;https://evil.test\x07a\x1b[2J",
    "gpj.\u202ea\u2066",
    "a\x85b\x9bc",
    "12. a",
    "=== a",
    "   - a",
    "     a",
    "www.evil.test/` http://evil.test/``a b@evil.test",
]
"""Keys that would be something else in Markdown, HTML or a terminal."""

TEXTS = {"text", "text_special", "code_inline"}

any_text = st.text(st.characters()) | st.text(punctuation + " \r\n\tab1\u2028\u202e", max_size=40)


def leaves(tokens: list[Token]) -> list[Token]:
    return [leaf for token in tokens for leaf in (leaves(token.children or []) or [token])]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_what_would_be_something_else_in_markdown_is_text(text: str) -> None:
    check_is_text(text)


@given(any_text)
def test_any_text_is_text_in_markdown(text: str) -> None:
    check_is_text(text)


def check_is_text(text: str) -> None:
    """Within a paragraph and an entry of a list, as evaluations of checks have it, and alone."""
    for page in ("such as {}: gone", "- {}: gone", "{}: gone"):
        found = leaves(MarkdownIt("commonmark").enable("table").parse(page.format(markdown(text))))
        assert {token.type for token in found} <= TEXTS | {
            *("paragraph_open", "paragraph_close", "bullet_list_open", "bullet_list_close"),
            *("list_item_open", "list_item_close"),
        }
        shown = "".join(token.content for token in found if token.type in TEXTS)
        assert shown.removeprefix("such as ").removesuffix(": gone") == visible(text).strip()


@given(any_text)
def test_nothing_hidden_is_left(text: str) -> None:
    shown = visible(text)
    assert not [c for c in shown if unicodedata.category(c) in HIDDEN and c not in JOINERS]
    assert visible(shown) == shown
    shown.encode()


@pytest.mark.parametrize("text", ["a.jpg", "Zürich/żółw 1.jpg", "写真.png", "👩\u200d🌾.jpg"])
def test_ordinary_keys_stay_as_they_are(text: str) -> None:
    assert visible(text) == text
    assert markdown(text) == text
    assert json_line(text) == f'"{text}"'


@given(any_text)
def test_json_means_the_same(text: str) -> None:
    line = json_line({"event": text})
    assert json.loads(line) == {"event": text}
    assert visible(line) == line


def test_errors_quote_strangers_without_what_they_hide() -> None:
    assert str(Trouble("a\x1b[31mb\nc")) == "a\\x1b[31mb\nc"
    assert Rejected("corrupt", "a\x1b\nb").reason == "a\\x1b\\nb"


def test_long_words_take_no_longer_than_they_are_long() -> None:
    began = time.process_time()
    assert markdown("a" * 100_000) == "a" * 100_000
    assert markdown("www." * 25_000).startswith("`www.")
    assert time.process_time() - began < 1
