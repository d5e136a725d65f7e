"""`POST /process`: by URL to grayscale, once for each image, whatever its URLs are."""

from __future__ import annotations

import io
import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from PIL import Image

from imgflow.api.backend import process_now
from imgflow.errors import Trouble
from imgflow.store.s3.source_bucket import S3Source
from imgflow.work import photographs
from imgflow_tests.api.library import Library, local
from imgflow_tests.api.test_problems import check
from imgflow_tests.api.test_remote_access import bearer
from imgflow_tests.fetch.servers import WebServer, ok, serving, status
from imgflow_tests.pictures import depth_csv, jpeg, png

TOKEN = "the-token"  # noqa: S105 - of these tests
SIGNATURE = "5ecre7" * 10
MakeLibrary = Callable[..., Library]


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serving(ok(jpeg(80, 60), 'ETag: "e1"')) as server:
        yield server


@pytest.fixture
def own_library(make_library: MakeLibrary, web: WebServer) -> Library:
    return make_library(api_token=TOKEN, fetch_hosts=f"http://127.0.0.1:{web.port}")


@pytest.fixture
def client(own_library: Library) -> Iterator[TestClient]:
    with own_library.client() as client:
        yield client


def process(client: TestClient, url: str) -> httpx.Response:
    return client.post("/process", json={"url": url}, headers=bearer(TOKEN))


def signed(web: WebServer, path: str = "/a.jpg", signature: str = SIGNATURE) -> str:
    query = f"X-Amz-Expires=60&X-Amz-Credential=AKIA%2F{signature}&X-Amz-Signature={signature}"
    return f"http://127.0.0.1:{web.port}{path}?{query}"


def works(library: Library) -> tuple[float, list[Any]]:
    """Output files written so far, and the rows."""
    written = [output.last_modified.timestamp() for output in library.worker.outputs.names()]
    return sum(written), library.catalog.page(limit=100)


def test_the_grayscale_comes_back_and_width_and_height_are_stored(
    client: TestClient, web: WebServer
) -> None:
    answer = process(client, signed(web))
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(answer.content))
    expected = np.asarray(Image.open(io.BytesIO(jpeg(80, 60))).convert("L"), dtype=int)
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "L", (80, 60))
    assert np.abs(np.asarray(picture, dtype=int) - expected).mean() < 2
    headers = answer.headers
    assert (headers["X-Imgflow-Width"], headers["X-Imgflow-Height"]) == ("80", "60")
    assert headers["Content-Type"] == "image/jpeg"
    row = client.get(f"/images/{headers['X-Imgflow-Image']}").json()
    assert (row["state"], row["width"], row["height"]) == ("ready", 80, 60)
    shown = client.get(headers["Content-Location"])
    assert (shown.content, shown.headers["ETag"]) == (answer.content, headers["ETag"])
    assert client.get(row["original_url"]).content == jpeg(80, 60)
    assert set(row["outputs"]) == {"grayscale", "thumbnail"}


def test_the_same_image_again_does_no_work_under_whatever_signature_or_url(
    own_library: Library, client: TestClient, web: WebServer
) -> None:
    first = process(client, signed(web))
    before = works(own_library)
    for path, signature in (("/a.jpg", SIGNATURE), ("/a.jpg", "other"), ("/copy.jpg", SIGNATURE)):
        again = process(client, signed(web, path, signature))
        assert again.content == first.content
        assert again.headers["X-Imgflow-Image"] == first.headers["X-Imgflow-Image"]
    assert works(own_library) == before
    # What is known by its address is only asked about.
    assert '\r\nIf-None-Match: "e1"\r\n' in web.heads[2]
    assert "If-None-Match" not in web.heads[3]


def test_a_known_address_that_answers_304_costs_no_bytes(
    own_library: Library, client: TestClient, web: WebServer
) -> None:
    first = process(client, signed(web))
    web.answer = status("304 Not Modified")
    assert process(client, signed(web, signature="new")).content == first.content
    with own_library.client() as restarted:  # remembers nothing, so the body is asked for
        web.answer = ok(jpeg(80, 60))
        assert process(restarted, signed(web)).content == first.content
    assert len(own_library.catalog.page(limit=10)) == 1


def test_another_image_under_the_same_url_is_another_image(
    client: TestClient, web: WebServer
) -> None:
    first = process(client, signed(web))
    web.answer = ok(png(30, 20, seed=5), 'ETag: "e2"')
    second = process(client, signed(web))
    assert second.headers["X-Imgflow-Image"] != first.headers["X-Imgflow-Image"]
    assert Image.open(io.BytesIO(second.content)).size == (30, 20)


def test_bytes_that_were_uploaded_before_are_known(
    own_library: Library, client: TestClient, web: WebServer
) -> None:
    image = own_library.add("summer/a.jpg", jpeg(80, 60))
    before = works(own_library)
    assert process(client, signed(web)).headers["X-Imgflow-Image"] == str(image.id)
    assert works(own_library) == before
    assert [file.name for file in own_library.folder.iterdir()] == ["summer"]


def test_many_at_once_are_one_image(
    own_library: Library, client: TestClient, web: WebServer
) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: process(client, signed(web)), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["X-Imgflow-Image"] for answer in answers}) == 1
    (image,) = own_library.catalog.page(limit=10)
    assert image.attempts == 0
    assert image.unreported, "the next run tells Dagster of it"


def stored(library: Library) -> list[str]:
    """What lies in the source."""
    found = library.folder.rglob("*")
    return sorted(str(file.relative_to(library.folder)) for file in found if file.is_file())


@pytest.mark.parametrize("body", [b"<html>no picture</html>", b"", b"%PDF-1.7 ", bytes(100_000)])
def test_what_is_no_picture_by_its_first_bytes_is_never_stored(
    own_library: Library, client: TestClient, web: WebServer, body: bytes
) -> None:
    web.answer = ok(body)
    answer = process(client, signed(web))
    check(answer, "image_unprocessable")
    assert answer.json()["reason_code"] == ("not_an_image" if body else "empty")
    assert stored(own_library) == []
    assert own_library.catalog.page(limit=10) == []


CUT_SHORT = jpeg(80, 60)[:600]


def test_what_turns_out_to_be_no_picture_is_removed_again_and_remembered(
    own_library: Library, client: TestClient, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.answer = ok(CUT_SHORT, 'ETag: "e1"')
    answer = process(client, signed(web))
    check(answer, "image_unprocessable")
    assert answer.json()["reason_code"] == "truncated"
    assert stored(own_library) == []
    (image,) = own_library.catalog.page(limit=10, state="deleted")
    assert image.gone_at is not None

    monkeypatch.setattr(own_library.worker.source.__class__, "upload", None)  # it would fail
    for path, line in (("/a.jpg", "304 Not Modified"), ("/other.jpg", "")):
        if line:
            web.answer = status(line)
        else:
            web.answer = ok(CUT_SHORT)
        again = process(client, signed(web, path, "other"))
        check(again, "image_unprocessable")
        assert again.json()["detail"] == answer.json()["detail"]


def test_many_at_once_that_are_no_picture_all_hear_why_and_leave_nothing(
    own_library: Library, client: TestClient, web: WebServer
) -> None:
    web.answer = ok(CUT_SHORT)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: process(client, signed(web)), range(16)))
    assert {answer.json()["code"] for answer in answers} == {"image_unprocessable"}
    assert stored(own_library) == []


def test_an_upload_of_the_same_bytes_by_somebody_else_stays(
    own_library: Library, client: TestClient, web: WebServer
) -> None:
    mine, theirs = "mine.jpg", f"fetched/{_sha256(CUT_SHORT)}"
    for key in (mine, theirs):
        own_library.put(key, CUT_SHORT)
    own_library.announce()
    web.answer = ok(CUT_SHORT)
    check(process(client, signed(web)), "image_unprocessable")
    assert stored(own_library) == sorted([mine, theirs])
    own_library.process()
    assert {image.state for image in own_library.catalog.page(limit=10)} == {"rejected"}


def test_where_nothing_may_be_deleted_a_run_judges_what_was_fetched(
    own_library: Library, client: TestClient, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise Trouble("AccessDenied")

    monkeypatch.setattr(own_library.worker.source.__class__, "delete", refused)
    web.answer = ok(CUT_SHORT)
    check(process(client, signed(web)), "image_unprocessable")
    own_library.process()
    (image,) = own_library.catalog.page(limit=10)
    assert image.state == "rejected"
    before = works(own_library)
    check(process(client, signed(web, signature="new")), "image_unprocessable")
    assert works(own_library) == before


def test_problems_of_urls(
    own_library: Library, client: TestClient, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("a.jpg", "https://example.org/a.jpg", "http://127.0.0.1:1/", "file:///etc/passwd"):
        check(process(client, url), "url_not_allowed")
    for url in ("https://[", "https://[x]/a.jpg", "https://ex\N{ACCOUNT OF}mple.org/a.jpg"):
        check(process(client, url), "url_not_allowed")
    for line, code in (("403 Forbidden", "url_refused"), ("500 Oh", "url_failed")):
        web.answer = status(line)
        check(process(client, signed(web)), code)
    web.answer = ok(jpeg())
    processor = client.app.state.connections.processor  # type: ignore[attr-defined]
    monkeypatch.setattr(processor, "_fetcher", _limited(web, 100))
    check(process(client, signed(web)), "image_too_large")
    for body in ({}, {"url": 1}, {"url": ""}, {"url": signed(web), "more": SIGNATURE}):
        answer = client.post("/process", json=body, headers=bearer(TOKEN))
        check(answer, "invalid_parameter")
        assert SIGNATURE not in answer.text
    stranger = local(client.app)
    check(stranger.post("/process", json={"url": signed(web)}), "token_missing")
    assert own_library.catalog.page(limit=10) == []


def _limited(web: WebServer, most: int) -> process_now.Fetcher:
    allowed = process_now.AllowedHosts([f"http://127.0.0.1:{web.port}"])
    return process_now.Fetcher(allowed, process_now.Limits(bytes=most))


def test_too_many_at_once_are_asked_to_come_back(client: TestClient, web: WebServer) -> None:
    process_now = client.app.state.connections.processing  # type: ignore[attr-defined]
    process_now.waiting = process_now.most
    answer = process(client, signed(web))
    check(answer, "unavailable")
    assert answer.headers["Retry-After"] == "5"
    process_now.waiting = 0
    assert process(client, signed(web)).status_code == 200
    assert process_now.waiting == 0


def test_workers_that_were_killed_are_replaced(client: TestClient, web: WebServer) -> None:
    assert process(client, signed(web)).status_code == 200
    pool = client.app.state.connections.processor._pool  # type: ignore[attr-defined]
    for number in list(pool._pool._pool_manager.worker_manager.workers):
        os.kill(number, signal.SIGKILL)
    web.answer = ok(png(30, 20, seed=8))
    assert process(client, signed(web, "/other")).status_code == 200


def test_an_image_that_someone_else_processes_is_waited_for(
    own_library: Library, client: TestClient, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_library.put(f"fetched/{_sha256(jpeg(80, 60))}", jpeg(80, 60))
    own_library.announce()
    (image,) = own_library.catalog.page(limit=10)
    with own_library.catalog.holds.holding("a-run"):
        own_library.catalog.assign([image.id], "a-run")
        monkeypatch.setattr(process_now, "WAIT_SECONDS", 0.2)
        answer = process(client, signed(web))
        check(answer, "still_processing")
        assert answer.headers["Retry-After"] == "5"
        monkeypatch.setattr(process_now, "WAIT_SECONDS", 30.0)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(process, client, signed(web))
            plan = process_now.batch.plan([image], _family(own_library), "run")
            outcome = photographs.answered(plan.tasks[0], own_library.worker.photo)
            assert outcome.verdict is not None
            own_library.catalog.record([outcome.verdict])
            assert waiting.result().status_code == 200
    assert own_library.image(image.key).run_id == "run"


def _family(library: Library) -> process_now.batch.Family:
    recipe = library.settings.photo_recipe
    enabled = {name: recipe.fingerprint(name) for name in ("grayscale", "thumbnail")}
    return process_now.batch.Family(enabled, frozenset(enabled))


def _sha256(body: bytes) -> str:
    return process_now.hashlib.sha256(body).hexdigest()


# In buckets.


@pytest.fixture
def in_bucket(make_library: MakeLibrary, s3: Any, bucket: str) -> Library:
    assert s3
    return make_library(
        api_token=TOKEN, source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/out"
    )


def presigned(s3: Any, bucket: str, key: str, seconds: int = 60) -> str:
    url: str = s3.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
    )
    return url


@pytest.mark.parametrize("key", ["a.jpg", "ü b/c+#?%41 d.jpg"])
def test_an_object_of_the_source_is_recognised_and_has_one_row(
    in_bucket: Library, s3: Any, bucket: str, key: str
) -> None:
    s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=jpeg(80, 60))
    with in_bucket.client() as client:
        first = process(client, presigned(s3, bucket, f"in/{key}"))
        assert first.status_code == 200, first.text
        image = in_bucket.image(key)
        assert first.headers["X-Imgflow-Image"] == str(image.id)
        before = in_bucket.catalog.page(limit=10)
        url = presigned(s3, bucket, f"in/{key}", 90)
        assert process(client, url).content == first.content
        in_bucket.announce()  # the listing knows it as well
        assert in_bucket.catalog.page(limit=10) == before == [image]
        # One whose signature does not hold gets nothing, though the image is known.
        for wrong in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.partition("?")[0]):
            check(process(client, wrong), "url_refused")
        s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=png(30, 20))
        newer = process(client, presigned(s3, bucket, f"in/{key}"))
        assert Image.open(io.BytesIO(newer.content)).size == (30, 20)
        assert newer.headers["X-Imgflow-Image"] == str(image.id)


@pytest.mark.parametrize("times", [1, 9])
def test_an_object_that_is_overwritten_while_its_url_is_checked_is_checked_again(
    in_bucket: Library,
    s3: Any,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
) -> None:
    s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg(80, 60))
    newer = iter(range(times))
    stat = S3Source.stat

    def overwritten(source: S3Source, key: str) -> Any:
        if (seed := next(newer, None)) is not None:
            s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=png(30, 20, seed=seed))
        return stat(source, key)

    monkeypatch.setattr(S3Source, "stat", overwritten)
    with in_bucket.client() as client:
        answer = process(client, presigned(s3, bucket, "in/a.jpg"))
    if times == 1:
        assert answer.status_code == 200, answer.text
        assert Image.open(io.BytesIO(answer.content)).size == (30, 20)
    else:
        check(answer, "url_refused")


def test_other_objects_of_the_bucket_are_images_from_elsewhere(
    in_bucket: Library, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="else/a.jpg", Body=jpeg(80, 60))
    s3.put_object(Bucket=bucket, Key="in/a.csv", Body=depth_csv(rows=3))
    with in_bucket.client() as client:
        answer = process(client, presigned(s3, bucket, "else/a.jpg"))
        key = client.get(f"/images/{answer.headers['X-Imgflow-Image']}").json()["key"]
        assert key == f"fetched/{_sha256(jpeg(80, 60))}"
        assert s3.get_object(Bucket=bucket, Key=f"in/{key}")["Body"].read() == jpeg(80, 60)
        check(process(client, presigned(s3, bucket, "in/a.csv")), "not_a_photo")
        check(process(client, presigned(s3, bucket, "in/none.jpg")), "url_refused")


def test_signatures_are_in_no_log_row_and_answer(
    in_bucket: Library, s3: Any, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg(80, 60))
    s3.put_object(Bucket=bucket, Key="in/bad.jpg", Body=b"no picture")
    s3.put_object(Bucket=bucket, Key="else/b.jpg", Body=jpeg(seed=3))
    urls = [presigned(s3, bucket, key) for key in ("in/a.jpg", "in/bad.jpg", "else/b.jpg")]
    wrong = f"{urls[0]}0"
    secrets = [part.partition("Signature=")[2].partition("&")[0] for part in [*urls, wrong]]
    assert all(len(secret) >= 20 for secret in secrets)
    seen = ""
    with caplog.at_level(logging.DEBUG), in_bucket.client() as client:
        for url in (*urls, wrong, f"https://evil.example/?X-Amz-Signature={secrets[0]}"):
            answer = process(client, url)
            seen += f"{answer.headers} {answer.text}"
        processor = client.app.state.connections.processor  # type: ignore[attr-defined]
        seen += repr(vars(processor)) + repr(processor._bodies) + repr(processor._rejections)
    with in_bucket.engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            seen += str(connection.exec_driver_sql(f'SELECT t::text FROM "{table}" t').all())  # noqa: S608
    seen += caplog.text
    assert "fetched/" in seen
    for secret in secrets:
        assert secret not in seen


def test_a_library_over_a_folder_fetches_from_the_s3_of_the_environment(
    make_library: MakeLibrary, s3: Any, bucket: str
) -> None:
    library = make_library(api_token=TOKEN)
    s3.put_object(Bucket=bucket, Key="a.jpg", Body=jpeg(80, 60))
    with library.client() as client:
        answer = process(client, presigned(s3, bucket, "a.jpg"))
    assert answer.status_code == 200
    assert not isinstance(library.worker.source, S3Source)
