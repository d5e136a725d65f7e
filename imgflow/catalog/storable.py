"""What PostgreSQL can hold: names and tags inside an image may be anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from imgflow.store.objects import is_text


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold a text at all; it refuses even to compare with others."""
    return "\0" not in text and is_text(text)


def storable_text(text: str | None) -> str | None:
    """A text that PostgreSQL takes: names and tags inside an image may hold anything."""
    if text is None or is_storable(text):
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def storable_json(value: Any) -> str:
    """Write JSON that PostgreSQL takes."""
    return json.dumps(_storable(value), allow_nan=False)


def _storable(value: Any) -> Any:
    """JSON without NUL, lone surrogates, NaN and infinity, any of which fails the whole batch."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable_text(name): _storable(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(part) for part in value]
    return value
