"""Formats keys, sizes, times and states for people, in the gallery's templates and cards."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# Control characters, and characters that change the text direction: a key may contain any of them,
# and must not look like another key.
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
FAMILIAR = {"\n": "↵", "\t": "⇥"}

UNITS = ("B", "KB", "MB", "GB", "TB")
THOUSAND = 1_000
TEN = 10

STATE_WORDS = {"ready": "Ready", "pending": "Waiting", "rejected": "Rejected"}
KIND_WORDS = {"photo": "Photograph", "depth": "Depth image"}


def shown(text: str) -> str:
    """Make the invisible characters of a text visible."""
    return HIDDEN.sub(lambda match: _visible(match.group()), text)


def parts_of(key: str) -> tuple[str, str]:
    """Split a key into its folder, with its slash, and its name, both ready to be shown."""
    end = len(key.rstrip("/"))
    start = key.rfind("/", 0, end) + 1
    return shown(key[:start]), shown(key[start:]) or shown(key)


def size_of(count: int) -> str:
    """Format a number of bytes in a unit that keeps it short; a KB is 1,000 bytes."""
    number = float(count)
    for unit in UNITS:
        if number < THOUSAND or unit == UNITS[-1]:
            break
        number /= THOUSAND
    return f"{number:.1f} {unit}" if unit != "B" and number < TEN else f"{number:.0f} {unit}"


def time_of(moment: datetime) -> str:
    """Format a time in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _visible(character: str) -> str:
    return FAMILIAR.get(character) or f"⟨U+{ord(character):04X}⟩"
