"""The output store: immutable pictures, written whole or not at all, through `obstore`."""

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

# What is done with an object that should be there.
READING = ("read", "copied", "looked at")


@dataclass(frozen=True)
class StoredOutput:
    """What the store says about an output: its size in bytes and when it was written."""

    name: str
    size: int
    last_modified: datetime


class OutputStore:
    """Where pictures go. Every method raises `Trouble` when the store does not answer."""

    def __init__(self, location: Location, *, checksums: Checksums = "when_supported") -> None:
        """Open a bucket or a folder; the folder is made when it does not exist."""
        self.location = location
        self.claimed_until: dict[str, float] = {}
        """Until when a catalogue, by its database, need not look again whether this is its own."""
        self._store: S3Store | LocalStore
        self._client: Any = None
        if location.scheme == "s3":
            from imgflow.store.s3.clients import obstore_bucket, s3_client  # boto3, too

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
            else:  # a file has no media type to keep
                self._store.put(name, body, use_multipart=False)

    def put_first(self, name: str, body: bytes) -> None:
        """Write a small object unless there is one of that name.

        Some stores ignore the condition or do not know it, and of several writers the last one wins
        there; so whoever relies on it reads the object afterwards.
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
        """Read an object, or None when there is none."""
        try:
            with self._errors("read", name):
                return bytes(self._store.get(name).bytes())
        except FileNotFoundError:
            return None

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """Read bytes `start` to `end`, the last one excluded.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with self._errors("read", name):
            return bytes(self._store.get_range(name, start=start, end=end))

    def copy(self, name: str, to: str) -> bool:
        """Copy an object without its bytes coming here; False when there is none."""
        try:
            with self._errors("copied", name):
                self._store.copy(name, to)
        except FileNotFoundError:
            return False
        return True

    def exists(self, name: str) -> bool:
        """Whether the object is there."""
        try:
            with self._errors("looked at", name):
                self._store.head(name)
        except FileNotFoundError:
            return False
        return True

    def delete(self, names: list[str]) -> None:
        """Delete objects; those that do not exist are no error."""
        for name in names:
            try:
                with self._errors("deleted", name):
                    self._delete(name)
            except FileNotFoundError:
                continue

    def _delete(self, name: str) -> None:
        """Delete one object.

        With `obstore` it would be a list of one, which other S3 servers refuse to those who may
        delete below a prefix only, or do not know.
        """
        if self._client is None:
            self._store.delete(name)
            return
        key = self.location.prefix + name
        self._client.delete_object(Bucket=self.location.bucket, Key=key)

    def names(self, *folders: str) -> Iterator[StoredOutput]:
        """List what is stored; our own names are always represented exactly.

        Args:
            folders: whole segments. Without them all folders of outputs are listed and nothing else
                that may share the bucket, where one odd key would stop the listing.
        """
        for folder in folders or OUTPUT_FOLDERS:
            try:
                with self._errors("listed", folder):
                    for batch in obstore.list(self._store, prefix=folder):
                        for entry in batch:
                            yield StoredOutput(entry["path"], entry["size"], entry["last_modified"])
            except FileNotFoundError:  # a folder that nobody made
                continue

    def _is_absent(self, name: str) -> bool:
        """Whether a listing tells that an object is not there.

        S3 answers 403 rather than 404 to those who may list some prefixes only.
        """
        key = self.location.prefix + name
        try:
            with self._errors("listed", ""):
                answer = self._client.list_objects_v2(
                    Bucket=self.location.bucket, Prefix=key, MaxKeys=1
                )
        except Trouble:
            return False
        # An object of just this name comes before all others that begin with it.
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
