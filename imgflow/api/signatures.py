"""Signed picture links and sessions: what may be done without a token, and until when.

Both are signed with one key and are stored nowhere. A link is for one picture of one image; another
name, id or time does not fit its signature. A session stands for the token that it was begun with,
so it ends at the latest when that token is not taken any more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "wrong", "expired"]

SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")
TIME = re.compile(r"[0-9]{1,12}")
SESSION = re.compile(r"([0-9a-f]{16})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class Link:
    """A picture that can be read without a token.

    Attributes:
        url: path below the API, with its signature.
        expires: seconds since the epoch.
    """

    url: str
    expires: int


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

    def session(self, token_name: str, seconds: float) -> str:
        """Make the value of a cookie that stands for a token for a while from now."""
        expires = str(int(time.time() + seconds))
        return f"{token_name}.{expires}.{self._sign('session', token_name, expires)}"

    def token_of(self, session: str) -> str | None:
        """The name of the token that a session stands for; None when it is not good any more."""
        match = SESSION.fullmatch(session)
        if match is None:
            return None
        name, expires, signature = match.groups()
        wanted = self._sign("session", name, expires)
        return name if self._judge(wanted, signature, expires) == "good" else None

    def _judge(self, wanted: str, signature: str, expires: str) -> Verdict:
        is_signed = bool(SIGNATURE.fullmatch(signature) and TIME.fullmatch(expires))
        if not is_signed or not hmac.compare_digest(wanted, signature):
            return "wrong"
        return "good" if time.time() < int(expires) else "expired"

    def _sign(self, *parts: str) -> str:
        text = "\0".join((self._source, *parts))
        digest = hmac.new(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256)
        return base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
