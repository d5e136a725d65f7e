"""A local folder as a source.

Files are read through the operating system instead of `obstore`, which cannot represent names with
control characters: one such name would stop its listing of all the others.

A file that someone is still writing is neither listed nor read until it is complete (see
`writers`), and no link leads out of the folder (see `beneath`).
"""

from __future__ import annotations

import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, overload

from imgflow.errors import BadKey, SourceChanged, Trouble, Unreadable
from imgflow.store.folder.beneath import Beneath
from imgflow.store.folder.walk import MOST_NAME_BYTES, UNFINISHED, Walker
from imgflow.store.folder.writers import Writers
from imgflow.store.location import Location
from imgflow.store.objects import (
    CHUNK_BYTES,
    Digest,
    Page,
    SourceObject,
    check_any_key,
    is_text,
)

# Errors of a path where a file or a link is in the place of a folder, or a folder of a file.
IN_THE_WAY = (FileExistsError, NotADirectoryError, IsADirectoryError)

# Names of incomplete uploads exactly as this module makes them.
OWN_UNFINISHED = re.compile(re.escape(UNFINISHED) + "[0-9a-z_]{8,32}")


class FolderSource:
    """The files of a folder and its subfolders; the key is the path below the folder."""

    def __init__(
        self,
        location: Location,
        exclude: tuple[str, ...] = (),
        *,
        home: Path | None = None,
        apart: Sequence[Path] = (),
        follow_links: bool = False,
    ) -> None:
        """Take the folder of `location`.

        Args:
            location: Location with scheme `file`.
            exclude: Key prefixes that are never listed, such as the outputs' folder.
            home: imgflow's home. Nothing in it is ever listed, read or written, under whatever name
                it appears in the source.
            apart: Other folders that are off limits in the same way.
            follow_links: Treat links to files below the folder as files.
        """
        self.location = location
        self._folder = location.folder
        self._exclude = tuple(prefix.encode() for prefix in exclude)
        self._beneath = Beneath(self._folder, home=home, apart=apart, follow_links=follow_links)
        self._walker = Walker(self._beneath, self._folder, self._exclude, follow_links=follow_links)
        self._writers = Writers()

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List files in the order in which S3 lists keys; links to folders are not followed.

        Names that cannot be keys (not UTF-8, or longer than S3 allows) are ignored: they can
        neither be a partition nor be stored in the table, and must not stop the others. Nor must
        unreadable folders and links, which produce warnings.
        """
        self.check()
        unfinished: list[str] = []
        files: list[str] = []
        ignored = 0
        walk = self._walker.after(start_after)
        recently = self._writers.recently()
        with (
            self._errors("listed", ""),
            self._beneath.root() as root,
            closing(walk.files(root)) as found,
        ):
            # This loop runs for every file on every tick, so it avoids function calls.
            for name, looked in found:
                if (status := looked) is None:
                    ignored += 1
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_nlink > 1 and self._beneath.is_own_file(status):
                    ignored += 1
                    continue
                key = name.decode()
                if status.st_mtime_ns > recently or status.st_ctime_ns > recently:
                    open_file = partial(self._beneath.open_file, name)
                    whole = self._writers.settled(name, status, open_file)
                    if whole is None:
                        unfinished.append(key)
                        continue
                    status = whole
                files.append(f"{key}\0{_etag(status)}")
                if len(files) == limit:
                    self._walker.pause(walk, key)
                    break
        last = walk.last if len(files) == limit else None
        digest = Digest.of("etag", files)
        return Page(_Files(files), digest, last, ignored, unfinished, self._walker.warnings())

    def stat(self, key: str) -> SourceObject | None:
        """Describe the file; None if it does not exist."""
        name = self._name(key)
        with self._errors("looked at", key):
            try:
                status = self._beneath.status(name)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return status and _describe(key, _etag(status))

    def read(self, announced: SourceObject) -> bytes:
        """Read the complete file."""
        with self._open(announced) as file:
            body = file.read()
            _compare(announced, file)
        return body

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read the file in chunks."""
        with self._open(announced) as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece
            _compare(announced, file)

    def check_key(self, key: str) -> None:
        """Raise `BadKey` unless a listing would show a file of this name."""
        check_any_key(key, tuple(prefix.decode() for prefix in self._exclude))
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise BadKey(f"{key!r} is not the name of a file below {self._folder}.")
        if max(len(part.encode()) for part in parts) >= MOST_NAME_BYTES:
            raise BadKey(f"A part of {key[:80]!r}… is longer than file systems take.")
        if parts[-1].startswith(UNFINISHED):
            raise BadKey(f"{key!r} would never be listed: name it otherwise.")

    def upload(self, key: str, file: Path) -> None:
        """Copy a file to a hidden name in the same folder, then rename it."""
        self.check_key(key)
        self._check_place()
        try:
            with file.open("rb") as original, self._errors("written", key):
                self._beneath.make_parent(self._name(key))
                self._copy(self._name(key), original)
        except Trouble as trouble:
            if isinstance(trouble.__cause__, IN_THE_WAY):
                raise BadKey(
                    f"{key!r} and another file, folder or link exclude each other; folders that "
                    "are links, and those of imgflow itself, are never written to."
                ) from trouble
            raise

    def _copy(self, name: bytes, original: BinaryIO) -> None:
        hidden = f"{UNFINISHED}{uuid.uuid4().hex}"
        with self._beneath.parent(name) as (folder, last):
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                descriptor = os.open(hidden, flags, 0o600, dir_fd=folder)
                with os.fdopen(descriptor, "wb") as copy:
                    while piece := original.read(CHUNK_BYTES):
                        copy.write(piece)
                    os.fchmod(copy.fileno(), 0o644)
                os.replace(hidden, last, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(hidden, dir_fd=folder)
                raise

    def delete(self, key: str) -> None:
        """Delete the file; if it is a link, delete the link."""
        name = self._name(key)
        with self._errors("deleted", key):
            try:
                with self._beneath.parent(name) as (folder, last):
                    os.unlink(last, dir_fd=folder)
            except (FileNotFoundError, NotADirectoryError):
                return

    def remove_abandoned(self, older_than_seconds: float) -> int:
        """Remove what killed uploads of this user left, unless it was touched more recently."""
        removed = 0
        before = time.time() - older_than_seconds
        with (
            self._errors("listed", ""),
            self._beneath.root() as root,
            closing(self._walker.after(None).files(root)) as found,
        ):
            names = [name.rstrip(b"\0") for name, status in found if status is None]
        for name in names:
            if not OWN_UNFINISHED.fullmatch(os.fsdecode(name.rpartition(b"/")[2])):
                continue
            with suppress(OSError), self._beneath.parent(name) as (folder, last):
                status = os.stat(last, dir_fd=folder, follow_symlinks=False)
                is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
                if is_ours and max(status.st_mtime, status.st_ctime) < before:
                    os.unlink(last, dir_fd=folder)
                    removed += 1
        return removed

    def check(self) -> None:
        """Raise `Trouble` unless the folder exists and can be read."""
        try:
            os.scandir(self._folder).close()
        except OSError as error:
            raise Trouble(
                f"The source folder {self._folder} cannot be read ({error.strerror}); create it or "
                "set IMGFLOW_SOURCE_URL."
            ) from error
        self._check_place()

    def _check_place(self) -> None:
        with self._errors("looked at", ""):
            if self._beneath.is_in_home():
                raise Trouble(
                    f"The source folder {self._folder} lies in IMGFLOW_HOME, among imgflow's own "
                    "files. Set IMGFLOW_SOURCE_URL to another folder, or to `source` in the home."
                )

    def _name(self, key: str) -> bytes:
        """The file name of a key, relative to the folder."""
        is_bad = any(part in ("", ".", "..") for part in key.split("/"))
        if is_bad or "\0" in key or not is_text(key):
            raise Trouble(f"{key!r} is not the name of a file below {self._folder}")
        return key.encode()

    @contextmanager
    def _open(self, announced: SourceObject) -> Iterator[BinaryIO]:
        key = announced.key
        with self._errors("read", key):
            try:
                descriptor = self._beneath.open_file(self._name(key))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise SourceChanged(f"{key!r} was deleted since it was listed") from error
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and self._writers.is_written(descriptor, status):
                raise Trouble(f"{key!r} is still being written; it is processed when it is whole.")
            if _etag(status) != announced.etag:
                raise SourceChanged(f"{key!r} was overwritten since it was listed")
            with self._errors("read", key), os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._trouble(verb, key, error) from error

    def _trouble(self, verb: str, key: str, error: OSError) -> Trouble:
        said = f"{key!r} could not be {verb} in {self._folder}: {error.strerror or error}"
        if isinstance(error, PermissionError):
            return Unreadable(f"{said}; allow this user to. It is tried again.")
        return Trouble(said)


class _Files(Sequence[SourceObject]):
    """The objects of a page, created on access; a tick over known files needs none of them.

    Holds `key NUL etag` for each, which is what the digest covers; the ETag contains size and time.
    """

    def __init__(self, files: list[str]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> SourceObject: ...
    @overload
    def __getitem__(self, index: slice) -> list[SourceObject]: ...
    def __getitem__(self, index: int | slice) -> SourceObject | list[SourceObject]:
        if isinstance(index, slice):
            return [_describe(*file.split("\0")) for file in self._files[index]]
        return _describe(*self._files[index].split("\0"))


def _etag(status: os.stat_result) -> str:
    # An f-string takes 50% longer, and a tick builds one for each file.
    return "%x-%x-%x" % (status.st_ino, status.st_mtime_ns, status.st_size)  # noqa: UP031 - see above


def _describe(key: str, etag: str) -> SourceObject:
    # The minus sign of a time before 1970 is not a separator.
    nanoseconds, _, size = etag.partition("-")[2].rpartition("-")
    return SourceObject(
        key=key,
        etag=etag,
        version_id=None,
        size=int(size, 16),
        last_modified=datetime.fromtimestamp(int(nanoseconds, 16) // 10**9, tz=UTC),
    )


def _compare(announced: SourceObject, file: BinaryIO) -> None:
    if _etag(os.fstat(file.fileno())) != announced.etag:
        raise SourceChanged(f"{announced.key!r} was written to while it was read")
