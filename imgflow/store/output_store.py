"""The output store: immutable objects, written completely or not at all, through `obstore`.

Their names come from `naming`, and which catalogue owns them from `catalog.postgres.ownership`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import obstore
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from imgflow.errors import Trouble
from imgflow.store.location import Checksums, Location
from imgflow.store.naming import OUTPUT_FOLDERS
from imgflow.store.s3.store_errors import FORBIDDEN, error_code, explain, first_line

# Verbs, as error messages use them, of requests for an object that should exist.
READING = ("read", "copied", "looked at")


@dataclass(frozen=True)
class StoredOutput:
    """An output as a listing shows it: its size in bytes and when it was written."""

    name: str
    size: int
    last_modified: datetime


class OutputStore:
    """A bucket or folder of outputs. Methods raise `Trouble` when the store does not answer."""

    def __init__(self, location: Location, *, checksums: Checksums = "when_supported") -> None:
        """Open a bucket, or a folder, which is created if it does not exist."""
        self.location = location
        self.claimed_until: dict[str, float] = {}
        """By database of a catalogue: until when it can skip checking that it owns this store."""
        self._store: S3Store | LocalStore
        self._client: Any = None
        if location.scheme == "s3":
            from imgflow.store.s3.clients import obstore_bucket, s3_client  # imports boto3

            self._client = s3_client(checksums=checksums)
            self._store = obstore_bucket(self._client, location.bucket, location.prefix)
        else:
            with self._errors("opened", ""):
                self._store = LocalStore(location.folder, mkdir=True)

    def put(self, name: str, body: bytes, media_type: str) -> None:
        """Write an object; readers see all of it or nothing."""
        with self._errors("written", name):
            if isinstance(self._store, S3Store):
                self._store.put(
                    name, body, attributes={"Content-Type": media_type}, use_multipart=False
                )
            else:  # files have no media type
                self._store.put(name, body, use_multipart=False)

    def put_first(self, name: str, body: bytes) -> None:
        """Write a small object unless one of that name exists.

        Some stores ignore the condition or do not support it, and there the last of several writers
        wins. So callers that rely on the condition read the object afterwards.
        """
        with self._errors("written", name):
            try:
                self._store.put(name, body, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return
            except BaseError as error:
                if error_code(error) != "NotImplemented":
                    raise
                self._store.put(name, body, use_multipart=False)

    def get(self, name: str) -> bytes | None:
        """Read an object; None if it does not exist."""
        try:
            with self._errors("read", name):
                return bytes(self._store.get(name).bytes())
        except FileNotFoundError:
            return None

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """Read the bytes from `start` up to, but not including, `end`.

        Raises:
            FileNotFoundError: The object does not exist.
        """
        with self._errors("read", name):
            return bytes(self._store.get_range(name, start=start, end=end))

    def copy(self, name: str, to: str) -> bool:
        """Copy an object inside the store; False if it does not exist."""
        try:
            with self._errors("copied", name):
                self._store.copy(name, to)
        except FileNotFoundError:
            return False
        return True

    def exists(self, name: str) -> bool:
        """Whether the object exists."""
        try:
            with self._errors("looked at", name):
                self._store.head(name)
        except FileNotFoundError:
            return False
        return True

    def delete(self, names: list[str]) -> None:
        """Delete objects; those that do not exist are skipped."""
        for name in names:
            try:
                with self._errors("deleted", name):
                    self._delete(name)
            except FileNotFoundError:
                continue

    def _delete(self, name: str) -> None:
        """Delete one object.

        `obstore` would send a bulk delete of one name. Some other S3 servers do not support that,
        or refuse it to users who may only delete below a prefix.
        """
        if self._client is None:
            self._store.delete(name)
            return
        key = self.location.prefix + name
        self._client.delete_object(Bucket=self.location.bucket, Key=key)

    def names(self, *folders: str) -> Iterator[StoredOutput]:
        """List outputs. imgflow's own names are always represented exactly.

        Args:
            folders: Name prefixes of complete segments. Without any, only the folders of outputs
                are listed: the bucket may hold other objects, and one key that `obstore` cannot
                represent would stop the listing.
        """
        for folder in folders or OUTPUT_FOLDERS:
            try:
                with self._errors("listed", folder):
                    for batch in obstore.list(self._store, prefix=folder):
                        for entry in batch:
                            yield StoredOutput(entry["path"], entry["size"], entry["last_modified"])
            except FileNotFoundError:  # nothing was ever written to this folder
                continue

    def _is_absent(self, name: str) -> bool:
        """Whether a listing shows that an object does not exist.

        S3 answers 403 instead of 404 to users who may only list some prefixes.
        """
        key = self.location.prefix + name
        try:
            with self._errors("listed", ""):
                answer = self._client.list_objects_v2(
                    Bucket=self.location.bucket, Prefix=key, MaxKeys=1
                )
        except Trouble:
            return False
        # An object of exactly this name sorts before all longer names that start with it.
        return "IsTruncated" in answer and all(e["Key"] != key for e in answer.get("Contents", ()))

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, BotoCoreError, ClientError, OSError, ValueError) as error:
            code = error_code(error)
            if code != "NoSuchBucket" and isinstance(error, (NotFoundError, FileNotFoundError)):
                raise FileNotFoundError(name) from None
            what = f"{verb} {name!r}" if name else verb
            if code in FORBIDDEN and verb in READING and self._is_absent(name):
                raise FileNotFoundError(name) from None
            if code:
                raise Trouble(explain(self.location, what, code)) from error
            is_remote = self.location.scheme == "s3"
            fix = "AWS_ENDPOINT_URL" if is_remote else "that it is writable"
            raise Trouble(
                f"{self.location.url} could not be {what}: {first_line(error)}. "
                f"Check IMGFLOW_OUTPUT_URL and {fix}."
            ) from error
