"""What lets people in without a token: picture links, sign-in keys and sessions.

All are signed with one key, so whoever has the home can make them, whichever process serves them. A
link is for one picture of one image; another name, id or time does not fit its signature. A sign-in
key begins one session, and a session stands for the token that it was begun with, so it ends at the
latest when that token is no longer accepted. That a key was used or a session was ended is in the
database (`imgflow.catalog.postgres.sessions`).
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
# A working day without a page of the gallery; each page renews it.
SESSION_SECONDS = 8 * 3_600
LONGEST_SESSION_SECONDS = 7 * 86_400
# Longer than any session that another process may renew before it learns of the end.
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
        url: path below the API, with its signature.
        expires: seconds since the epoch.
    """

    url: str
    expires: int


@dataclass(frozen=True)
class Pass:
    """A sign-in key or a session.

    Attributes:
        token_name: of the token that it stands for.
        id: what it is revoked by; a renewed session keeps it.
        begun: seconds since the epoch.
        expires: seconds since the epoch.
    """

    token_name: str
    id: str
    begun: int
    expires: int

    @property
    def renewed(self) -> Pass:
        """The same for another while, up to the longest that a session may last."""
        expires = int(time.time() + SESSION_SECONDS)
        return replace(self, expires=min(expires, self.begun + LONGEST_SESSION_SECONDS))

    @property
    def seconds_left(self) -> int:
        """Until it expires."""
        return self.expires - int(time.time())


def new_pass(token_name: str, seconds: float) -> Pass:
    """A pass that begins now."""
    now = int(time.time())
    return Pass(token_name, secrets.token_urlsafe(16), now, int(now + seconds))


class Signatures:
    """Signs and checks with one key."""

    def __init__(self, key: str, source: str) -> None:
        """Take a secret.

        Args:
            key: the same for all processes of one API.
            source: whose images are meant; a part of everything that is signed.
        """
        self._key = hashlib.sha256(key.encode()).digest()
        self._source = source

    def link(self, image_id: int, picture: str, seconds: float) -> Link:
        """Sign the picture of an image for a while from now."""
        expires = int(time.time() + seconds)
        signature = self._sign("picture", str(image_id), picture, str(expires))
        url = f"/images/{image_id}/{picture}?expires={expires}&signature={signature}"
        return Link(url, expires)

    def check_link(self, image: str, picture: str, expires: str, signature: str) -> Verdict:
        """Judge what a request for a picture bears.

        Args:
            image: as the path names it; links are made with ids only.
            picture: last segment of the path.
            expires: parameter.
            signature: parameter.
        """
        wanted = self._sign("picture", image, picture, expires)
        return self._judge(wanted, signature, expires)

    def write(self, use: Use, given: Pass) -> str:
        """A pass as text that only this key can make, and that is good for one use only."""
        parts = (given.token_name, given.id, str(given.begun), str(given.expires))
        return ".".join((*parts, self._sign(use, *parts)))

    def read(self, use: Use, text: str) -> Pass | None:
        """The pass that a text is; None when it is not valid, or not any more."""
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
    """The tokens of the setting, or the one in the home.

    Raises:
        SettingsError: the one in the home cannot be read or made.
    """
    return Tokens.parse(settings.api_token or own_token(settings.home))


def signatures_of(settings: Settings) -> Signatures:
    """What signs with the key of the setting, or with the one in the home.

    Raises:
        SettingsError: the one in the home cannot be read or made.
    """
    source, _ = settings.stores.locations()
    return Signatures(settings.link_key or own_key(settings.home), source.url)


def sign_in_link(settings: Settings) -> str:
    """Make a link that signs a browser in once, with all that the settings' tokens allow.

    Raises:
        SettingsError: the token or the key in the home cannot be read or made.
    """
    token = tokens_of(settings).widest()
    if token is None:
        raise SettingsError("There is no token to sign in with; set IMGFLOW_API_TOKEN.")
    key = signatures_of(settings).write("key", new_pass(token.name, KEY_SECONDS))
    return f"{settings.links_url}/sign-in?key={key}"
