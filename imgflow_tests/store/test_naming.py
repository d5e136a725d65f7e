from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import obstore
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from obstore.exceptions import BaseError
from obstore.store import MemoryStore

from imgflow.store.location import parse_location
from imgflow.store.naming import is_exact, is_own, output_name, source_part
from imgflow.store.output_store import OutputStore
from imgflow.store.s3.clients import obstore_bucket

SOURCE = "s3://bucket/in/"
TRICKY = [
    "a", "a/b", "a/", "/a", "a//b", "//", ".", "..", "a/./b", "a/../b",
    "...", "." * 1_024, "@", "%40",
    "a/@/b", "a\tb", "a\nb", "a b ", " ", "a#1", "a#b", "a?b", "%2F",
    "%", "ü" * 512, "é", "e\u0301",
    "x" * 1_024, "/".join(["y"] * 512), "/" * 1_024, "A", "a\0b", "\\",
    "*", "~", "@%2E", "😀" * 256,
]  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(["a", "b", "/", ".", "..", "//", "@", "%", "%2E", "%40", "#1", " ", "\t", "ü"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
KEYS = st.one_of(
    st.sampled_from(TRICKY),
    st.lists(PIECES, min_size=1, max_size=12).map("".join).filter(bool),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255),
)


def name_of(key: str, fingerprint: str = "f", output: str = "thumbnail") -> str:
    return output_name(output, SOURCE, key, fingerprint, ".jpg")


@given(KEYS)
@settings(max_examples=400, deadline=None)
def test_a_name_is_short_enough_for_file_systems_and_stores_and_exact(key: str) -> None:
    for output in ("grayscale", "thumbnail", "proof", "preview"):
        name = name_of(key, output=output)
        assert len(name.encode()) <= 1_024 - 100  # what is left is for the location's prefix
        assert max(len(segment.encode()) for segment in name.split("/")) <= 255
        assert is_exact(name)
        assert is_own(name, SOURCE)
        assert not is_own(name, f"{SOURCE}other/")
        assert name.startswith(f"{output}/")


@given(st.lists(KEYS, min_size=2, max_size=30, unique=True))
@example(TRICKY)
@settings(deadline=None)
def test_different_keys_have_different_names_and_none_is_the_folder_of_another(
    keys: list[str],
) -> None:
    names = [name_of(key) for key in keys]
    assert len(set(names)) == len(names)
    folders = {
        "/".join(name.split("/")[:n]) for name in names for n in range(1, name.count("/") + 1)
    }
    assert not folders & set(names)


def test_every_argument_makes_another_name() -> None:
    names = {
        output_name("thumbnail", SOURCE, "a", "f", ".jpg"),
        output_name("grayscale", SOURCE, "a", "f", ".jpg"),
        output_name("thumbnail", "s3://bucket/other/", "a", "f", ".jpg"),
        output_name("thumbnail", SOURCE, "b", "f", ".jpg"),
        output_name("thumbnail", SOURCE, "a", "g", ".jpg"),
        output_name("thumbnail", SOURCE, "a", "f", ".png"),
    }
    assert len(names) == 6


def test_ordinary_keys_stay_readable() -> None:
    assert name_of("summer/IMG 1 (2).png").startswith(
        f"thumbnail/{source_part(SOURCE)}/summer/IMG 1 (2).png/@"
    )


def test_tricky_names_are_kept_exactly_by_a_folder(tmp_path: Path) -> None:
    _check_names_are_kept(OutputStore(parse_location(tmp_path.as_uri(), setting="TEST")))


def test_tricky_names_are_kept_exactly_by_s3(s3: Any, bucket: str) -> None:
    _check_names_are_kept(OutputStore(parse_location(f"s3://{bucket}/out", setting="TEST")))
    answer = s3.list_objects_v2(Bucket=bucket)
    assert {entry["Key"] for entry in answer["Contents"]} == {
        "out/" + name_of(key) for key in TRICKY
    }


def _check_names_are_kept(store: OutputStore) -> None:
    for number, key in enumerate(TRICKY):
        store.put(name_of(key), str(number).encode(), "image/jpeg")
    assert {found.name for found in store.names()} == {name_of(key) for key in TRICKY}
    for number, key in enumerate(TRICKY):
        assert store.get(name_of(key)) == str(number).encode()


def test_names_of_any_key_are_kept_exactly_by_a_folder() -> None:
    @given(KEYS)
    @settings(max_examples=80, deadline=None)
    def check(key: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = OutputStore(parse_location(Path(folder).as_uri(), setting="TEST"))
            store.put(name_of(key), b"x", "image/jpeg")
            assert [found.name for found in store.names()] == [name_of(key)]
            assert store.get(name_of(key)) == b"x"

    check()


def _represents(store: Any, key: str) -> bool:
    """Whether obstore writes, lists and reads a key under its own name."""
    try:
        store.put(key, b"body", use_multipart=False)
        listed = [entry["path"] for batch in obstore.list(store) for entry in batch]
        return listed == [key] and bytes(store.get(key).bytes()) == b"body"
    except (BaseError, ValueError):
        return False


@given(KEYS)
@settings(max_examples=400, deadline=None)
def test_exact_are_just_the_keys_that_obstore_represents(key: str) -> None:
    assert is_exact(key) == _represents(MemoryStore(), key)


@pytest.mark.parametrize("character", [chr(point) for point in range(0x180)])
def test_of_single_characters_only_controls_are_inexact(character: str) -> None:
    key = f"d/a{character}b.jpg"
    assert is_exact(key) == _represents(MemoryStore(), key)


def test_the_real_server_has_every_exact_key_under_the_name_that_obstore_wrote(
    s3: Any, bucket: str
) -> None:
    store = obstore_bucket(s3, bucket, "")

    @given(KEYS.filter(lambda key: is_exact(key) and len(key.encode()) <= 1_000))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
    def check(key: str) -> None:
        store.put(key, b"body", use_multipart=False)
        try:
            answer = s3.list_objects_v2(Bucket=bucket)
            assert [entry["Key"] for entry in answer["Contents"]] == [key]
            assert [e["path"] for batch in obstore.list(store) for e in batch] == [key]
            assert bytes(store.get(key).bytes()) == b"body"
            assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"body"
        finally:
            s3.delete_object(Bucket=bucket, Key=key)

    check()
