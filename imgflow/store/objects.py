"""What a source says about an object, and the protocol that every source fulfils."""

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

# S3's own bound; folders keep to it too, since keys are indexed in the table.
MOST_KEY_BYTES = 1_024


@dataclass(frozen=True)
class SourceObject:
    """One object as a listing or a HEAD announces it.

    Attributes:
        key: the object key below the source prefix, exactly as the store has it.
        etag: the store's entity tag without quotes; for files inode, modification time and size.
        version_id: of a versioned bucket, where known.
        size: bytes.
        last_modified: in whole seconds of UTC, since listings and HEAD answers of the same object
            differ below that on some servers.
    """

    key: str
    etag: str
    version_id: str | None
    size: int
    last_modified: datetime

    @property
    def identity(self) -> str:
        """What tells this upload from any other under the same key."""
        if self.version_id:
            return f"version:{self.version_id}"
        return f"{self.etag}/{self.size}/{self.last_modified:%Y%m%dT%H%M%SZ}"


@dataclass(frozen=True)
class Digest:
    """A whole page in a few bytes, from which a catalogue tells whether it knows all of it.

    Attributes:
        covers: what stands for the upload under a key: its identity, or its ETag alone where that
            says as much.
        sha256: in hex, of `key NUL upload NUL key NUL upload …`; no key holds the character NUL.
    """

    covers: Literal["identity", "etag"]
    sha256: str

    @classmethod
    def of(cls, covers: Literal["identity", "etag"], shown: Iterable[str]) -> Digest:
        """Digest keys and uploads, in turn."""
        return cls(covers, hashlib.sha256("\0".join(shown).encode()).hexdigest())


@dataclass(frozen=True)
class Page:
    """A part of a listing.

    Attributes:
        objects: in ascending order of the UTF-8 bytes of their keys.
        digest: of all of them.
        resume_after: key after which the next page begins; None when the listing is complete.
        ignored: how many entries are no images by their nature: folder markers, outputs, unfinished
            uploads.
        unfinished: keys that are there and are not listed yet, since somebody still writes them;
            never to be taken for gone.
        warnings: what could not be listed and did not stop the others, in words.
    """

    objects: Sequence[SourceObject]
    digest: Digest
    resume_after: str | None
    ignored: int = 0
    unfinished: Sequence[str] = ()
    warnings: Sequence[str] = ()


def is_text(key: str) -> bool:
    """Whether a key is Unicode; a name that is not UTF-8 reaches Python with lone surrogates."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_any_key(key: str, exclude: tuple[str, ...]) -> None:
    """Raise `BadKey` for what can be no key of any source, or lies where nothing is listed.

    Args:
        key: to be written.
        exclude: prefixes of keys that the source leaves out.
    """
    if not key or "\0" in key or not is_text(key) or len(key.encode()) > MOST_KEY_BYTES:
        raise BadKey(
            f"{key[:80]!r}: a key is text of 1 to {MOST_KEY_BYTES:,} bytes in UTF-8 without NUL."
        )
    if key.startswith(exclude):
        raise BadKey(f"{key!r} lies among outputs, where nothing is taken for an upload.")


class Source(Protocol):
    """Where images land.

    Every method raises `Trouble` when the store does not answer, and those about one object
    `Unreadable` when this one may not be read.
    """

    location: Location

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List at most `limit` objects whose key comes after `start_after`."""

    def stat(self, key: str) -> SourceObject | None:
        """Describe one object, or None when there is none."""

    def read(self, announced: SourceObject) -> bytes:
        """Read the whole object.

        Raises:
            SourceChanged: it is not the announced one.
            Withheld: it is archived, or encrypted with a key that imgflow does not have.
        """

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read the object in pieces of about `CHUNK_BYTES`; raises as `read`, also midway."""

    def check_key(self, key: str) -> None:
        """Raise `BadKey` unless a listing would show an object under this key."""

    def upload(self, key: str, file: Path) -> None:
        """Put a file under a key, visible only when whole.

        Raises:
            BadKey: no listing would show it, or something else stands in its place.
        """

    def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is no error."""

    def remove_abandoned(self, older_than_seconds: float) -> int:
        """Remove what killed uploads of imgflow left among the objects; return how many.

        Nothing that somebody else made, or touched since then.
        """

    def check(self) -> None:
        """Raise `Trouble` with the fix unless the source can be listed."""


# Asking a source for many objects at once, so that one that is refused costs itself only.


THREADS = 16

# So many requests without an answer are no accident of single objects: the store is away, and each
# further one would wait for as long.
MOST_TROUBLES = 16


def look_at(
    source: Source, keys: Iterable[str], *, seconds: float | None = None
) -> tuple[dict[str, SourceObject | None], dict[str, str]]:
    """Ask for the present objects of keys.

    Args:
        source: is asked.
        keys: of the objects.
        seconds: after which no further ones are asked for.

    Returns:
        What each key has, and why for those that could not be asked for. After some trouble no
        further ones are asked for; objects that may not be read are no such trouble.
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
