"""Signs and checks what lets people in without a token: picture links, sign-in keys, sessions.

One key signs them all, so any process with access to the home can make them. A link is for one
picture of one image; its signature does not fit another name, id or time. A sign-in key starts one
session. A session stands for the token that it was started with, so it ends at the latest when that
token is no longer accepted. Used keys and ended sessions are recorded in the database
(`imgflow.catalog.sessions`); access is decided in `imgflow.api.auth`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, replace
from typing import Literal

from imgflow.errors import SettingsError
from imgflow.settings.tokens import Tokens, own_key, own_token
from imgflow.settings.variables import Settings

Verdict = Literal["good", "wrong", "expired"]
Use = Literal["key", "session"]

KEY_SECONDS = 15 * 60
# A working day; opening a page of the gallery renews it.
SESSION_SECONDS = 8 * 3_600
LONGEST_SESSION_SECONDS = 7 * 86_400
# Longer than any session that another process may renew before it learns that it was ended.
REVOKED_SECONDS = 2 * SESSION_SECONDS

SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")
TIME = re.compile(r"[0-9]{1,12}")
PASS = re.compile(
    r"([0-9a-f]{16})\.([A-Za-z0-9_-]{22})\.([0-9]{1,12})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})"
)


@dataclass(frozen=True)
class Link:
    """A picture that can be read without a token.

    Attributes:
        url: Path relative to the API's root, with its signature.
        expires: Seconds since the epoch.
    """

    url: str
    expires: int


@dataclass(frozen=True)
class Pass:
    """A sign-in key or a session.

    Attributes:
        token_name: Name of the token that it stands for.
        id: Id by which it is revoked; a renewed session keeps it.
        begun: Seconds since the epoch.
        expires: Seconds since the epoch.
    """

    token_name: str
    id: str
    begun: int
    expires: int

    @property
    def renewed(self) -> Pass:
        """The pass with `SESSION_SECONDS` from now, up to the maximum length of a session."""
        expires = int(time.time() + SESSION_SECONDS)
        return replace(self, expires=min(expires, self.begun + LONGEST_SESSION_SECONDS))

    @property
    def seconds_left(self) -> int:
        """Seconds until it expires; negative afterwards."""
        return self.expires - int(time.time())


def new_pass(token_name: str, seconds: float) -> Pass:
    """Return a pass that starts now."""
    now = int(time.time())
    return Pass(token_name, secrets.token_urlsafe(16), now, int(now + seconds))


class Signatures:
    """Signs and checks with one key."""

    def __init__(self, key: str, source: str) -> None:
        """Store the secret.

        Args:
            key: Secret, the same for all processes of one API.
            source: URL of the images' source, which is part of everything that is signed.
        """
        self._key = hashlib.sha256(key.encode()).digest()
        self._source = source

    def link(self, image_id: int, picture: str, seconds: float) -> Link:
        """Make a link to a picture of an image that works for some seconds from now."""
        expires = int(time.time() + seconds)
        signature = self._sign("picture", str(image_id), picture, str(expires))
        url = f"/images/{image_id}/{picture}?expires={expires}&signature={signature}"
        return Link(url, expires)

    def check_link(self, image: str, picture: str, expires: str, signature: str) -> Verdict:
        """Check the signature in a request for a picture.

        All values are as the caller sent them. Links are made with ids only, so an `image` that is
        a key never fits.
        """
        wanted = self._sign("picture", image, picture, expires)
        return self._judge(wanted, signature, expires)

    def write(self, use: Use, given: Pass) -> str:
        """Return a pass as signed text, valid either as a sign-in key or as a session, not both."""
        parts = (given.token_name, given.id, str(given.begun), str(given.expires))
        return ".".join((*parts, self._sign(use, *parts)))

    def read(self, use: Use, text: str) -> Pass | None:
        """Return the pass in a signed text; None if it is invalid or has expired."""
        match = PASS.fullmatch(text)
        if match is None:
            return None
        *parts, signature = match.groups()
        name, pass_id, begun, expires = parts
        if self._judge(self._sign(use, *parts), signature, expires) != "good":
            return None
        return Pass(name, pass_id, int(begun), int(expires))

    def _judge(self, wanted: str, signature: str, expires: str) -> Verdict:
        is_signed = bool(SIGNATURE.fullmatch(signature) and TIME.fullmatch(expires))
        if not is_signed or not hmac.compare_digest(wanted, signature):
            return "wrong"
        return "good" if time.time() < int(expires) else "expired"

    def _sign(self, *parts: str) -> str:
        text = "\0".join((self._source, *parts))
        digest = hmac.new(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")


def tokens_of(settings: Settings) -> Tokens:
    """Return the tokens from the setting, or the one in the home.

    Raises:
        SettingsError: The one in the home cannot be read or made.
    """
    return Tokens.parse(settings.api_token or own_token(settings.home))


def signatures_of(settings: Settings) -> Signatures:
    """Return signatures by the key from the setting, or by the one in the home.

    Raises:
        SettingsError: The one in the home cannot be read or made.
    """
    source, _ = settings.stores.locations()
    return Signatures(settings.link_key or own_key(settings.home), source.url)


def sign_in_link(settings: Settings) -> str:
    """Make a link that signs a browser in once, with the token that has the most scopes.

    Raises:
        SettingsError: The token or the key in the home cannot be read or made.
    """
    token = tokens_of(settings).widest()
    if token is None:
        raise SettingsError("There is no token to sign in with; set IMGFLOW_API_TOKEN.")
    key = signatures_of(settings).write("key", new_pass(token.name, KEY_SECONDS))
    return f"{settings.links_url}/sign-in?key={key}"
