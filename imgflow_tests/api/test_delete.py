"""`DELETE /images/{id}`: what goes, what stays, and that it may be said twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from imgflow.errors import Trouble
from imgflow.store.naming import MARKER, source_part
from imgflow_tests.api.library import Library, encoded
from imgflow_tests.pictures import depth_csv, jpeg

TOKEN = "t0ken-of-these-tests"  # noqa: S105 - of nobody
MakeLibrary = Callable[..., Library]


def authorized(client: TestClient) -> TestClient:
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    return client


def counts(images: int, outputs: int, objects: int, *, dry_run: bool = False) -> dict[str, Any]:
    return {"images": images, "outputs": outputs, "objects": objects, "dry_run": dry_run}


@pytest.fixture
def own_library(make_library: MakeLibrary) -> Library:
    return make_library(api_token=TOKEN)


def stored(library: Library) -> list[str]:
    return [output.name for output in library.worker.outputs.names()]


def test_outputs_and_row_go_and_the_object_stays(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    own_library.add("b.jpg", jpeg(seed=1))
    with own_library.client() as client:
        answer = authorized(client).delete(f"/images/{image.id}")
        assert (answer.status_code, answer.json()) == (200, counts(1, 2, 0))
        assert client.get(f"/images/{image.id}").json()["code"] == "image_deleted"
        assert client.get(f"/images/{image.id}/thumbnail").status_code == 404
        assert [item["key"] for item in client.get("/images").json()["items"]] == ["b.jpg"]
    assert all("/b.jpg/" in name for name in stored(own_library))
    assert (own_library.folder / "a.jpg").exists()
    own_library.announce()
    assert own_library.image("a.jpg").state == "deleted", "the same upload does not bring it back"


def test_outputs_that_belong_to_another_catalogue_stay(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    before = stored(own_library)
    others = dict.fromkeys(("catalogue", "database", "since", "host"), "another")
    own_library.worker.outputs.delete([MARKER])
    own_library.worker.outputs.put_first(MARKER, json.dumps(others).encode())
    with own_library.client() as client:
        for query in ("", "?source=true"):
            answer = authorized(client).delete(f"/images/{image.id}{query}")
            assert (answer.status_code, answer.json()["code"]) == (503, "outputs_not_ours")
            assert own_library.worker.outputs.location.url not in answer.text
        url = "https://example.com/a.jpg"
        answer = client.post("/process", json={"url": url})
        assert answer.json()["code"] == "outputs_not_ours"
    assert stored(own_library) == before
    assert own_library.image("a.jpg").state == "ready"
    assert (own_library.folder / "a.jpg").exists()


def test_a_depth_image_goes_with_its_array(own_library: Library) -> None:
    own_library.add("a b/hole.csv", depth_csv(rows=3))
    with own_library.client() as client:
        answer = authorized(client).delete(f"/images/{encoded('a b/hole.csv')}")
        assert answer.json() == counts(1, 2, 0)
    with own_library.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM depth_chunks")).scalar() == 0
    assert stored(own_library) == []


def test_doing_it_again_does_nothing(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    with own_library.client() as client:
        first = authorized(client).delete(f"/images/{image.id}?source=true")
        assert first.json() == counts(1, 2, 1)
        row = own_library.image("a.jpg")
        own_library.put("a.jpg", jpeg(seed=3))  # uploaded again, and not listed yet
        for parameters in ("", "?source=true", "?dry_run=true&source=true"):
            again = client.delete(f"/images/{image.id}{parameters}")
            assert again.status_code == 200
            assert [again.json()[name] for name in ("images", "outputs", "objects")] == [0, 0, 0]
        assert own_library.image("a.jpg") == row
        assert (own_library.folder / "a.jpg").exists()


def test_the_object_of_a_deleted_image_can_still_go(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    with own_library.client() as client:
        authorized(client).delete(f"/images/{image.id}")
        assert client.delete(f"/images/{image.id}?source=true").json() == counts(0, 0, 1)
        assert not (own_library.folder / "a.jpg").exists()
        assert client.delete(f"/images/{image.id}?source=true").json() == counts(0, 0, 0)
    own_library.put("a.jpg", jpeg())
    own_library.announce()
    assert own_library.image("a.jpg").state == "pending", "a new upload is a new image"


def test_a_dry_run_says_what_would_go_and_changes_nothing(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    before = stored(own_library)
    with own_library.client() as client:
        answer = authorized(client).delete(f"/images/{image.id}?dry_run=true&source=true")
        assert answer.json() == counts(1, 2, 1, dry_run=True)
    assert own_library.image("a.jpg") == image
    assert stored(own_library) == before
    assert (own_library.folder / "a.jpg").exists()


def test_images_in_every_other_state_can_be_deleted(own_library: Library) -> None:
    own_library.add("rejected.jpg", b"no picture")
    own_library.put("pending.jpg", jpeg())
    own_library.announce()
    with own_library.client() as client:
        for key in ("rejected.jpg", "pending.jpg"):
            answer = authorized(client).delete(f"/images/{encoded(key)}")
            assert answer.json() == counts(1, 0, 0)
            assert own_library.image(key).state == "deleted"


def test_a_bucket_is_emptied_of_what_was_asked_for(
    make_library: MakeLibrary, s3: Any, bucket: str
) -> None:
    library = make_library(
        source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/out", api_token=TOKEN
    )
    keys = ["a b/ü#?.jpg", "a//b.jpg", "stays.jpg"]
    for seed, key in enumerate(keys):
        s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=jpeg(seed=seed))
    library.announce()
    library.process()
    with library.client() as client:
        authorized(client)
        for key in keys[:2]:
            url = f"/images/{encoded(key)}?source=true"
            assert client.delete(url).json() == counts(1, 2, 1)
            assert client.delete(url).json() == counts(0, 0, 0)
    part = source_part(f"s3://{bucket}/in/")
    left = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert sorted(name.split("@")[0] for name in left) == [
        "in/stays.jpg",
        f"out/grayscale/{part}/stays.jpg/",
        "out/imgflow.json",
        f"out/thumbnail/{part}/stays.jpg/",
    ]


def test_what_stops_in_between_is_finished_by_the_next_one(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = own_library.add("a.jpg", jpeg())

    def refuse(*_: object) -> None:
        raise Trouble("The source does not answer.")

    with own_library.client() as client:
        authorized(client)
        with monkeypatch.context() as patch:
            patch.setattr(type(own_library.worker.source), "delete", refuse)
            answer = client.delete(f"/images/{image.id}?source=true")
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert own_library.image("a.jpg") == image, "the object goes first"
        assert client.delete(f"/images/{image.id}?source=true").json() == counts(1, 2, 1)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/images/999999", "image_not_found"),
        ("/images/key:none.jpg", "image_not_found"),
        ("/images/key:%FF", "image_not_found"),
        ("/images/abc", "invalid_id"),
        ("/images/1?source=maybe", "invalid_parameter"),
        ("/images/1?dry_run=2", "invalid_parameter"),
        ("/images/1/thumbnail", "method_not_allowed"),
        ("/images", "method_not_allowed"),
    ],
)
def test_what_cannot_be_deleted_is_a_problem(own_library: Library, path: str, code: str) -> None:
    with own_library.client() as client:
        answer = authorized(client).delete(path)
    assert answer.json()["code"] == code
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_methods_of_an_image_are_told(own_library: Library) -> None:
    with own_library.client() as client:
        for path in ("/images/1", "/images/key:a%2Fb.jpg"):
            answer = client.post(path)
            assert answer.json()["code"] == "method_not_allowed"
            assert answer.headers["Allow"] == "GET, HEAD, DELETE"
