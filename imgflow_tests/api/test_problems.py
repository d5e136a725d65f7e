from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.api.backend import depth_reads
from imgflow.api.http.problems import PROBLEMS
from imgflow.errors import Withheld
from imgflow.settings.tokens import own_token
from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.objects import SourceObject
from imgflow_tests.api.library import Library, bearer, encoded, local
from imgflow_tests.pictures import depth_csv, jpeg

PHOTO, HOLE = encoded("photos/a.jpg"), encoded("holes/one.csv")
INSIDE = "the inside of imgflow"

PATHS = [
    ("not_found", "/nothing"),
    ("not_found", "/images/1/negative"),
    ("not_found", "/image"),
    ("invalid_parameter", "/images?limit=0"),
    ("invalid_parameter", "/images?limit=1001"),
    ("invalid_parameter", "/images?limit=ten"),
    ("invalid_parameter", "/images?kind=video"),
    ("invalid_parameter", "/images?state=lost"),
    ("invalid_parameter", "/images?prefix=%00"),
    ("invalid_parameter", f"/image/{HOLE}?format=tiff"),
    ("invalid_parameter", f"/depth/{HOLE}/statistics?bins=0"),
    ("invalid_parameter", "/colormaps/gray?ticks=1"),
    ("invalid_id", "/images/first"),
    ("invalid_id", "/images/-1"),
    ("invalid_id", "/images/1.0/thumbnail"),
    ("invalid_id", "/images/%D9%A1"),
    ("invalid_id", "/image/first"),
    ("bad_cursor", "/images?cursor=1"),
    ("bad_cursor", "/images?cursor="),
    ("bad_cursor", "/images?cursor=MTow"),
    ("bad_cursor", "/images?cursor=%C3%BC"),
    ("unknown_format", "/images?format=tga"),
    ("unknown_format", "/images?format=/"),
    ("image_not_found", "/images/999999"),
    ("image_not_found", "/images/key:nobody.jpg/original"),
    ("image_not_found", "/image/999999"),
    ("image_pending", f"/images/{encoded('waiting.jpg')}/thumbnail"),
    ("image_pending", f"/images/{encoded('waiting.csv')}/preview"),
    ("image_pending", f"/image/{encoded('waiting.csv')}"),
    ("image_rejected", f"/images/{encoded('page.jpg')}/thumbnail"),
    ("image_rejected", f"/images/{encoded('page.jpg')}/proof"),
    ("not_a_photo", f"/images/{HOLE}/thumbnail"),
    ("not_a_depth_image", f"/images/{PHOTO}/preview"),
    ("not_a_depth_image", f"/image/{PHOTO}"),
    ("not_a_depth_image", f"/depth/{PHOTO}/statistics"),
    ("output_not_enabled", f"/images/{PHOTO}/proof"),
    ("bad_number", f"/image/{HOLE}?depth_min=deep"),
    ("bad_number", f"/image/{HOLE}?depth_min="),
    ("bad_number", f"/image/{HOLE}?depth_min=nan"),
    ("bad_number", f"/image/{HOLE}?depth_max=inf"),
    ("bad_number", f"/image/{HOLE}?depth_max=1e999"),
    ("bad_number", f"/image/{HOLE}?depth_max=9_000"),
    ("bad_number", f"/image/{HOLE}?depth_max=%D9%A1"),
    ("bad_number", f"/image/{HOLE}?rescale=1"),
    ("bad_number", f"/image/{HOLE}?rescale=1,2,3"),
    ("bad_number", f"/image/{HOLE}?rescale=0,nan"),
    ("bad_number", f"/image/{HOLE}?rescale=-1e308,1e308"),
    ("bad_number", "/colormaps/gray?low=x"),
    ("bounds_descend", f"/image/{HOLE}?depth_min=9002&depth_max=9001"),
    ("bounds_descend", f"/image/{HOLE}?rescale=5,5"),
    ("bounds_descend", "/colormaps/gray?low=2&high=1"),
    ("depth_outside", f"/image/{HOLE}?depth_min=9004.05"),
    ("depth_outside", f"/image/{HOLE}?depth_max=9000.0999"),
    ("depth_outside", f"/depth/{HOLE}/statistics?depth_min=1e9"),
    ("no_rows", f"/image/{HOLE}?depth_min=9000.31&depth_max=9000.39"),
    ("no_rows", f"/depth/{HOLE}/statistics?depth_min=9000.31&depth_max=9000.39"),
    ("unknown_colormap", f"/image/{HOLE}?colormap=rainbow"),
    ("unknown_colormap", f"/image/{HOLE}?colormap=gray_r_r"),
    ("unknown_colormap", "/colormaps/rainbow"),
    ("bad_colormap", f"/image/{HOLE}?colormap=%5B1%5D"),
    ("bad_colormap", "/colormaps/%5B%22red%22,%22blue%22%5D"),
    ("unknown_problem", "/problems/none"),
]

# Problems that take more than a path have a test of their own below, or beside what they are about.
ELSEWHERE = {
    "bad_key",  # test_uploads, and the two others of uploads
    "bad_request",
    "body_too_large",
    "frame_too_tall",  # test_frames
    "image_deleted",
    "busy",  # test_outgoing
    "image_too_large",  # test_process, and the other problems of URLs
    "image_unprocessable",
    "key_refused",  # test_reading_without_being_let_in
    "link_expired",  # test_sharing
    "link_wrong",
    "method_not_allowed",
    "no_pixels",  # test_missing_pixels
    "not_ready",  # test_health
    "original_changed",
    "original_deleted",
    "original_exists",
    "original_withheld",
    "output_lost",
    "output_not_made",
    "outputs_not_ours",  # test_delete
    "range_not_satisfiable",
    "still_processing",
    "scope_missing",  # test_access, and the two of tokens
    "token_missing",
    "token_unknown",
    "too_many_rows",
    "unavailable",
    "unexpected",
    "url_failed",
    "url_not_allowed",
    "url_refused",
}


def check(answer: httpx.Response, code: str) -> None:
    status, title = PROBLEMS[code]
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["type"] == f"/problems/{code}"
    assert (problem["title"], problem["status"]) == (title, status)
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.raw_path.decode().partition("?")[0]
    assert problem["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(("code", "path"), PATHS)
def test_what_is_wrong_with_a_request_has_a_code(client: TestClient, code: str, path: str) -> None:
    answer = client.get(path)
    check(answer, code)
    assert len(answer.json()["detail"]) < 600


def test_every_code_is_tested() -> None:
    assert {code for code, _ in PATHS} | ELSEWHERE == set(PROBLEMS)


def test_codes_are_explained_where_their_type_leads(client: TestClient) -> None:
    items = client.get("/problems").json()["items"]
    assert [item["code"] for item in items] == list(PROBLEMS)
    for item in items:
        assert client.get(f"/problems/{item['code']}").json() == item


def test_a_method_that_a_route_does_not_take(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = client.request(method, "/images")
        check(answer, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"


def test_a_rejection_comes_with_its_reason(client: TestClient) -> None:
    problem = client.get(f"/images/{encoded('page.jpg')}/grayscale").json()
    assert problem["reason_code"] == "not_an_image"
    assert "not a picture" in problem["detail"]


def test_an_interval_outside_comes_with_the_bounds_of_the_image(client: TestClient) -> None:
    problem = client.get(f"/image/{HOLE}?depth_min=9999").json()
    assert (problem["depth_min"], problem["depth_max"]) == (9000.1, 9004.0)


def test_wrong_parameters_are_named(client: TestClient) -> None:
    problem = client.get("/images?limit=0&kind=video").json()
    assert [fault["parameter"] for fault in problem["errors"]] == ["kind", "limit"]


def test_a_range_behind_the_end(client: TestClient, library: Library) -> None:
    size = library.image("photos/a.jpg").outputs["thumbnail"]["size"]
    ranges = {"Range": f"bytes={size}-"}
    answer = client.get(f"/images/{PHOTO}/thumbnail", headers=ranges)
    check(answer, "range_not_satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{size}"


def test_an_original_that_went_away_or_changed(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    with own_library.client() as client:
        file = own_library.put("a.jpg", jpeg(seed=5))
        check(client.get(f"/images/{image.id}/original"), "original_changed")
        file.unlink()
        check(client.get(f"/images/{image.id}/original"), "original_deleted")
        assert client.head(f"/images/{image.id}/original").status_code == 404


def test_an_original_that_was_archived(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What S3 answers then is in test_withheld."""

    def archived(_source: FolderSource, _upload: SourceObject) -> Iterator[bytes]:
        yield from ()
        raise Withheld("archived", "it is archived (GLACIER) and cannot be read")

    image = own_library.add("a.jpg", jpeg())
    monkeypatch.setattr(FolderSource, "stream", archived)
    with own_library.client() as client:
        answer = client.get(f"/images/{image.id}/original")
        check(answer, "original_withheld")
        assert "GLACIER" in answer.json()["detail"]


def test_an_output_that_the_store_lost(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    own_library.worker.outputs.delete([image.outputs["thumbnail"]["name"]])
    with own_library.client() as client:
        check(client.get(f"/images/{image.id}/thumbnail"), "output_lost")


def test_an_output_that_was_enabled_after_the_image_was_processed(
    make_library: Callable[..., Library],
) -> None:
    image = make_library().add("a.jpg", jpeg())
    with make_library(watermark_text="© me").client() as client:
        check(client.get(f"/images/{image.id}/proof"), "output_not_made")


def test_a_deleted_image_is_listed_only_when_asked_for(own_library: Library) -> None:
    image = own_library.add("a.csv", depth_csv(rows=3))
    with own_library.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE images SET state = 'deleted', outputs = '{}'")
    with own_library.client() as client:
        for path in (
            f"/images/{image.id}",
            "/images/key:a.csv",
            f"/images/{image.id}/original",
            f"/images/{image.id}/preview",
            f"/image/{image.id}",
        ):
            check(client.get(path), "image_deleted")
        assert client.get("/images").json()["items"] == []
        listed = client.get("/images?state=deleted").json()["items"]
        assert [(item["key"], item["original_url"]) for item in listed] == [("a.csv", None)]


def test_an_interval_of_too_many_rows(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_reads, "MOST_PIXELS", 39 * 150)
    check(client.get(f"/image/{HOLE}"), "too_many_rows")
    check(client.get(f"/depth/{HOLE}/statistics"), "too_many_rows")
    assert client.get(f"/image/{HOLE}?depth_min=9000.2").status_code == 200


def test_too_many_frames_at_once_are_asked_to_come_back(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = own_library.add("a.csv", depth_csv(rows=3))
    monkeypatch.setattr(depth_reads, "WAIT_SECONDS", 0.01)
    with own_library.client() as client:
        places = client.app.state.connections.intervals  # type: ignore[attr-defined]
        while places.acquire(blocking=False):
            pass
        check(client.get(f"/image/{image.id}"), "unavailable")
        places.release()
        assert client.get(f"/image/{image.id}").status_code == 200
        # The place was given back.
        assert client.get(f"/image/{image.id}").status_code == 200


def test_trouble_outside_is_a_503_that_says_nothing_of_the_inside(
    own_library: Library, caplog: pytest.LogCaptureFixture
) -> None:
    away = own_library.settings.model_copy(
        update={"database_url": "postgresql://imgflow:hunter2@127.0.0.1:1/imgflow"}
    )
    with local(create_app(away)) as client:
        client.headers.update(bearer(own_token(away.home)))
        for path in ("/images", "/images/1", "/images/1/thumbnail", "/image/1"):
            answer = client.get(path)
            check(answer, "unavailable")
            assert answer.headers["Retry-After"] == "5"
            assert "127.0.0.1" not in answer.text
        assert answer.headers["X-Request-ID"] in caplog.text
    assert "hunter2" not in caplog.text


def test_a_failure_inside_is_a_500_that_says_nothing_of_it(
    own_library: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(INSIDE)

    with own_library.client() as client:
        catalog = client.app.state.connections.catalog  # type: ignore[attr-defined]
        monkeypatch.setattr(catalog, "by_id", fail)
        with caplog.at_level(logging.ERROR):
            answer = client.get("/images/1", headers={"X-Request-ID": "mine-1"})
    check(answer, "unexpected")
    assert INSIDE not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "mine-1" in caplog.text
    assert INSIDE in caplog.text


def test_any_other_refusal_of_the_framework_is_a_bad_request(own_library: Library) -> None:
    app = create_app(own_library.settings)

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418, INSIDE)

    with local(app) as client:
        check(client.get("/teapot"), "bad_request")
        assert INSIDE not in client.get("/teapot").text
