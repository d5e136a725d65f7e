"""Uploads through the API take the ordinary way: into the source, then pending."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from imgflow_tests.api.library import Library, encoded, local
from imgflow_tests.api.test_problems import check
from imgflow_tests.api.test_remote_access import bearer
from imgflow_tests.pictures import depth_csv, jpeg, png

TOKEN = "the-token"  # noqa: S105 - of these tests
MakeLibrary = Callable[..., Library]


@pytest.fixture
def own_library(make_library: MakeLibrary) -> Library:
    return make_library(api_token=TOKEN, upload_bytes=200_000)


@pytest.fixture
def client(own_library: Library) -> Iterator[TestClient]:
    with own_library.client() as client:
        yield client


def put(client: TestClient, key: str, body: Any, **headers: str) -> httpx.Response:
    url = f"/images/{encoded(key)}/original"
    return client.put(url, content=body, headers={**bearer(TOKEN), **headers})


@pytest.mark.parametrize("key", ["a.jpg", "ü b/c+#?%41.jpg", "d/links", "e/retry"])
def test_an_upload_is_put_into_the_source_and_waits_for_its_turn(
    own_library: Library, client: TestClient, key: str
) -> None:
    body = jpeg(seed=4)
    answer = put(client, key, body)
    assert answer.status_code == 201
    row = answer.json()
    assert (row["key"], row["state"], row["kind"]) == (key, "pending", "photo")
    assert answer.headers["Location"] == f"/images/{row['id']}"
    assert (own_library.folder / key).read_bytes() == body
    own_library.announce()  # the listing finds what it knows already
    own_library.process()
    shown = client.get(answer.headers["Location"]).json()
    assert (shown["state"], shown["width"]) == ("ready", 64)
    assert client.get(f"/images/{row['id']}/original").content == body


def test_the_same_bytes_again_are_not_written_again(
    own_library: Library, client: TestClient
) -> None:
    put(client, "a.csv", depth_csv(rows=5))
    own_library.process()
    before, file = own_library.image("a.csv"), own_library.folder / "a.csv"
    status = file.stat()
    answer = put(client, "a.csv", depth_csv(rows=5))
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")
    assert (own_library.image("a.csv"), file.stat().st_ino) == (before, status.st_ino)


def test_an_overwrite_is_pending_again_by_key_and_by_id(
    own_library: Library, client: TestClient
) -> None:
    image = own_library.add("a.jpg", jpeg())
    answer = put(client, "a.jpg", jpeg(seed=2))
    assert (answer.status_code, answer.json()["state"]) == (200, "pending")
    own_library.process()
    url = f"/images/{image.id}/original"
    answer = client.put(url, content=png(30, 20), headers=bearer(TOKEN))
    assert (answer.status_code, answer.json()["id"]) == (200, image.id)
    own_library.process()
    assert client.get(f"/images/{image.id}").json()["media_type"] == "image/png"


def test_a_deleted_image_comes_back_with_an_upload(
    own_library: Library, client: TestClient
) -> None:
    image = own_library.add("a.jpg", jpeg())
    client.delete(f"/images/{image.id}", headers=bearer(TOKEN))
    answer = put(client, "a.jpg", jpeg())
    assert (answer.status_code, answer.json()["id"]) == (201, image.id)
    assert answer.json()["state"] == "pending"


def test_an_upload_may_ask_to_overwrite_nothing(own_library: Library, client: TestClient) -> None:
    headers = {"If-None-Match": "*"}
    assert put(client, "a.jpg", jpeg(), **headers).status_code == 201
    check(put(client, "a.jpg", jpeg(seed=2), **headers), "original_exists")
    assert (own_library.folder / "a.jpg").read_bytes() == jpeg()


def test_an_upload_that_is_too_large_leaves_nothing(
    own_library: Library, client: TestClient
) -> None:
    told = put(client, "a.bin", bytes(200_001))
    check(told, "body_too_large")
    untold = put(client, "a.bin", iter([bytes(100_000)] * 3))
    check(untold, "body_too_large")
    assert untold.headers["Connection"] == "close"
    assert list(own_library.folder.iterdir()) == []
    assert client.get("/images").json()["items"] == []
    assert put(client, "a.bin", bytes(200_000)).status_code == 201


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../a", "a/../../b", "a//b", "a/", "a\0b", "n" * 300, "d/" * 600 + "a",
     ".imgflow-upload-x"],
)  # fmt: skip
def test_a_key_that_no_listing_would_show_is_refused(
    own_library: Library, client: TestClient, key: str
) -> None:
    check(put(client, key, jpeg()), "bad_key")
    assert list(own_library.folder.iterdir()) == []


def test_keys_that_are_no_text_or_exclude_each_other_are_refused(client: TestClient) -> None:
    url = "/images/key:%FF/original"
    check(client.put(url, content=jpeg(), headers=bearer(TOKEN)), "bad_key")
    assert put(client, "a", jpeg()).status_code == 201
    check(put(client, "a/b", jpeg()), "bad_key")
    assert put(client, "c/d", jpeg()).status_code == 201
    check(put(client, "c", jpeg()), "bad_key")


def test_an_upload_among_the_outputs_is_refused(make_library: MakeLibrary) -> None:
    library = make_library(api_token=TOKEN)
    within = library.settings.model_copy(update={"output_url": (library.folder / "made").as_uri()})
    library.settings = within
    with library.client() as client:
        check(put(client, "made/thumbnail/a.jpg", jpeg()), "bad_key")


def test_only_a_token_that_may_write_uploads_and_others_are_not_read(
    make_library: MakeLibrary,
) -> None:
    library = make_library(api_token="reader:read")  # noqa: S106
    with library.client() as client:
        url = f"/images/{encoded('a.jpg')}/original"
        check(local(client.app).put(url, content=jpeg()), "token_missing")
        check(client.put(url, content=jpeg(), headers=bearer("reader")), "scope_missing")
    assert list(library.folder.iterdir()) == []


def test_uploads_go_to_buckets_too(make_library: MakeLibrary, s3: Any, bucket: str) -> None:
    library = make_library(
        api_token=TOKEN, source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/in/out"
    )
    body = jpeg()
    with library.client() as client:
        for key in ("a//b c.jpg", "ends/"):
            answer = put(client, key, body)
            assert (answer.status_code, answer.json()["key"]) == (201, key)
            stored = s3.get_object(Bucket=bucket, Key=f"in/{key}")["Body"].read()
            assert stored == body
        for key, bad in (("out/x.jpg", body), ("folder/", b""), ("n" * 1_023, body)):
            check(put(client, key, bad), "bad_key")
        library.announce()
        assert len(client.get("/images").json()["items"]) == 2


def test_a_rejected_image_is_looked_at_again_when_asked_for(
    own_library: Library, client: TestClient
) -> None:
    image = own_library.add("a.jpg", b"no picture")
    assert image.state == "rejected"
    url = f"/images/{image.id}/retry"
    check(local(client.app).post(url), "token_missing")
    answer = client.post(url, headers=bearer(TOKEN))
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    own_library.process()
    assert own_library.image("a.jpg").state == "rejected"
    by_key = client.post("/images/key:a.jpg/retry", headers=bearer(TOKEN))
    assert by_key.status_code == 202
    check(client.post("/images/999999/retry", headers=bearer(TOKEN)), "image_not_found")
