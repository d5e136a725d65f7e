"""Escapes untrusted text for the place where it is shown.

Uploaders choose keys, and files contain column names, cells and comments; libraries and servers
quote all of these in their errors. There is one function for each place that interprets text:
terminals, Markdown, chats, JSON lines. HTML needs none, since the gallery's templates escape by
default.
"""

from __future__ import annotations

import json
import re
import unicodedata
from string import punctuation
from typing import Any

# Control characters, which terminals obey; invisible or direction-changing characters; characters
# that end a line only in some places; lone surrogates, which no encoding accepts.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# These two join emoji, and letters of some scripts.
JOINERS = "\u200c\u200d"

# Punctuation without meaning inside a line, so ordinary keys stay as they are; at the start of a
# line, some of it makes a list item.
_PLAIN = ".,:;/'\"?%=+-"
_PUNCTUATION = re.compile(f"[{re.escape(''.join(set(punctuation) - set(_PLAIN)))}]")
_START = re.compile(r"^(\d*)([-+=.])")

# These become links in text, however they are escaped, but not within code.
_ADDRESS = re.compile(r"://|www\.|@", re.IGNORECASE)
_WORD = re.compile(r"(\S+)")

# In chats `[text](address)` becomes a link, and `@here` notifies everybody.
_CHAT = re.compile(r"(?<=\])(?=\()|(?<=@)(?=everyone|here|channel|all)", re.IGNORECASE)


def visible(text: str, *, keep: str = "") -> str:
    r"""Escape invisible characters, as `\x1b`, for terminals, logs and messages.

    Args:
        text: Untrusted text; existing escapes stay as they are.
        keep: Characters not to escape, such as the line ends of multi-line text.
    """
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode()
        if is_hidden(letter) and letter not in keep
        else letter
        for letter in text
    )


def is_hidden(letter: str) -> bool:
    """Return whether a character is invisible but may change how others are shown."""
    return unicodedata.category(letter) in HIDDEN and letter not in JOINERS


def markdown(text: str) -> str:
    """Escape text so that it appears verbatim in a Markdown paragraph or list item."""
    parts = _WORD.split(visible(text).strip())
    return _START.sub(r"\1\\\2", "".join(map(_word, parts)))


def chat(text: str) -> str:
    """Escape lines for chats, some of which turn even plain text into links and mentions."""
    return _CHAT.sub(" ", visible(text, keep="\n"))


def _word(text: str) -> str:
    return _code(text) if _ADDRESS.search(text) else _PUNCTUATION.sub(r"\\\g<0>", text)


def _code(text: str) -> str:
    """Return text as code, fenced by more backticks than it contains."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def json_line(value: Any, **options: Any) -> str:
    r"""Return one line of readable JSON: only invisible characters become `\uXXXX`."""
    text = json.dumps(value, ensure_ascii=False, **options)
    if text.isprintable():
        return text
    # This affects only strings: JSON has none of these characters outside them.
    return "".join(json.dumps(c)[1:-1] if is_hidden(c) else c for c in text)
