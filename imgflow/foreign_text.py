"""Text of strangers, made harmless for the place it is shown in.

Whoever uploads chooses keys, and files bring names of columns, cells and messages of decoders along.
Wherever such text goes into a place that interprets what it is given, it goes through the function
of that place. HTML is not here: the gallery's templates escape by default.
"""

from __future__ import annotations

import re
import unicodedata
from string import punctuation

# Letters of some scripts, and emoji, are joined by these two.
JOINERS = "\u200c\u200d"

# Controls, which terminals obey; what turns the direction of text, or is not seen at all; what ends
# a line in some places; halves of characters, which cannot be encoded.
SPELLED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

_MARKDOWN = re.compile(f"([{re.escape(punctuation)}])")


def visible(text: str, *, keep: str = "") -> str:
    r"""A text for terminals, logs and plain messages: what is not seen is spelled, as `\x1b`.

    Args:
        text: of anyone.
        keep: characters that stay, such as line ends of a text of several lines.
    """
    if text.isprintable():
        return text
    return "".join(
        _spelled(letter)
        if unicodedata.category(letter) in SPELLED and letter not in keep and letter not in JOINERS
        else letter
        for letter in text
    )


def markdown(text: str) -> str:
    """A text of one line for a place that renders Markdown, in which it looks as it is."""
    return _MARKDOWN.sub(r"\\\1", visible(text))


def _spelled(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
