"""A local folder as a source.

Files are read through the operating system rather than through `obstore`: it cannot represent names
with control characters, and one such name would stop its listing of all the others.

A file that somebody still writes is neither listed nor read until it is whole (see `whole`).
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, overload

from imgflow.errors import BadKey, SourceChanged, Trouble, Unreadable
from imgflow.store.location import Location
from imgflow.store.objects import (
    CHUNK_BYTES,
    Digest,
    Page,
    SourceObject,
    check_any_key,
    is_text,
)
from imgflow.store.walking import MOST_NAME_BYTES, NUL, UNFINISHED, Walker
from imgflow.store.whole import Writers

# What a path is told where a file stands for a folder, or a folder for a file.
IN_THE_WAY = (FileExistsError, NotADirectoryError, IsADirectoryError)


class FolderSource:
    """The files of a folder and its subfolders; the key is the path below the folder."""

    def __init__(self, location: Location, exclude: tuple[str, ...] = ()) -> None:
        """Take the folder of `location`.

        Args:
            location: of scheme `file`.
            exclude: prefixes of keys that are never listed, such as the outputs' folder.
        """
        self.location = location
        self._folder = location.folder
        self._root = os.fsencode(location.folder) + b"/"
        self._exclude = tuple(prefix.encode() for prefix in exclude)
        self._walker = Walker(location.folder, self._exclude)
        self._writers = Writers()

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List files in the order in which S3 lists keys; links to folders are not followed.

        Names that are no keys (not UTF-8, or longer than S3 allows) are ignored: they can neither
        be a partition nor stand in the table, and must not stop the others. Neither must folders
        that may not be read, which are warned of.
        """
        self.check()
        unfinished: list[str] = []
        files: list[str] = []
        ignored = 0
        walk = self._walker.after(start_after)
        recently = self._writers.recently()
        # What is done for every file of a tick stands here, without a call that need not be.
        for name in walk.names:
            if name[-1] == NUL:
                ignored += 1
                continue
            key = name.decode()
            path = self._root + name
            try:
                status = os.stat(path)  # noqa: PTH116 - making a `Path` takes longer than the call
            except OSError as error:
                self._leave_out(key, error)
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_mtime_ns > recently or status.st_ctime_ns > recently:
                whole = self._writers.settled(path, status)
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
        """Describe the file, or None when there is none."""
        status = self._status(key, os.fsencode(self._path(key)))
        return status and _describe(key, _etag(status))

    def read(self, announced: SourceObject) -> bytes:
        """Read the whole file."""
        with self._open(announced) as file:
            body = file.read()
            _compare(announced, file)
        return body

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read the file in pieces."""
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
        """Copy a file to a hidden name beside its place, then rename it there."""
        self.check_key(key)
        target = self._path(key)
        try:
            self._copy(key, file, target)
        except Trouble as trouble:
            if isinstance(trouble.__cause__, IN_THE_WAY):
                raise BadKey(f"{key!r} and another file or folder exclude each other.") from trouble
            raise

    def _copy(self, key: str, file: Path, target: Path) -> None:
        with file.open("rb") as original, self._errors("written", key):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=target.parent)
            staged = Path(name)
            try:
                with os.fdopen(handle, "wb") as copy:
                    while piece := original.read(CHUNK_BYTES):
                        copy.write(piece)
                staged.chmod(0o644)
                staged.replace(target)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise

    def delete(self, key: str) -> None:
        """Delete the file."""
        with self._errors("deleted", key):
            try:
                self._path(key).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return

    def check(self) -> None:
        """Raise `Trouble` unless the folder exists and can be read."""
        try:
            with os.scandir(self._folder):
                return
        except OSError as error:
            raise Trouble(
                f"The source folder {self._folder} cannot be read ({error.strerror}); create it or "
                "set IMGFLOW_SOURCE_URL."
            ) from error

    def _path(self, key: str) -> Path:
        """The file of a key; a key never leads out of the folder."""
        is_bad = any(part in ("", ".", "..") for part in key.split("/"))
        if is_bad or "\0" in key or not is_text(key):
            raise Trouble(f"{key!r} is not the name of a file below {self._folder}")
        return self._folder / key

    def _leave_out(self, key: str, error: OSError) -> None:
        """Go on without a listed file that is gone, or whose folder shows names and nothing else.

        Raises:
            Trouble: it cannot be looked at for another reason.
        """
        if isinstance(error, PermissionError):
            self._walker.closed.append(f"{key.rpartition('/')[0]}/")
        elif not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise self._trouble("looked at", key, error) from error

    def _status(self, key: str, path: bytes) -> os.stat_result | None:
        """What the system says of a file; None where there is none."""
        try:
            status = os.stat(path)  # noqa: PTH116 - making a `Path` takes longer than the call
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._trouble("looked at", key, error) from error
        return status if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def _open(self, announced: SourceObject) -> Iterator[BinaryIO]:
        key = announced.key
        with self._errors("read", key):
            try:
                # Without waiting for a writer, should a pipe have taken the file's place.
                descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
    """What a page found, described when somebody looks; a tick over known files does not.

    Keys and ETags, which hold size and time, with NUL between them: what the digest is made from.
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
    # An f-string takes half as long again, and a tick writes all of them.
    return "%x-%x-%x" % (status.st_ino, status.st_mtime_ns, status.st_size)  # noqa: UP031 - see above


def _describe(key: str, etag: str) -> SourceObject:
    # A time before 1970 has a minus sign of its own.
    nanoseconds, _, size = etag.partition("-")[2].rpartition("-")
    return SourceObject(
        key=key,
        etag=etag,
        version_id=None,
        size=int(size, 16),
        last_modified=datetime.fromtimestamp(int(nanoseconds, 16) // 10**9, tz=timezone.utc),
    )


def _compare(announced: SourceObject, file: BinaryIO) -> None:
    if _etag(os.fstat(file.fileno())) != announced.etag:
        raise SourceChanged(f"{announced.key!r} was written to while it was read")
