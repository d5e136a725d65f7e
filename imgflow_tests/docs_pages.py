"""The pages of the documentation as their readers get them: blocks, links, anchors and names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
MARKDOWN = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path below the root, such as `docs/api.md`.
        line: in which it begins, from 1.
        language: what stands behind the fence.
        text: what stands in it.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """All pages of the repository."""
    folders = (ROOT.glob("*.md"), (ROOT / "docs").rglob("*.md"))
    return sorted(str(file.relative_to(ROOT)) for folder in folders for file in folder)


@cache
def tokens(page: str) -> tuple[Token, ...]:
    return tuple(MARKDOWN.parse((ROOT / page).read_text()))


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in its order."""
    return [
        Block(page, token.map[0] + 1, token.info.strip(), token.content)
        for token in tokens(page)
        if token.type == "fence" and token.map
    ]


def inline(page: str) -> Iterator[Token]:
    """Links, pictures, code and text within paragraphs, headings and tables."""
    for token in tokens(page):
        yield from token.children or ()


def links(page: str) -> list[str]:
    """Where the links of a page lead, and its pictures lie."""
    names = {"link_open": "href", "image": "src"}
    return [str(token.attrs[names[token.type]]) for token in inline(page) if token.type in names]


def code(page: str) -> list[str]:
    """What stands between backticks."""
    return [token.content for token in inline(page) if token.type == "code_inline"]


def anchors(page: str) -> set[str]:
    """Names of a page's headings, as code hosts make them."""
    found: set[str] = set()
    seen: dict[str, int] = {}
    lines = iter(tokens(page))
    for token in lines:
        if token.type != "heading_open":
            continue
        children = next(lines).children or ()
        kinds = ("text", "code_inline")
        name = slug("".join(child.content for child in children if child.type in kinds))
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.add(f"{name}-{count}" if count else name)
    return found


def slug(heading: str) -> str:
    """The anchor of a heading: letters, digits, blanks as hyphens."""
    kept = (
        letter
        for letter in heading.strip().lower()
        if letter in " -_" or unicodedata.category(letter)[0] in "LN"
    )
    return re.sub(r"\s", "-", "".join(kept))
