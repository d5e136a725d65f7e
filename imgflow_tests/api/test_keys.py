from __future__ import annotations

import io
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from imgflow.api.http.keys import key_path
from imgflow_tests.api.library import Library, encoded
from imgflow_tests.pictures import depth_csv, png

ODD_KEYS = [
    "a/b.jpg",
    "a/b/thumbnail",
    "a/b",
    "thumbnail",
    "original",
    "100%25.jpg",
    "100%.jpg",
    "a%2Fb.jpg",
    "a b+c#?.png",
    "ü/日本.jpg",
    "é.jpg",  # precomposed
    "e\u0301.jpg",  # the same to the eye
    'it\'s "quoted".jpg',
    "[x]{y}(z).jpg",
    "a,b;c=d&e.jpg",
    "a...b.jpg",
    ".../...jpg",
    "key:a",
    "12",
    "back\\slash.jpg",
    "new\nline\ttab.jpg",
    "~tilde|pipe^.jpg",
    "emoji 🪨.jpg",
    " leading and trailing .jpg ",
    "long/" + "x" * 200 + "/" + "日" * 60 + "/" + "y" * 200 + "/" + "z" * 200 + "/" + "w" * 200,
]


@pytest.fixture(scope="module")
def odd(library: Library) -> Iterator[Library]:
    """The same database, another source folder."""
    home = library.settings.home / "odd"
    odd = Library(home, library.settings.database_url)
    for number, key in enumerate(ODD_KEYS):
        if key != "a/b":  # a folder on disk; in a bucket both can be
            odd.put(key, png(8 + number, 8, seed=number))
    odd.put("wells/w 1/thumbnail.csv", depth_csv(rows=5))
    odd.announce()
    odd.process()
    yield odd
    odd.engine.dispose()


@pytest.fixture(scope="module")
def odd_client(odd: Library) -> Iterator[TestClient]:
    with odd.client() as client:
        yield client


@pytest.mark.parametrize("key", [key for key in ODD_KEYS if key != "a/b"])
def test_an_image_is_found_by_its_key_whatever_is_in_it(
    odd: Library, odd_client: TestClient, key: str
) -> None:
    image = odd.image(key)
    row = odd_client.get(f"/images/{encoded(key)}")
    assert row.status_code == 200
    assert row.json()["key"] == key
    assert row.json() == odd_client.get(f"/images/{image.id}").json()
    thumbnail = odd_client.get(f"/images/{encoded(key)}/thumbnail")
    assert Image.open(io.BytesIO(thumbnail.content)).size == (image.width, image.height)
    original = odd_client.get(f"/images/{encoded(key)}/original")
    assert original.content == (odd.folder / key).read_bytes()


def test_plain_slashes_name_the_same_image(odd: Library, odd_client: TestClient) -> None:
    for path in ("key:a/b.jpg", "key%3Aa/b.jpg", "key%3aa%2fb.jpg", "key:%61%2Fb.jpg"):
        assert odd_client.get(f"/images/{path}").json()["id"] == odd.image("a/b.jpg").id
    body = odd_client.get("/images/key:a/b.jpg/thumbnail").content
    assert body == odd_client.get("/images/key:a%2Fb.jpg/thumbnail").content


def test_a_key_that_ends_like_a_route_is_told_apart_by_its_encoded_slash(
    odd: Library, odd_client: TestClient
) -> None:
    row = odd_client.get("/images/key:a%2Fb%2Fthumbnail")
    assert row.json()["id"] == odd.image("a/b/thumbnail").id
    assert odd_client.get("/images/key:a%2Fb%2Fthumbnail/thumbnail").status_code == 200
    # With a plain slash it is the thumbnail of `a/b`, of which there is none.
    assert odd_client.get("/images/key:a/b/thumbnail").json()["code"] == "image_not_found"
    assert odd_client.get("/images/key:thumbnail").json()["key"] == "thumbnail"


def test_frames_and_statistics_take_keys_too(odd: Library, odd_client: TestClient) -> None:
    key = "wells/w 1/thumbnail.csv"
    for name in (encoded(key), f"key:{quote(key)}", str(odd.image(key).id)):
        assert odd_client.get(f"/image/{name}?depth_max=9000.2").headers["X-Imgflow-Rows"] == "2"
        assert odd_client.get(f"/depth/{name}/statistics").json()["rows"] == 5


@pytest.mark.parametrize("name", ["key:", "key:nobody.jpg", "key:%00", "key:%ff%fe", "key:../a"])
def test_a_key_that_nobody_uploaded_is_not_found(odd_client: TestClient, name: str) -> None:
    answer = odd_client.get(f"/images/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "image_not_found")


@pytest.mark.parametrize("name", ["999999", "9223372036854775807", "9223372036854775808", "9" * 99])
def test_an_id_that_nobody_has_is_not_found(odd_client: TestClient, name: str) -> None:
    assert odd_client.get(f"/images/{name}").json()["code"] == "image_not_found"


def test_images_of_another_source_in_the_same_database_do_not_exist(
    library: Library, odd_client: TestClient
) -> None:
    other = library.image("photos/a.jpg")
    assert odd_client.get(f"/images/{other.id}").status_code == 404
    assert odd_client.get(f"/images/{encoded(other.key)}").status_code == 404
    assert odd_client.get(f"/images/{other.id}/thumbnail").status_code == 404


def test_a_mounted_api_and_a_server_without_raw_paths_route_keys_too() -> None:
    mounted = {"path": "/v1/images/key:a/b/thumbnail", "root_path": "/v1"}
    sent = {**mounted, "raw_path": b"/v1/images/key:a%2Fb%2Fthumbnail"}
    assert key_path(sent) == "/v1/images/key:a%2Fb%2Fthumbnail"
    assert key_path(mounted) == "/v1/images/key:a%2Fb/thumbnail"
    assert key_path({"path": "/images", "raw_path": b"/images"}) is None


def test_originals_are_saved_under_the_last_part_of_their_key(odd_client: TestClient) -> None:
    header = odd_client.get(f"/images/{encoded('ü/日本.jpg')}/original").headers
    expected = "inline; filename=\"__.jpg\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC.jpg"
    assert header["Content-Disposition"] == expected
    quoted = odd_client.get(f"/images/{encoded(ODD_KEYS[12])}/original").headers
    assert 'filename="it\'s _quoted_.jpg"' in quoted["Content-Disposition"]
    lines = odd_client.get(f"/images/{encoded(ODD_KEYS[20])}/original").headers
    assert "new%0Aline%09tab.jpg" in lines["Content-Disposition"]


def test_a_photograph_that_is_named_like_an_id_is_found_by_key_only(
    odd: Library, odd_client: TestClient
) -> None:
    assert odd_client.get("/images/key:12").json()["id"] == odd.image("12").id
