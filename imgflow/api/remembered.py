"""What a process remembers of URLs that it fetched, so that the same one costs no bytes again.

Nothing depends on it: whoever remembers nothing fetches, and comes to the same answer.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

Found = TypeVar("Found")

MOST_REMEMBERED = 4_096

# Parameters that sign a URL: of S3 (two versions), CloudFront, Google and Azure.
SIGNING = ("x-amz-", "x-goog-")
SIGNING_NAMES = frozenset(
    {
        *("awsaccesskeyid", "expires", "signature", "policy", "key-pair-id"),
        *("googleaccessid", "sig", "se", "st", "sp", "sv", "sr", "spr", "skoid", "sktid", "skt"),
        *("ske", "sks", "skv"),
    }
)


class Body(NamedTuple):
    """What was found under an address: the server's tag of it, and what it is."""

    etag: str
    sha256: str


class Rejection(NamedTuple):
    """Why some bytes are no photograph."""

    reason: str | None
    code: str | None


class Recent(Generic[Found]):
    """The last few thousand things that were found, by a digest; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Found] = OrderedDict()

    def get(self, digest: str) -> Found | None:
        """What was found, if it is still remembered."""
        return self._found.get(digest)

    def put(self, digest: str, found: Found) -> None:
        """Remember, and forget what was put longest ago."""
        with self._lock:
            self._found[digest] = found
            self._found.move_to_end(digest)
            if len(self._found) > MOST_REMEMBERED:
                self._found.popitem(last=False)

    def __repr__(self) -> str:
        return f"Recent({dict(self._found)!r})"


def digest_of(url: str) -> str:
    """What a URL leads to, whoever signed it and when; a digest, so that it holds no secret."""
    try:
        parts = urlsplit(url)
    except ValueError:  # whoever fetches it says what is wrong with it
        return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() not in SIGNING_NAMES and not name.lower().startswith(SIGNING)
    ]
    text = repr((parts.scheme.lower(), parts.netloc.lower(), parts.path, sorted(query)))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
