"""Uploads files and folders into a source, several at a time, for `imgflow upload`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from imgflow.errors import SourceChanged
from imgflow.store.objects import CHUNK_BYTES, Source

PARALLEL = 8


@dataclass
class Uploads:
    """Number of uploaded files, and of files skipped since the source has the same content."""

    uploaded: int = 0
    skipped: int = 0


def upload_all(
    source: Source, paths: Sequence[Path], *, prefix: str, progress: Callable[[str], None]
) -> Uploads:
    """Upload files, and folders with everything in them under the folder's name.

    `prefix` is put before every key as it is: no slash is added.
    """
    done = Uploads()

    def one(item: tuple[str, Path]) -> tuple[str, bool]:
        key, file = item
        if _is_there(source, key, file):
            return key, False
        source.upload(key, file)
        return key, True

    with ThreadPoolExecutor(PARALLEL) as threads:
        for key, was_uploaded in threads.map(one, _files(paths, prefix)):
            done.uploaded += was_uploaded
            done.skipped += not was_uploaded
            progress(f"{'uploaded' if was_uploaded else 'unchanged'}  {key}")
    return done


def _files(paths: Iterable[Path], prefix: str) -> Iterator[tuple[str, Path]]:
    for path in paths:
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    yield f"{prefix}{path.resolve().name}/{file.relative_to(path).as_posix()}", file
        else:
            yield f"{prefix}{path.name}", path


def _is_there(source: Source, key: str, file: Path) -> bool:
    """Return whether the source has the same bytes; compares sizes first, which are quick."""
    there = source.stat(key)
    if there is None or there.size != file.stat().st_size:
        return False
    local = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(CHUNK_BYTES):
            local.update(piece)
    remote = hashlib.sha256()
    try:
        for piece in source.stream(there):
            remote.update(piece)
    except SourceChanged:
        return False
    return local.digest() == remote.digest()
