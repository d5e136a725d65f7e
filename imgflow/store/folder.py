"""A local folder as a source.

Files are read through the operating system rather than through `obstore`: it cannot represent names
with control characters, and one such name would stop its listing of all the others.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from imgflow.errors import SourceChanged, Trouble
from imgflow.store.location import Location
from imgflow.store.objects import CHUNK_BYTES, Page, SourceObject

# Names of uploads that are not whole yet; the listing leaves them alone.
UNFINISHED = ".imgflow-upload-"


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
        self._exclude = exclude

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List files in the order in which S3 lists keys; links to folders are not followed."""
        self.check()
        objects: list[SourceObject] = []
        ignored = 0
        for key, path in self._walk(self._folder, "", start_after or ""):
            if key.startswith(self._exclude) or path.name.startswith(UNFINISHED):
                ignored += 1
                continue
            found = self._stat(key, path)
            if found is None:
                continue  # deleted since the folder was read
            objects.append(found)
            if len(objects) == limit:
                return Page(objects, key, ignored)
        return Page(objects, None, ignored)

    def stat(self, key: str) -> SourceObject | None:
        """Describe the file, or None when there is none."""
        return self._stat(key, self._path(key))

    def read(self, announced: SourceObject) -> bytes:
        """Read the whole file."""
        with self._open(announced) as file:
            body = file.read()
        if len(body) != announced.size:
            raise SourceChanged(f"{announced.key!r} was written to while it was read")
        return body

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read the file in pieces."""
        with self._open(announced) as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece
            if _describe(announced.key, os.fstat(file.fileno())) != announced:
                raise SourceChanged(f"{announced.key!r} was written to while it was read")

    def upload(self, key: str, file: Path) -> None:
        """Copy a file to a hidden name beside its place, then rename it there."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=target.parent)
        staged = Path(name)
        try:
            with os.fdopen(handle, "wb") as copy, file.open("rb") as original:
                while piece := original.read(CHUNK_BYTES):
                    copy.write(piece)
            staged.chmod(0o644)
            staged.replace(target)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise

    def delete(self, key: str) -> None:
        """Delete the file."""
        self._path(key).unlink(missing_ok=True)

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
        if not key or key.startswith("/") or any(p in ("", ".", "..") for p in key.split("/")):
            raise Trouble(f"{key!r} is not the name of a file below {self._folder}")
        return self._folder / key

    def _walk(self, folder: Path, prefix: str, start_after: str) -> Iterator[tuple[str, Path]]:
        """Yield keys after `start_after` in the order of their bytes, a folder counting as `name/`."""
        entries: list[tuple[bytes, str, bool]] = []
        try:
            with os.scandir(folder) as scan:
                for entry in scan:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    name = f"{prefix}{entry.name}{'/' if is_folder else ''}"
                    if is_folder:
                        if name <= start_after and not start_after.startswith(name):
                            continue  # everything in it comes before the place to resume at
                    elif os.fsencode(name) <= os.fsencode(start_after) or not entry.is_file():
                        continue
                    entries.append((os.fsencode(name), entry.name, is_folder))
        except FileNotFoundError:
            return  # deleted since its parent was read
        for encoded, name, is_folder in sorted(entries):
            key = os.fsdecode(encoded)
            if is_folder:
                yield from self._walk(folder / name, key, start_after)
            elif _is_text(key):
                yield key, folder / name

    def _stat(self, key: str, path: Path) -> SourceObject | None:
        try:
            return _describe(key, path.stat()) if path.is_file() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Trouble(f"{key!r} cannot be looked at: {error.strerror}") from error

    @contextmanager
    def _open(self, announced: SourceObject) -> Iterator[BinaryIO]:
        try:
            with self._path(announced.key).open("rb") as file:
                if _describe(announced.key, os.fstat(file.fileno())) != announced:
                    raise SourceChanged(f"{announced.key!r} was overwritten since it was listed")
                yield file
        except FileNotFoundError as error:
            raise SourceChanged(f"{announced.key!r} was deleted since it was listed") from error
        except OSError as error:
            raise Trouble(f"{announced.key!r} cannot be read: {error.strerror}") from error


def _describe(key: str, status: os.stat_result) -> SourceObject:
    return SourceObject(
        key=key,
        etag=f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}",
        version_id=None,
        size=status.st_size,
        last_modified=datetime.fromtimestamp(int(status.st_mtime), tz=timezone.utc),
    )


def _is_text(key: str) -> bool:
    """Whether a file name is UTF-8; other names can neither be a partition nor stand in the table."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
