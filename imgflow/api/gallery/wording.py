"""Keys, sizes and times as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# Control characters, and those that turn the direction of what follows: a key may hold any of them,
# and must not look like another key.
HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
FAMILIAR = {"\n": "↵", "\t": "⇥"}

UNITS = ("B", "KB", "MB", "GB", "TB")
THOUSAND = 1_000
TEN = 10

STATE_WORDS = {"ready": "Ready", "pending": "Waiting", "rejected": "Rejected"}
KIND_WORDS = {"photo": "Photograph", "depth": "Depth image"}


def shown(text: str) -> str:
    """A text with its invisible characters made visible."""
    return HIDDEN.sub(lambda match: _visible(match.group()), text)


def parts_of(key: str) -> tuple[str, str]:
    """The folder of a key, with its slash, and its name; both to be shown."""
    end = len(key.rstrip("/"))
    start = key.rfind("/", 0, end) + 1
    return shown(key[:start]), shown(key[start:]) or shown(key)


def size_of(count: int) -> str:
    """Bytes in a unit that keeps the number short."""
    number = float(count)
    for unit in UNITS:
        if number < THOUSAND or unit == UNITS[-1]:
            break
        number /= THOUSAND
    return f"{number:.1f} {unit}" if unit != "B" and number < TEN else f"{number:.0f} {unit}"


def time_of(moment: datetime) -> str:
    """A time in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _visible(character: str) -> str:
    return FAMILIAR.get(character) or f"⟨U+{ord(character):04X}⟩"
