from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from imgflow_tests.api.library import RUN_ID, Library
from imgflow_tests.pictures import jpeg

TIME = TypeAdapter(datetime)


def keys(client: TestClient, **filters: Any) -> list[str]:
    answer = client.get("/images", params=filters)
    assert answer.status_code == 200, answer.text
    return [item["key"] for item in answer.json()["items"]]


def test_a_row_says_what_was_uploaded_and_what_became_of_it(
    library: Library, client: TestClient
) -> None:
    image = library.image("photos/a.jpg")
    body = (library.folder / "photos/a.jpg").read_bytes()
    row = client.get(f"/images/{image.id}").json()
    thumbnail = client.get(row["outputs"]["thumbnail"]["url"]).content
    assert row["key"] == "photos/a.jpg"
    assert (row["kind"], row["state"]) == ("photo", "ready")
    assert (row["width"], row["height"], row["bytes"]) == (400, 300, len(body))
    assert (row["media_type"], row["mode"]) == ("image/jpeg", "RGB")
    assert row["sha256"] == hashlib.sha256(body).hexdigest()
    assert row["recipe"] == image.recipe
    assert row["run_id"] == RUN_ID
    assert row["reason"] is None
    assert row["reason_code"] is None
    assert row["facts"]["format"] == "JPEG"
    assert row["original_url"] == f"/images/{image.id}/original"
    assert set(row["outputs"]) == {"grayscale", "thumbnail"}
    assert row["outputs"]["thumbnail"] == {
        "url": f"/images/{image.id}/thumbnail?v={hashlib.sha256(thumbnail).hexdigest()[:16]}",
        "media_type": "image/jpeg",
        "size": len(thumbnail),
        "width": 256,
        "height": 192,
        "sha256": hashlib.sha256(thumbnail).hexdigest(),
    }
    now = datetime.now(UTC)
    created, updated = (TIME.validate_python(row[name]) for name in ("created_at", "updated_at"))
    assert created <= updated <= now


def test_a_depth_image_has_its_array_as_an_output(library: Library, client: TestClient) -> None:
    row = client.get(f"/images/{library.image('holes/one.csv').id}").json()
    assert (row["kind"], row["width"], row["height"]) == ("depth", 200, 40)
    assert (row["facts"]["depth_min"], row["facts"]["depth_max"]) == (9000.1, 9004.0)
    resized = row["outputs"]["resized"]
    assert (resized["width"], resized["height"]) == (150, 40)
    assert client.get(resized["url"]).headers["Content-Type"] == "application/x-npy"
    assert client.get(row["outputs"]["preview"]["url"]).headers["Content-Type"] == "image/jpeg"


def test_a_rejected_image_says_why(library: Library, client: TestClient) -> None:
    row = client.get(f"/images/{library.image('page.jpg').id}").json()
    assert (row["state"], row["reason_code"]) == ("rejected", "not_an_image")
    assert "not a picture" in row["reason"]
    assert row["outputs"] == {}


def test_items_of_the_list_are_the_rows(client: TestClient) -> None:
    items = client.get("/images").json()["items"]
    assert len(items) == 7
    assert items == [client.get(f"/images/{item['id']}").json() for item in items]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"kind": "depth"}, ["holes/one.csv", "waiting.csv"]),
        ({"state": "rejected"}, ["drawing.svg", "page.jpg"]),
        ({"state": "pending", "kind": "photo"}, ["waiting.jpg"]),
        ({"state": "deleted"}, []),
        ({"prefix": "photos/"}, ["photos/a.jpg", "photos/b.png"]),
        ({"prefix": "photos/a.jpg"}, ["photos/a.jpg"]),
        ({"prefix": "%"}, []),
        ({"prefix": "_hotos"}, []),
        ({"prefix": ""}, None),
        ({"format": "image/jpeg"}, ["photos/a.jpg"]),
        ({"format": "Image/PNG"}, ["photos/b.png"]),
        ({"format": "jpeg"}, ["photos/a.jpg"]),
        ({"format": "JPG"}, ["photos/a.jpg"]),
        ({"format": "MPO"}, ["photos/a.jpg"]),
        ({"format": "csv"}, ["holes/one.csv"]),
        ({"format": "image/x-nothing"}, []),
        (
            {"format": "PNG", "prefix": "photos/", "kind": "photo", "state": "ready"},
            ["photos/b.png"],
        ),
    ],
)
def test_filters_select(
    client: TestClient, filters: dict[str, str], expected: list[str] | None
) -> None:
    assert sorted(keys(client, **filters)) == (
        sorted(keys(client)) if expected is None else expected
    )


def test_pages_follow_each_other_and_end(client: TestClient) -> None:
    everything = client.get("/images").json()
    assert everything["next"] is None
    for limit in (1, 2, 3, 6, 7):
        seen: list[dict[str, Any]] = []
        cursor = None
        while True:
            parameters = {"limit": limit, **({"cursor": cursor} if cursor else {})}
            page = client.get("/images", params=parameters).json()
            assert 0 < len(page["items"]) <= limit
            seen += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        assert seen == everything["items"]


def test_pages_stay_stable_while_images_are_added(own_library: Library) -> None:
    def add(names: list[str]) -> None:
        for name in names:
            own_library.put(name, jpeg(8, 8))
        own_library.announce()

    add([f"m{number}.jpg" for number in range(6)])
    with own_library.client() as client:
        seen: list[str] = []
        cursor: str | None = None
        for round_number in range(100):
            parameters = {"limit": 2, **({"cursor": cursor} if cursor else {})}
            page = client.get("/images", params=parameters).json()
            seen += [item["key"] for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
            if round_number < 2:  # keys that come before all that were shown
                add([f"a{round_number}.jpg"])
    assert seen == [*(f"m{number}.jpg" for number in range(6)), "a0.jpg", "a1.jpg"]


def test_an_overwritten_image_keeps_its_outputs_until_it_is_processed_anew(
    own_library: Library,
) -> None:
    old = own_library.add("a.jpg", jpeg(40, 30, seed=1))
    own_library.put("a.jpg", jpeg(60, 50, seed=2))
    own_library.announce()
    with own_library.client() as client:
        row = client.get(f"/images/{old.id}").json()
        assert (row["state"], row["width"]) == ("pending", 40)
        before = client.get(f"/images/{old.id}/thumbnail").headers["ETag"]
        own_library.process()
        row = client.get(f"/images/{old.id}").json()
        assert (row["state"], row["width"]) == ("ready", 60)
        assert client.get(f"/images/{old.id}/thumbnail").headers["ETag"] != before
