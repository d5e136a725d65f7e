"""Listing a folder: all keys, exactly, in pages that resume."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgflow.errors import SettingsError, Trouble
from imgflow.store.config import StoreConfig
from imgflow.store.folder.walk import CONTINUE_SECONDS, UNFINISHED
from imgflow_tests.store.folders import (
    by_bytes,
    keys_of,
    put,
    source_of,
)

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


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder of links of every kind, and one file."""
    folder = tmp_path / "in"
    put(folder, "real/a.jpg")
    put(tmp_path, "outside.jpg")
    (folder / "self").symlink_to("self")
    (folder / "ping").symlink_to("pong")
    (folder / "pong").symlink_to("ping")
    (folder / "gone").symlink_to("nothing")
    (folder / "real" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "link.jpg").symlink_to("real/a.jpg")
    (folder / "real" / "chain.jpg").symlink_to("../link.jpg")
    (folder / "absolute.jpg").symlink_to(folder / "real" / "a.jpg")
    (folder / "around.jpg").symlink_to("real/up/../in/real/a.jpg")
    (folder / "out.jpg").symlink_to("../outside.jpg")
    (folder / "out and in.jpg").symlink_to("../in/real/a.jpg")
    os.mkfifo(folder / "pipe")
    return folder


def test_links_are_left_out_and_counted(linked: Path) -> None:
    page = source_of(linked).list_page(None, 100)
    assert [o.key for o in page.objects] == ["real/a.jpg"]
    (warning,) = page.warnings
    assert "11 symbolic links are left out" in warning
    assert "IMGFLOW_FOLLOW_LINKS=true" in warning


def test_links_are_followed_to_files_below_the_folder_where_they_are_allowed(linked: Path) -> None:
    source = source_of(linked, follow_links=True)
    page = source.list_page(None, 100)
    followed = ["absolute.jpg", "around.jpg", "link.jpg", "out and in.jpg", "real/chain.jpg"]
    assert [o.key for o in page.objects] == sorted([*followed, "real/a.jpg"])
    (warning,) = page.warnings
    assert "6 symbolic links are left out" in warning
    for found in page.objects:
        assert source.stat(found.key) == found
        assert source.read(found) == b"x"
    source.delete("link.jpg")
    assert (linked / "real" / "a.jpg").exists(), "a link is deleted, and not what it leads to"


def test_folders_may_be_nested_deeper_than_python_recurses(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(500):
        folder /= "d"
    folder.mkdir(parents=True)
    (folder / "deep.jpg").touch()
    assert keys_of(source_of(tmp_path)) == ["d/" * 500 + "deep.jpg"]
