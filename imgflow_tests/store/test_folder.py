from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgflow.errors import BadKey, SettingsError, SourceChanged, Trouble, Unreadable
from imgflow.store.folder import CONTINUE_SECONDS, UNFINISHED, FolderSource
from imgflow.store.location import parse_location
from imgflow.store.objects import Page, SourceObject
from imgflow.store.opening import StoreConfig

NOBODY = 65_534


def source_of(folder: Path, exclude: tuple[str, ...] = ()) -> FolderSource:
    return FolderSource(parse_location(folder.as_uri(), setting="TEST"), exclude)


def pages_of(source: FolderSource, limit: int, start_after: str | None = None) -> Iterator[Page]:
    while True:
        page = source.list_page(start_after, limit)
        yield page
        start_after = page.resume_after
        if start_after is None:
            return


def keys_of(source: FolderSource, limit: int = 1_000, start_after: str | None = None) -> list[str]:
    return [o.key for page in pages_of(source, limit, start_after) for o in page.objects]


def put(folder: Path, key: str, body: bytes = b"x") -> bool:
    """Write a file; False where a file and a folder would need the same name."""
    path = folder / key
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return False
    return True


def by_bytes(keys: list[str]) -> list[str]:
    return sorted(keys, key=str.encode)


NAMES = st.one_of(
    st.sampled_from(
        ["a", "a-b", "a.b", "a b", "a\tb", "a\nb", ".a", "a0", "ä", "a\u0301", "😀", "\uffff"]
    ),
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6
    ).filter(lambda name: name not in (".", "..") and not name.startswith(UNFINISHED)),
)
KEYS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(
    keys=st.lists(KEYS, max_size=25, unique=True),
    limit=st.integers(1, 7),
    cursor=st.one_of(KEYS, st.none()),
)
@example(keys=["a/x", "a-b", "a.b", "a0", "b"], limit=1, cursor="a/")
@example(keys=["a/x", "a-b", "a.b", "a0", "b"], limit=2, cursor="a/x/gone")
@settings(max_examples=60, deadline=None)
def test_pages_of_any_size_are_all_keys_in_the_order_of_their_bytes(
    keys: list[str], limit: int, cursor: str | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        there = by_bytes([key for key in keys if put(folder, key)])
        assert keys_of(source_of(folder), limit) == there
        if cursor is not None:
            later = [key for key in there if key.encode() > cursor.encode()]
            assert keys_of(source_of(folder), limit, cursor) == later
        resumed = source_of(folder).list_page(there[0], limit).objects if there else []
        assert [o.key for o in resumed] == there[1 : 1 + limit]


def test_a_page_resumes_after_a_key_that_was_deleted(tmp_path: Path) -> None:
    for key in ("a", "b/1", "b/2", "b/3", "c"):
        put(tmp_path, key)
    first = source_of(tmp_path).list_page(None, 3)
    assert first.resume_after == "b/2"
    for key in ("b/1", "b/2", "b/3"):
        (tmp_path / key).unlink()
    (tmp_path / "b").rmdir()
    assert keys_of(source_of(tmp_path), 3, first.resume_after) == ["c"]


def test_a_following_page_goes_on_without_reading_the_folder_again(tmp_path: Path) -> None:
    for number in range(3_000):
        (tmp_path / f"{number:05}").touch()
    source = source_of(tmp_path)
    started = time.perf_counter()
    assert len(keys_of(source, 10)) == 3_000
    went_on = time.perf_counter() - started
    started = time.perf_counter()
    for number in range(0, 3_000, 100):
        source.list_page(f"{number:05}", 10)
    read_again = time.perf_counter() - started
    assert went_on / 300 < read_again / 30 / 2


def test_a_file_that_comes_behind_the_place_of_a_round_is_in_the_next_one(tmp_path: Path) -> None:
    for key in ("a", "b", "c"):
        put(tmp_path, key)
    source = source_of(tmp_path)
    page = source.list_page(None, 1)
    put(tmp_path, "bb")
    assert set(keys_of(source, 1, page.resume_after)) <= {"b", "bb", "c"}
    assert keys_of(source, 1) == ["a", "b", "bb", "c"]


def test_a_walk_is_not_continued_when_it_has_grown_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("a", "c"):
        put(tmp_path, key)
    source = source_of(tmp_path)
    page = source.list_page(None, 1)
    put(tmp_path, "b")
    later = time.monotonic() + CONTINUE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert keys_of(source, 1, page.resume_after) == ["b", "c"]


def test_a_listing_that_failed_midway_does_not_look_complete_afterwards(tmp_path: Path) -> None:
    for key in ("a", "b/1", "c"):
        put(tmp_path, key)
    source = source_of(tmp_path)
    page = source.list_page(None, 1)
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    with pytest.raises(Trouble, match="create it or set IMGFLOW_SOURCE_URL"):
        source.list_page(page.resume_after, 5)
    moved.rename(tmp_path)
    assert keys_of(source, 5, page.resume_after) == ["b/1", "c"]


def test_outputs_inside_the_source_and_unfinished_uploads_are_not_listed(tmp_path: Path) -> None:
    for key in ("out/thumbnail/a.jpg/@1.jpg", "outer.jpg", "out.jpg", "z/out/a.jpg"):
        put(tmp_path, key)
    put(tmp_path, f"z/{UNFINISHED}abc")
    source = StoreConfig(tmp_path.as_uri(), f"{tmp_path.as_uri()}/out").open_source()
    page = source.list_page(None, 10)
    assert [o.key for o in page.objects] == ["out.jpg", "outer.jpg", "z/out/a.jpg"]
    assert page.ignored == 2


def test_a_source_that_contains_the_home_lists_nothing_of_it(tmp_path: Path) -> None:
    home = tmp_path / ".imgflow"
    for key in ("a.jpg", ".imgflow/postgres/PG_VERSION", ".imgflow/logs/up.log", ".imgflow.jpg"):
        put(tmp_path, key)
    put(home, "outputs/thumbnail/a.jpg/@1.jpg")
    put(home, "source/own.jpg")
    outputs = (home / "outputs").as_uri()
    source = StoreConfig(tmp_path.as_uri(), outputs, home=str(home)).open_source()
    assert [o.key for o in source.list_page(None, 10).objects] == [".imgflow.jpg", "a.jpg"]
    own = StoreConfig((home / "source").as_uri(), outputs, home=str(home)).open_source()
    assert [o.key for o in own.list_page(None, 10).objects] == ["own.jpg"]
    with pytest.raises(SettingsError, match="is IMGFLOW_HOME, where the database lies"):
        StoreConfig(home.as_uri(), outputs, home=str(home)).open_source()


def test_names_that_can_be_no_key_do_not_stop_the_others(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    put(tmp_path, "z/b.jpg")
    root = os.fsencode(tmp_path)
    for name in (b"\xff.jpg", b"caf\xe9"):
        Path(os.fsdecode(root + b"/" + name)).touch()
    Path(os.fsdecode(root + b"/d\xfc")).mkdir()
    Path(os.fsdecode(root + b"/d\xfc/inside.jpg")).touch()
    put(tmp_path, "/".join(["long" * 50] * 5) + "/" + "f" * 50)
    for limit in (1, 10):
        assert keys_of(source_of(tmp_path), limit) == ["a.jpg", "z/b.jpg"]
    assert source_of(tmp_path).list_page(None, 10).ignored == 4


def test_links_that_lead_nowhere_in_circles_or_to_folders_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "real/a.jpg")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "ping").symlink_to("pong")
    (tmp_path / "pong").symlink_to("ping")
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "real" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "link.jpg").symlink_to("real/a.jpg")
    os.mkfifo(tmp_path / "pipe")
    assert keys_of(source_of(tmp_path)) == ["link.jpg", "real/a.jpg"]


def test_folders_may_be_nested_deeper_than_python_recurses(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(500):
        folder /= "d"
    folder.mkdir(parents=True)
    (folder / "deep.jpg").touch()
    assert keys_of(source_of(tmp_path)) == ["d/" * 500 + "deep.jpg"]


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
    return datetime.now(timezone.utc)


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


def test_deleting_what_is_not_there_is_no_error_but_a_folder_is_kept(tmp_path: Path) -> None:
    put(tmp_path, "d/a")
    source = source_of(tmp_path)
    source.delete("d/a")
    source.delete("d/a")
    source.delete("nowhere/a")
    with pytest.raises(Trouble, match="'d' could not be deleted"):
        source.delete("d")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so tests of what may not be read give that up."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


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
    monkeypatch.setattr("imgflow.store.whole.QUIET_SECONDS", 0)
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


def test_a_folder_that_does_not_exist_is_trouble_with_the_mend(tmp_path: Path) -> None:
    source = source_of(tmp_path / "nowhere")
    for ask in (source.check, lambda: source.list_page(None, 10)):
        with pytest.raises(Trouble, match=r"nowhere cannot be read.*IMGFLOW_SOURCE_URL"):
            ask()
