"""Reading, writing and deleting files of a folder, also where that is not allowed."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imgflow.errors import BadKey, SourceChanged, Trouble, Unreadable
from imgflow.store.folder.walk import UNFINISHED
from imgflow.store.objects import SourceObject
from imgflow_tests.store.folders import (
    as_nobody,
    keys_of,
    put,
    source_of,
)


def test_what_was_announced_can_be_read_and_streamed(tmp_path: Path) -> None:
    body = os.urandom(2_500_000)
    put(tmp_path, "a b/ü\n.jpg", body)
    source = source_of(tmp_path)
    (announced,) = source.list_page(None, 10).objects
    assert announced == source.stat("a b/ü\n.jpg")
    assert announced.size == len(body)
    assert source.read(announced) == body
    pieces = list(source.stream(announced))
    assert b"".join(pieces) == body
    assert len(pieces) == 3


def _rewritten_in_place(path: Path) -> None:
    path.write_bytes(b"NEW")


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"new")
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def _deleted(path: Path) -> None:
    path.unlink()


def _now_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _now_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _below_a_file(path: Path) -> None:
    path.unlink()
    path.parent.rmdir()
    path.parent.write_bytes(b"")


@pytest.mark.parametrize(
    "change",
    [_rewritten_in_place, _replaced, _deleted, _now_a_folder, _now_a_pipe, _below_a_file],
    ids=lambda change: change.__name__,
)
@pytest.mark.timeout(20)
def test_another_file_than_the_announced_one_is_never_read(tmp_path: Path, change: object) -> None:
    put(tmp_path, "d/a.jpg", b"old")
    source = source_of(tmp_path)
    (announced,) = source.list_page(None, 10).objects
    time.sleep(0.02)  # modification times are as fine as the kernel's clock ticks
    change(tmp_path / "d/a.jpg")  # type: ignore[operator]
    with pytest.raises(SourceChanged, match=r"d/a\.jpg"):
        source.read(announced)
    with pytest.raises(SourceChanged, match=r"d/a\.jpg"):
        list(source.stream(announced))


def test_a_file_that_is_written_to_while_it_is_streamed_is_not_passed_off_as_whole(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a", b"1" * 3_000_000)
    source = source_of(tmp_path)
    (announced,) = source.list_page(None, 10).objects
    pieces = source.stream(announced)
    next(pieces)
    time.sleep(0.02)
    with (tmp_path / "a").open("r+b") as file:
        file.seek(2_900_000)
        file.write(b"2")
    with pytest.raises(SourceChanged, match="written to while"):
        list(pieces)


def test_there_is_nothing_under_names_that_are_no_files(tmp_path: Path) -> None:
    put(tmp_path, "d/a.jpg")
    source = source_of(tmp_path)
    for key in ("b", "d", "d/a.jpg/b", "e/f"):
        assert source.stat(key) is None


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../a", "a/../../b", "a/..", "./a", "a//b", "a/", "a\0b", "\ud800"],
)
def test_a_key_never_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "a").write_bytes(b"outside")
    source = source_of(folder)
    announced = SourceObject(key, "e", None, 1, source_time())
    with pytest.raises(Trouble):
        source.stat(key)
    with pytest.raises(Trouble):
        source.read(announced)
    with pytest.raises(Trouble):
        source.delete(key)
    with pytest.raises(BadKey):
        source.upload(key, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"outside"
    assert list(folder.iterdir()) == []


def source_time() -> datetime:
    return datetime.now(UTC)


def test_an_upload_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    original = tmp_path / "original"
    folder = tmp_path / "in"
    folder.mkdir()
    source = source_of(folder)
    bodies = [bytes([number]) * 3_000_000 for number in range(2)]
    seen: set[bytes] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for found in source_of(folder).list_page(None, 10).objects:
                assert found.key == "d/a.bin"
                with contextlib.suppress(SourceChanged):
                    seen.add(source_of(folder).read(found))

    thread = threading.Thread(target=look)
    thread.start()
    for body in bodies * 10:
        original.write_bytes(body)
        source.upload("d/a.bin", original)
    done.set()
    thread.join()
    assert seen
    assert seen <= set(bodies)
    assert [path.name for path in (folder / "d").iterdir()] == ["a.bin"]
    assert (folder / "d/a.bin").stat().st_mode & 0o777 == 0o644


def test_an_upload_that_fails_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.write_bytes(b"x")
    folder = tmp_path / "in"
    put(folder, "file", b"kept")
    put(folder, "folder/a")
    source = source_of(folder)
    for key in ("file/below", "folder", "n" * 300, "d/" * 600 + "a", f"{UNFINISHED}mine"):
        with pytest.raises(BadKey, match=key[:4]):
            source.upload(key, original)
    assert keys_of(source) == ["file", "folder/a"]
    leftovers = [path for path in folder.rglob("*") if path.name.startswith(UNFINISHED)]
    assert leftovers == []


def test_what_killed_uploads_left_is_removed_once_it_is_old_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    old = ["a.jpg", "d/a.jpg", f"d/{UNFINISHED}0123456789abcdef0123456789abcdef"]
    old += [f"{UNFINISHED}k3_9x0ab", f"{UNFINISHED}notes of mine.txt", f"{UNFINISHED}"]
    for key in (*old, f"{UNFINISHED}ffffffffffffffffffffffffffffffff"):
        put(folder, key)
    put(tmp_path, "theirs")
    (folder / f"{UNFINISHED}aaaaaaaaaaaaaaaa").symlink_to(tmp_path / "theirs")
    (folder / f"{UNFINISHED}bbbbbbbbbbbbbbbb").mkdir()
    source = source_of(folder)
    assert source.remove_abandoned(3_600) == 0, "they were made just now"
    later = time.time() + 7_200
    os.utime(folder / f"{UNFINISHED}ffffffffffffffffffffffffffffffff", (later, later))
    monkeypatch.setattr(time, "time", lambda: later)
    assert source.remove_abandoned(3_600) == 2
    left = {path.name for path in folder.rglob("*") if path.name.startswith(UNFINISHED)}
    assert left == {
        UNFINISHED,
        f"{UNFINISHED}notes of mine.txt",
        f"{UNFINISHED}ffffffffffffffffffffffffffffffff",
        f"{UNFINISHED}aaaaaaaaaaaaaaaa",
        f"{UNFINISHED}bbbbbbbbbbbbbbbb",
    }
    assert keys_of(source) == ["a.jpg", "d/a.jpg"]
    assert (tmp_path / "theirs").exists()


def test_deleting_what_is_not_there_is_no_error_but_a_folder_is_kept(tmp_path: Path) -> None:
    put(tmp_path, "d/a")
    source = source_of(tmp_path)
    source.delete("d/a")
    source.delete("d/a")
    source.delete("nowhere/a")
    with pytest.raises(Trouble, match="'d' could not be deleted"):
        source.delete("d")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        for path in folder.rglob("*"):
            path.chmod(0o700)


def test_a_folder_that_may_not_be_read_is_said_and_does_not_stop_the_others(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgflow.store.folder.writers.QUIET_SECONDS", 0)
    put(open_folder, "a.jpg")
    put(open_folder, "closed/b.jpg")
    put(open_folder, "names only/c.jpg")
    put(open_folder, "z.jpg")
    (open_folder / "closed").chmod(0)
    (open_folder / "names only").chmod(0o744)
    source = source_of(open_folder)
    with as_nobody():
        page = source.list_page(None, 10)
        assert [o.key for o in page.objects] == ["a.jpg", "z.jpg"]
        (warning,) = page.warnings
        assert "'closed/', 'names only/'" in warning
        assert "Make them readable" in warning
        for key in ("closed/b.jpg", "names only/c.jpg"):  # so that it does not count as gone
            with pytest.raises(Unreadable, match="Permission denied"):
                source.stat(key)
        with pytest.raises(Trouble, match="Permission denied"):
            source_of(open_folder / "closed").check()
    assert source.list_page(None, 10).warnings == []


def test_a_file_that_may_not_be_read_or_written_is_trouble(open_folder: Path) -> None:
    put(open_folder, "d/a.jpg")
    (open_folder / "d/a.jpg").chmod(0)
    (open_folder / "d").chmod(0o755)
    original = open_folder / "original"
    original.write_bytes(b"x")
    original.chmod(0o644)
    source = source_of(open_folder)
    announced = source.stat("d/a.jpg")
    assert announced is not None
    with as_nobody():
        with pytest.raises(Unreadable, match=r"could not be read.*Permission denied"):
            source.read(announced)
        with pytest.raises(Trouble, match=r"could not be written.*Permission denied"):
            source.upload("d/b.jpg", original)
        with pytest.raises(Trouble, match=r"could not be deleted.*Permission denied"):
            source.delete("d/a.jpg")


def test_a_folder_that_does_not_exist_is_trouble_with_the_fix(tmp_path: Path) -> None:
    source = source_of(tmp_path / "nowhere")
    for ask in (source.check, lambda: source.list_page(None, 10)):
        with pytest.raises(Trouble, match=r"nowhere cannot be read.*IMGFLOW_SOURCE_URL"):
            ask()
