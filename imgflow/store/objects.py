"""Uploaded objects: what a source reports about them, the protocol of a source, and bulk stats.

The sources themselves are `folder.source_folder` and `s3.source_bucket`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from imgflow.errors import BadKey, Trouble, Unreadable
from imgflow.store.location import Location

CHUNK_BYTES = 1 << 20

# S3's own limit. Folders keep to it too, since the table indexes keys.
MOST_KEY_BYTES = 1_024


@dataclass(frozen=True)
class SourceObject:
    """One object as a listing or a HEAD reports it.

    Attributes:
        key: Object key below the source prefix, exactly as the store has it.
        etag: The store's entity tag without quotes; for files inode, modification time and size.
        version_id: Version in a versioned bucket, if known.
        size: Size in bytes.
        last_modified: UTC, in whole seconds: on some servers, listings and HEAD answers disagree
            on the fraction for the same object.
    """

    key: str
    etag: str
    version_id: str | None
    size: int
    last_modified: datetime

    @property
    def identity(self) -> str:
        """Identifies this upload among all uploads under the same key."""
        if self.version_id:
            return f"version:{self.version_id}"
        return f"{self.etag}/{self.size}/{self.last_modified:%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class Digest:
    """A page of a listing in a few bytes, enough for a catalogue to see whether it knows it all.

    Attributes:
        covers: What represents the upload of each key: its identity, or only its ETag where that
            carries the same information.
        sha256: Hex digest of `key NUL upload NUL key NUL upload …`; no key contains NUL.
    """

    covers: Literal["identity", "etag"]
    sha256: str

    @classmethod
    def of(cls, covers: Literal["identity", "etag"], shown: Iterable[str]) -> Digest:
        """Digest an iterable of keys and uploads in turn."""
        return cls(covers, hashlib.sha256("\0".join(shown).encode()).hexdigest())


@dataclass(frozen=True)
class Page:
    """One page of a listing.

    Attributes:
        objects: Ascending by the UTF-8 bytes of their keys.
        resume_after: Key after which the next page starts; None when the listing is complete.
        ignored: Number of entries that can never be images: folder markers, outputs, unfinished
            uploads.
        unfinished: Keys that exist but are not listed yet because someone is still writing them;
            never to be treated as gone.
        warnings: Messages about what could not be listed and did not stop the rest.
    """

    objects: Sequence[SourceObject]
    digest: Digest
    resume_after: str | None
    ignored: int = 0
    unfinished: Sequence[str] = ()
    warnings: Sequence[str] = ()


def is_text(key: str) -> bool:
    """Whether a key is Unicode; names that are not UTF-8 reach Python with lone surrogates."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_any_key(key: str, exclude: tuple[str, ...]) -> None:
    """Raise `BadKey` for a key that is invalid in every source, or below an excluded prefix."""
    if not key or "\0" in key or not is_text(key) or len(key.encode()) > MOST_KEY_BYTES:
        raise BadKey(
            f"{key[:80]!r}: a key is text of 1 to {MOST_KEY_BYTES:,} bytes in UTF-8 without NUL."
        )
    if key.startswith(exclude):
        raise BadKey(f"{key!r} lies among outputs, where nothing is taken for an upload.")


class Source(Protocol):
    """Where images land.

    Every method raises `Trouble` when the store does not answer. Methods about one object raise
    `Unreadable` when that object may not be read.
    """

    location: Location

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List at most `limit` objects whose key comes after `start_after`."""

    def stat(self, key: str) -> SourceObject | None:
        """Describe one object; None if it does not exist."""

    def read(self, announced: SourceObject) -> bytes:
        """Read the complete object.

        Raises:
            SourceChanged: It is not the announced upload.
            Withheld: It is archived, or encrypted with a key that imgflow does not have.
        """

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read the object in chunks of about `CHUNK_BYTES`; raises as `read` does, also midway."""

    def check_key(self, key: str) -> None:
        """Raise `BadKey` unless a listing would show an object under this key."""

    def upload(self, key: str, file: Path) -> None:
        """Store a file under a key; it is visible only once it is complete.

        Raises:
            BadKey: No listing would show it, or something else is in its place.
        """

    def delete(self, key: str) -> None:
        """Delete an object, if it exists."""

    def remove_abandoned(self, older_than_seconds: float) -> int:
        """Remove what killed uploads of imgflow left among the objects; return how many.

        Never removes what someone else created, or what was touched since then.
        """

    def check(self) -> None:
        """Raise `Trouble` with the fix unless the source can be listed."""


# Stat many objects at once; one that is refused does not affect the others.


THREADS = 16

# This many failed requests are not about single objects: the store is down, and each further
# request would wait as long.
MOST_TROUBLES = 16


def look_at(
    source: Source, keys: Iterable[str], *, seconds: float | None = None
) -> tuple[dict[str, SourceObject | None], dict[str, str]]:
    """Stat many keys in parallel.

    No further requests start after `seconds`, or after `MOST_TROUBLES` failures. Objects that may
    not be read do not count as failures.

    Returns:
        The object of each key (None if it does not exist), and for each key that could not be
        asked for, the reason.
    """
    until = None if seconds is None else time.monotonic() + seconds
    refused: dict[str, str] = {}
    troubled: dict[str, str] = {}
    lock = threading.Lock()

    def look(key: str) -> SourceObject | None:
        with lock:
            is_late = until is not None and time.monotonic() > until
            if len(troubled) >= MOST_TROUBLES or is_late:
                troubled[key] = next(iter(troubled.values()), "there was no time left for it")
                return None
        try:
            return source.stat(key)
        except Trouble as trouble:
            with lock:
                (refused if isinstance(trouble, Unreadable) else troubled)[key] = str(trouble)
            return None

    keys = list(keys)
    if not keys:
        return {}, {}
    with ThreadPoolExecutor(min(THREADS, len(keys))) as threads:
        found = dict(zip(keys, threads.map(look, keys), strict=True))
    unknown = {**refused, **troubled}
    return {key: upload for key, upload in found.items() if key not in unknown}, unknown
