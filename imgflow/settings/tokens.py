"""The API's tokens: parses `IMGFLOW_API_TOKEN`, finds out what a token allows, and makes one.

Objects keep no token's value, so none can be shown by accident. The key that signs links is made
and kept in the home the same way. Checking requests is in `imgflow.api.auth`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imgflow.errors import SettingsError
from imgflow.home import make_home

Scope = Literal["read", "write"]
SCOPES: tuple[Scope, ...] = ("read", "write")

FILE_NAME = "api-token"
KEY_FILE_NAME = "link-key"

# What a header can carry without quoting; `,` and `:` separate tokens and scopes in the setting.
WELL_FORMED = re.compile(r"[!#-+\--9;-~]+")


@dataclass(frozen=True)
class Token:
    """One token, known by its digest.

    Attributes:
        digest: SHA-256 of the token, so that comparing does not leak the token's length.
        scopes: What requests with this token may do.
    """

    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]

    @property
    def name(self) -> str:
        """A public name for the token: 16 hexadecimal digits of a digest of the digest."""
        return hashlib.sha256(b"name of " + self.digest).hexdigest()[:16]


class Tokens:
    """The tokens that the API accepts."""

    def __init__(self, tokens: Iterable[Token]) -> None:
        """Accept these tokens; if there are none, nobody is let in."""
        self._tokens = tuple(tokens)

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Parse `TOKEN` (all scopes) and `TOKEN:scope`, separated by commas.

        Raises:
            ValueError: One is malformed; the message has its position, never its value.
        """
        scopes_of: dict[bytes, frozenset[Scope]] = {}
        for place, part in enumerate(text.split(","), 1):
            value, colon, name = part.strip().partition(":")
            scopes = [scope for scope in SCOPES if not colon or scope == name]
            if not WELL_FORMED.fullmatch(value) or not scopes:
                raise ValueError(
                    f"number {place} is neither TOKEN nor TOKEN:read nor TOKEN:write; a token is "
                    "made of visible ASCII without commas, colons and quotes"
                )
            digest = _digest(value)
            scopes_of[digest] = scopes_of.get(digest, frozenset()) | frozenset(scopes)
        return cls(Token(digest, scopes) for digest, scopes in scopes_of.items())

    def scopes(self, given: str) -> frozenset[Scope] | None:
        """What a token allows; None if it is unknown.

        Takes the same time whether and wherever one matches.
        """
        found = self.find(given)
        return None if found is None else found.scopes

    def find(self, given: str) -> Token | None:
        """The token with this value; takes the same time whether and wherever one matches."""
        digest = _digest(given)
        found: Token | None = None
        for token in self._tokens:
            if hmac.compare_digest(digest, token.digest):
                found = token
        return found

    def widest(self) -> Token | None:
        """The first of the tokens that allow the most; None if there are no tokens."""
        return max(self._tokens, key=lambda token: len(token.scopes), default=None)

    def named(self, name: str) -> Token | None:
        """The token with this name, which sessions carry; None if it is no longer accepted."""
        return next((token for token in self._tokens if token.name == name), None)


def own_token(home: Path) -> str:
    """The token in the home, which only its owner can read; the first call creates it.

    Raises:
        SettingsError: The token cannot be read or created.
    """
    return _own_secret(home / FILE_NAME, "The API's token", "IMGFLOW_API_TOKEN")


def own_key(home: Path) -> str:
    """The key in the home that signs links, which only its owner can read; created like the token.

    Raises:
        SettingsError: The key cannot be read or created.
    """
    return _own_secret(home / KEY_FILE_NAME, "The key of picture links", "IMGFLOW_LINK_KEY")


def _own_secret(file: Path, what: str, setting: str) -> str:
    try:
        if not file.exists():
            _make(file)
        value = file.read_text(encoding="utf-8").strip()
        Tokens.parse(value)
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it holds no token"
        raise SettingsError(
            f"{what} in {file} cannot be used ({cause}). Delete the file, so that a new "
            f"one is made, or set {setting}."
        ) from None
    return value


def _make(file: Path) -> None:
    """Write a random secret atomically, since several processes may do so at the same time."""
    make_home(file.parent)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)  # mode 0600
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(f"{secrets.token_urlsafe(32)}\n")
        try:
            os.link(draft, file)  # fails where another process was first
        except FileExistsError:
            return
    finally:
        draft.unlink()


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
