from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imgflow.cli.bulk_upload import upload_all
from imgflow.errors import Trouble
from imgflow.store.location import parse_location
from imgflow.store.output_store import OutputStore
from imgflow_tests.store.folders import NOBODY, as_nobody, keys_of, source_of

NAME = "thumbnail/summer/IMG 1 +ü%40.jpg/@0123.jpg"


def opened(url: str) -> OutputStore:
    return OutputStore(parse_location(url, setting="IMGFLOW_OUTPUT_URL"))


@pytest.fixture(params=["folder", "s3"])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OutputStore]:
    if request.param == "folder":
        yield opened((tmp_path / "new folder" / "a%20b\n?#").as_uri())
    else:
        yield opened(f"s3://{request.getfixturevalue('bucket')}/out +ü")


def test_an_output_is_kept_read_in_ranges_listed_and_deleted(outputs: OutputStore) -> None:
    body = os.urandom(200_000)
    assert outputs.get(NAME) is None
    assert not outputs.exists(NAME)
    outputs.put(NAME, body, "image/jpeg")
    assert outputs.get(NAME) == body
    assert outputs.exists(NAME)
    assert outputs.get_range(NAME, 10, 20) == body[10:20]
    assert outputs.get_range(NAME, 0, len(body)) == body
    assert outputs.get_range(NAME, len(body) - 1, len(body)) == body[-1:]
    (found,) = outputs.names()
    assert (found.name, found.size) == (NAME, len(body))
    assert found.last_modified.tzinfo is not None
    outputs.delete([NAME, NAME, "thumbnail/never/@there.jpg"])
    assert outputs.get(NAME) is None
    assert list(outputs.names()) == []


def test_what_is_missing_has_no_range(outputs: OutputStore) -> None:
    with pytest.raises(FileNotFoundError, match="thumbnail/summer"):
        outputs.get_range(NAME, 0, 1)


def test_an_output_may_be_written_again(outputs: OutputStore) -> None:
    outputs.put(NAME, b"one", "image/jpeg")
    outputs.put(NAME, b"other", "image/jpeg")
    assert outputs.get(NAME) == b"other"
    assert len(list(outputs.names())) == 1


def test_names_are_listed_by_whole_segments(outputs: OutputStore) -> None:
    for name in ("thumbnail/a/@1.jpg", "thumbnail/ab/@2.jpg", "grayscale/a/@3.jpg"):
        outputs.put(name, b"x", "image/jpeg")
    assert [found.name for found in outputs.names("thumbnail/a")] == ["thumbnail/a/@1.jpg"]
    assert len(list(outputs.names("thumbnail"))) == 2
    assert list(outputs.names("@readiness/")) == []
    assert len(list(outputs.names())) == 3


def test_readers_see_all_of_an_output_or_nothing(outputs: OutputStore) -> None:
    bodies = {None, b"1" * 2_000_000, b"2" * 2_000_000}
    seen, done = set(), threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(outputs.get(NAME))

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(5):
        for body in bodies - {None}:
            outputs.put(NAME, body or b"", "image/jpeg")
    done.set()
    thread.join()
    assert seen
    assert seen <= bodies


def test_s3_keeps_the_media_type(s3: Any, bucket: str) -> None:
    outputs = opened(f"s3://{bucket}/out")
    outputs.put(NAME, b"x", "image/webp")
    head = s3.head_object(Bucket=bucket, Key=f"out/{NAME}")
    assert head["ContentType"] == "image/webp"


def test_other_objects_of_the_bucket_do_not_disturb_the_listing(s3: Any, bucket: str) -> None:
    outputs = opened(f"s3://{bucket}")
    outputs.put(NAME, b"x", "image/jpeg")
    for key in ("in/a//b.jpg", "in/new\nline", "x/../y", "report.csv", "thumbnail", "thumbnails/a"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert [found.name for found in outputs.names()] == [NAME]


@pytest.mark.usefixtures("s3")
def test_a_missing_bucket_is_trouble_with_the_advice_and_never_a_missing_output() -> None:
    outputs = opened("s3://imgflow-no-such-bucket/out")
    for ask in (
        lambda: outputs.put(NAME, b"x", "image/jpeg"),
        lambda: outputs.get(NAME),
        lambda: outputs.get_range(NAME, 0, 1),
        lambda: list(outputs.names()),
        lambda: list(outputs.names("thumbnail")),
    ):
        with pytest.raises(
            Trouble, match=r"s3://imgflow-no-such-bucket/out/.*NoSuchBucket; create"
        ):
            ask()


def test_an_endpoint_where_nobody_listens_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    outputs = opened("s3://bucket/out")
    with pytest.raises(
        Trouble, match=r"s3://bucket/out/ could not be.*127.0.0.1:9.*Check"
    ) as caught:
        outputs.put(NAME, b"x", "image/jpeg")
    assert "very-secret" not in str(caught.value)


def test_a_folder_that_cannot_be_made_or_written_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Trouble, match=r"could not be opened.*IMGFLOW_OUTPUT_URL"):
        opened((tmp_path / "file" / "below").as_uri())
    outputs = opened((tmp_path / "out").as_uri())
    (tmp_path / "out" / "thumbnail").write_bytes(b"")
    with pytest.raises(Trouble, match="could not be written"):
        outputs.put(NAME, b"x", "image/jpeg")


def test_a_folder_without_rights_is_trouble() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outputs = opened(folder.as_uri())
        outputs.put(NAME, b"x", "image/jpeg")
        folder.chmod(0o755)
        with as_nobody():
            assert os.geteuid() in (NOBODY, os.getuid())
            with pytest.raises(Trouble, match=r"could not be written.*writable"):
                outputs.put("preview/a/@1.jpg", b"x", "image/jpeg")
            with pytest.raises(Trouble, match="could not be deleted"):
                outputs.delete([NAME])
        assert outputs.get(NAME) == b"x"


def test_a_command_uploads_folders_and_leaves_out_what_is_there(tmp_path: Path) -> None:
    folder, target = tmp_path / "photos", tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    target.mkdir()
    (folder / "a.jpg").write_bytes(b"a")
    (folder / "sub" / "b.jpg").write_bytes(b"b")
    (tmp_path / "c.jpg").write_bytes(b"c")
    told: list[str] = []

    def upload() -> tuple[int, int]:
        paths = [folder, tmp_path / "c.jpg"]
        done = upload_all(source_of(target), paths, prefix="p/", progress=told.append)
        return done.uploaded, done.skipped

    assert upload() == (3, 0)
    assert keys_of(source_of(target)) == ["p/c.jpg", "p/photos/a.jpg", "p/photos/sub/b.jpg"]
    (folder / "a.jpg").write_bytes(b"A")
    (folder / "sub" / "b.jpg").write_bytes(b"longer")
    assert upload() == (2, 1)
    assert upload() == (0, 3)
    assert told[-1] == "unchanged  p/c.jpg"
