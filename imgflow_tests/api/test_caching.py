"""URLs that name a version are kept by caches, and pages of other origins are let in when set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from imgflow.errors import SettingsError
from imgflow_tests.api.library import Library
from imgflow_tests.pictures import jpeg

IMMUTABLE = "private, max-age=31536000, immutable"
ORIGIN = "https://app.example.org"
MakeLibrary = Callable[..., Library]


@pytest.mark.parametrize("name", ["grayscale", "thumbnail"])
def test_the_url_of_an_output_is_of_its_bytes_for_ever(
    library: Library, client: TestClient, name: str
) -> None:
    image = library.image("photos/a.jpg")
    url = client.get(f"/images/{image.id}").json()["outputs"][name]["url"]
    answer = client.get(url)
    assert answer.headers["Cache-Control"] == IMMUTABLE
    assert answer.headers["ETag"].strip('"').startswith(url.rpartition("=")[2])
    assert client.head(url).headers["Cache-Control"] == IMMUTABLE
    known = client.get(url, headers={"If-None-Match": answer.headers["ETag"]})
    assert (known.status_code, known.headers["Cache-Control"]) == (304, IMMUTABLE)
    part = client.get(url, headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.headers["Cache-Control"]) == (206, IMMUTABLE)


def test_a_url_of_an_older_version_shows_the_present_picture_and_is_not_kept(
    own_library: Library,
) -> None:
    image = own_library.add("a.jpg", jpeg(seed=1))
    with own_library.client() as client:
        old = client.get(f"/images/{image.id}").json()["outputs"]["thumbnail"]["url"]
        own_library.add("a.jpg", jpeg(seed=2))
        new = client.get(f"/images/{image.id}").json()["outputs"]["thumbnail"]["url"]
        assert new != old
        assert client.get(new).headers["Cache-Control"] == IMMUTABLE
        shown = client.get(old)
        assert shown.content == client.get(new).content
        assert shown.headers["Cache-Control"] == "private, no-cache"


def test_an_original_is_kept_by_the_hash_of_its_upload(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg(seed=1))
    assert image.sha256 is not None
    url = f"/images/{image.id}/original?v={image.sha256[:16]}"
    with own_library.client() as client:
        assert client.get(url).headers["Cache-Control"] == IMMUTABLE
        own_library.put("a.jpg", jpeg(seed=2))
        own_library.announce()
        assert client.get(url).headers["Cache-Control"] == "private, no-cache"


def test_other_origins_are_not_let_in_unless_set(client: TestClient) -> None:
    answer = client.get("/images", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    assert client.options("/images", headers=asked).status_code == 405


def test_origins_that_are_set_are_let_in_and_no_others(make_library: MakeLibrary) -> None:
    library = make_library(cors_origins=f"{ORIGIN}, http://localhost:5173")
    with library.client() as client:
        answer = client.get("/images", headers={"Origin": ORIGIN})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert answer.headers["X-Request-ID"]
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
        assert client.options("/images/1/original", headers=asked).status_code == 200
        for other in ("https://evil.example", "null", f"{ORIGIN}.evil.example"):
            answer = client.get("/images", headers={"Origin": other})
            assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("origins", ["*", "app.example.org", "https://a/b", "https://a,null"])
def test_what_is_no_origin_is_refused(make_library: MakeLibrary, origins: str) -> None:
    with pytest.raises(SettingsError, match=r"^IMGFLOW_CORS_ORIGINS: .* is not https://host"):
        make_library(cors_origins=origins)
