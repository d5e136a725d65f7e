"""Text of strangers, made harmless for the place in which it is shown.

Whoever uploads chooses keys, and files bring names of columns, cells and comments along; libraries
and servers quote them in their errors. Text that goes where text is interpreted goes through the
function of that place first. HTML is not among them: the gallery's templates escape by default.
"""

from __future__ import annotations

import json
import re
import unicodedata
from string import punctuation
from typing import Any

# Controls, which terminals obey; what turns the direction of text or is not seen at all; what ends
# a line in some places only; halves of characters, which no encoding takes.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

# Letters of some scripts, and emoji, are joined by these two.
JOINERS = "\u200c\u200d"

# Punctuation that means nothing within a line, so that ordinary keys stay as they are; where a line
# starts, some of it makes an entry of a list.
_PLAIN = ".,:;/'\"?%=+-"
_PUNCTUATION = re.compile(f"[{re.escape(''.join(set(punctuation) - set(_PLAIN)))}]")
_START = re.compile(r"^(\d*)([-+=.])")

# Made into links where they are text, whatever is escaped in them; not within code.
_ADDRESS = re.compile(r"://|www\.|@", re.IGNORECASE)
_WORD = re.compile(r"(\S+)")

# Where `[text](address)` becomes a link, and `@here` calls everybody.
_CHAT = re.compile(r"(?<=\])(?=\()|(?<=@)(?=everyone|here|channel|all)", re.IGNORECASE)


def visible(text: str, *, keep: str = "") -> str:
    r"""Text for terminals, logs and messages: characters that are not seen are spelled, as `\x1b`.

    Args:
        text: of anyone; what is spelled already stays as it is.
        keep: characters that stay, such as the line ends of a text of several lines.
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
    """Whether a character is not seen, and changes how others are."""
    return unicodedata.category(letter) in HIDDEN and letter not in JOINERS


def markdown(text: str) -> str:
    """Text within a paragraph or an entry of Markdown, in which it looks as it is."""
    parts = _WORD.split(visible(text).strip())
    return _START.sub(r"\1\\\2", "".join(map(_word, parts)))


def chat(text: str) -> str:
    """Lines for a chat, some of which make links and calls of plain text too."""
    return _CHAT.sub(" ", visible(text, keep="\n"))


def _word(text: str) -> str:
    return _code(text) if _ADDRESS.search(text) else _PUNCTUATION.sub(r"\\\g<0>", text)


def _code(text: str) -> str:
    """Text as code, between more backticks than it has itself."""
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def json_line(value: Any, **options: Any) -> str:
    r"""JSON of one line for people too: letters as they are, what is not seen as `\uXXXX`."""
    text = json.dumps(value, ensure_ascii=False, **options)
    if text.isprintable():
        return text
    # Within strings only: outside of them JSON has none of these characters.
    return "".join(json.dumps(c)[1:-1] if is_hidden(c) else c for c in text)
