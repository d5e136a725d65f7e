"""Files that another process is writing, with real writers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from imgflow.errors import SourceChanged, Trouble
from imgflow.store.folder import writers as whole
from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.folder.writers import QUIET_SECONDS, RECENT_SECONDS, Writers
from imgflow_tests.store.folders import as_nobody, put, source_of

# Opens a file as it is told, then writes, truncates or closes it line by line of its input.
WRITER = """
    import mmap, sys
    path, mode = sys.argv[1:]
    file = open(path, mode, buffering=0)
    print("open", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "close":
            file.close()
        elif word == "map":
            mapped = mmap.mmap(file.fileno(), 0)
        else:
            file.write(word.encode())
        print("done", flush=True)
"""


@dataclass
class Writer:
    """Another process that has a file open."""

    process: subprocess.Popen[str]

    def tell(self, word: str) -> None:
        into, out = self.process.stdin, self.process.stdout
        assert into is not None
        into.write(f"{word}\n")
        into.flush()
        self.hear(out)

    @staticmethod
    def hear(out: IO[str] | None) -> None:
        assert out is not None
        assert out.readline()


@contextmanager
def writing(path: Path, mode: str = "wb") -> Iterator[Writer]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        Writer.hear(process.stdout)
        yield Writer(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()


def listed(source: FolderSource) -> tuple[list[str], list[str]]:
    """What is whole, and what is not."""
    page = source.list_page(None, 1_000)
    return [found.key for found in page.objects], list(page.unfinished)


@pytest.fixture
def folder(tmp_path: Path, has_leases: bool) -> Path:
    if not has_leases:
        pytest.skip("this file system does not tell who writes")
    return tmp_path


def test_a_file_is_left_alone_until_its_writer_closes_it(folder: Path) -> None:
    source = source_of(folder)
    with writing(folder / "a.jpg") as writer:
        assert listed(source) == ([], ["a.jpg"]), "it is empty yet"
        writer.tell("half")
        assert listed(source) == ([], ["a.jpg"])
        writer.tell("rest")
        writer.tell("close")
        assert listed(source) == (["a.jpg"], [])
    (found,) = source.list_page(None, 1).objects
    assert source.read(found) == b"halfrest"


def test_a_file_whose_writer_was_killed_counts_as_done(folder: Path) -> None:
    source = source_of(folder)
    with writing(folder / "a.jpg") as writer:
        writer.tell("half")
        writer.process.kill()
        writer.process.wait()
        assert listed(source) == (["a.jpg"], [])


def test_a_file_that_arrives_by_rename_or_hard_link_is_taken_at_once(folder: Path) -> None:
    staging = folder.with_name(f"{folder.name}-staging")
    staging.mkdir()
    put(staging, "a")
    put(staging, "b")
    (staging / "a").rename(folder / "renamed.jpg")
    (folder / "linked.jpg").hardlink_to(staging / "b")
    assert listed(source_of(folder)) == (["linked.jpg", "renamed.jpg"], [])
    with writing(staging / "b", "ab"):
        assert listed(source_of(folder)) == (["renamed.jpg"], ["linked.jpg"])


def test_a_file_that_is_written_through_a_symbolic_link_is_left_alone(folder: Path) -> None:
    put(folder, "original.jpg")
    (folder / "link.jpg").symlink_to("original.jpg")
    source = source_of(folder, follow_links=True)
    with writing(folder / "original.jpg", "ab"):
        assert listed(source) == ([], ["link.jpg", "original.jpg"])
    assert listed(source) == (["link.jpg", "original.jpg"], [])


def test_a_copy_that_keeps_an_old_time_is_left_alone_until_it_is_whole(folder: Path) -> None:
    old = folder.with_name(f"{folder.name}-old")
    old.write_bytes(b"x" * 100)
    os.utime(old, (1_000_000_000, 1_000_000_000))
    copy = folder / "copy.jpg"
    with writing(copy) as writer:
        writer.tell("half")
        shutil.copystat(old, copy)
        assert listed(source_of(folder)) == ([], ["copy.jpg"])
    subprocess.run(["cp", "-p", old, copy], check=True)
    assert copy.stat().st_mtime == 1_000_000_000
    assert listed(source_of(folder)) == (["copy.jpg"], [])


def test_a_known_file_that_is_overwritten_in_place_is_neither_listed_nor_read(
    folder: Path,
) -> None:
    put(folder, "a.jpg", b"the old content")
    put(folder, "b.jpg")
    source = source_of(folder)
    announced = source.list_page(None, 10).objects[0]
    with writing(folder / "a.jpg", "r+b") as writer:
        assert listed(source) == (["b.jpg"], ["a.jpg"])
        with pytest.raises(Trouble, match="still being written") as caught:
            source.read(announced)
        assert not isinstance(caught.value, SourceChanged)
        with pytest.raises(Trouble, match="still being written"):
            list(source.stream(announced))
        writer.tell("THE")
        assert source.stat("a.jpg") is not None, "it is there all the time"
        writer.tell("close")
        changed = source.list_page(None, 10).objects[0]
    assert changed.identity != announced.identity
    assert source.read(changed) == b"THE old content"


def test_a_file_that_is_written_through_memory_is_left_alone(folder: Path) -> None:
    put(folder, "a.jpg")
    with writing(folder / "a.jpg", "r+b") as writer:
        writer.tell("map")
        writer.tell("close")
        assert listed(source_of(folder)) == ([], ["a.jpg"])
    assert listed(source_of(folder)) == (["a.jpg"], [])


def test_readers_do_not_matter(folder: Path) -> None:
    put(folder, "a.jpg")
    with writing(folder / "a.jpg", "rb"):
        assert listed(source_of(folder)) == (["a.jpg"], [])


def test_pages_are_complete_whichever_files_are_being_written(folder: Path) -> None:
    for number in range(30):
        put(folder, f"{number:02}")
    busy = {f"{number:02}" for number in (0, 1, 2, 9, 10, 28, 29)}
    writers = [(folder / name).open("ab") for name in busy]
    source = source_of(folder)
    objects: list[str] = []
    unfinished: list[str] = []
    after = None
    while True:
        page = source.list_page(after, 5)
        objects += [found.key for found in page.objects]
        unfinished += page.unfinished
        after = page.resume_after
        if after is None:
            break
    for writer in writers:
        writer.close()
    assert objects == sorted({f"{number:02}" for number in range(30)} - busy)
    assert unfinished == sorted(busy)


def test_a_writer_that_comes_while_we_ask_waits_and_does_us_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel signals the holder of a lease; by default that would end this process."""
    put(folder, "a.jpg")
    descriptor = os.open(folder / "a.jpg", os.O_RDONLY)
    set_lease = whole.fcntl.fcntl
    commands: list[int] = []
    late: list[subprocess.Popen[bytes]] = []

    def slow(file: int, command: int, value: int) -> int:
        if value == whole.fcntl.F_UNLCK:
            late.append(subprocess.Popen(["sh", "-c", 'echo y > "$0"', folder / "a.jpg"]))
            until = time.monotonic() + 10
            while set_lease(file, whole.fcntl.F_GETLEASE) == whole.fcntl.F_RDLCK:
                assert time.monotonic() < until, "the writer never came"
                time.sleep(0.005)
            assert late[0].poll() is None, "it waits"
        commands.append(command)
        return set_lease(file, command, value)

    monkeypatch.setattr(whole.fcntl, "fcntl", slow)
    assert whole.has_writer(descriptor) is False
    assert late[0].wait(10) == 0
    assert (folder / "a.jpg").read_bytes() == b"y\n"
    assert commands[0] == whole.fcntl.F_SETSIG
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
    os.close(descriptor)


def settled(writers: Writers, path: Path) -> bool:
    flags = os.O_RDONLY | os.O_NONBLOCK
    return writers.settled(bytes(path), path.stat(), lambda: os.open(path, flags)) is not None


@pytest.fixture
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system."""
    monkeypatch.setattr(whole, "LOCAL_FILE_SYSTEMS", {})
    monkeypatch.setattr(whole, "QUIET_SECONDS", QUIET_SECONDS)


@pytest.mark.usefixtures("no_leases")
def test_where_nobody_tells_a_file_is_whole_after_a_moment_of_quiet(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    now = (tmp_path / "a.jpg").stat().st_ctime
    writers = Writers(clock=lambda: now)
    now += 0.5
    assert not settled(writers, tmp_path / "a.jpg")
    now += QUIET_SECONDS
    assert settled(writers, tmp_path / "a.jpg")


@pytest.mark.usefixtures("no_leases")
def test_a_time_in_the_future_does_not_make_a_file_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    put(tmp_path, "a.jpg")
    os.utime(path, (2**32, 2**32))
    now = path.stat().st_ctime + 10
    assert settled(Writers(clock=lambda: now), path), "the time of the change is past"

    behind = Writers(clock=lambda: now - 3_600)  # the file server's clock is an hour ahead
    moment = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    assert not settled(behind, path)
    moment += 1
    path.write_bytes(b"more")
    assert not settled(behind, path), "it was written to"
    moment += 1.5
    assert not settled(behind, path)
    moment += 1
    assert settled(behind, path)


def test_files_that_were_not_touched_lately_are_not_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg")
    later = time.time() + RECENT_SECONDS + 1
    monkeypatch.setattr(os, "open", None)
    assert settled(Writers(clock=lambda: later), tmp_path / "a.jpg")


def test_a_file_of_somebody_else_is_whole_after_a_moment_of_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("takes another user")
    monkeypatch.setattr(whole, "QUIET_SECONDS", QUIET_SECONDS)
    # pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        put(folder, "a.jpg")
        now = (folder / "a.jpg").stat().st_ctime
        writers = Writers(clock=lambda: now)
        assert settled(writers, folder / "a.jpg"), "our own files are known to be whole"
        with as_nobody():
            assert not settled(writers, folder / "a.jpg")
            now += QUIET_SECONDS
            assert settled(writers, folder / "a.jpg")
