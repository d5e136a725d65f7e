from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from imgflow.api.routes import pictures
from imgflow_tests.api.library import Library
from imgflow_tests.pictures import depth_csv, jpeg, png


@pytest.fixture
def url(library: Library) -> str:
    return f"/images/{library.image('photos/a.jpg').id}"


def test_outputs_are_the_pictures_that_were_made(
    library: Library, client: TestClient, url: str
) -> None:
    image = library.image("photos/a.jpg")
    for name, mode, size in (("thumbnail", "RGB", (256, 192)), ("grayscale", "L", (400, 300))):
        answer = client.get(f"{url}/{name}")
        assert answer.status_code == 200
        assert answer.content == library.worker.outputs.get(image.outputs[name]["name"])
        picture = Image.open(io.BytesIO(answer.content))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", mode, size)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.headers["Content-Length"] == str(len(answer.content))
        assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
        assert answer.headers["Cache-Control"] == "private, no-cache"
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert "Content-Encoding" not in answer.headers


def test_proofs_are_served_where_they_are_enabled(make_library: Callable[..., Library]) -> None:
    library = make_library(watermark_text="© imgflow")
    image = library.add("a.png", png(600, 400))
    with library.client() as client:
        proof = Image.open(io.BytesIO(client.get(f"/images/{image.id}/proof").content))
    assert proof.size == (512, 341)


@pytest.mark.parametrize("name", ["thumbnail", "grayscale", "original"])
def test_a_known_picture_is_not_sent_again(client: TestClient, url: str, name: str) -> None:
    first = client.get(f"{url}/{name}")
    for condition in (first.headers["ETag"], f"W/{first.headers['ETag']}", '"x", *', "*"):
        again = client.get(f"{url}/{name}", headers={"If-None-Match": condition})
        if condition == '"x", *':
            assert again.status_code == 200
            continue
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == first.headers["ETag"]
        assert again.headers["Cache-Control"] == "private, no-cache"
    assert client.get(f"{url}/{name}", headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize("name", ["thumbnail", "original"])
def test_a_head_has_the_headers_of_a_get_and_no_body(
    client: TestClient, url: str, name: str
) -> None:
    get, head = client.get(f"{url}/{name}"), client.head(f"{url}/{name}")
    assert (head.status_code, head.content) == (200, b"")
    ignored = {"x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in get.headers.items() if k not in ignored
    }
    known = client.head(f"{url}/{name}", headers={"If-None-Match": get.headers["ETag"]})
    assert known.status_code == 304
    assert client.head(f"{url}/{name}", headers={"Range": "bytes=0-1"}).status_code == 200


@pytest.mark.parametrize("name", ["thumbnail", "original"])
@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=5-999999999", 5, None),
    ],
)
def test_a_range_gives_these_bytes(
    *, client: TestClient, url: str, name: str, header: str, start: int, end: int | None
) -> None:
    whole = client.get(f"{url}/{name}").content
    part = client.get(f"{url}/{name}", headers={"Range": header})
    assert part.status_code == 206
    assert part.content == whole[start:end]
    first = start % len(whole)
    last = first + len(part.content) - 1
    assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole)}"
    assert part.headers["Content-Length"] == str(len(part.content))


def test_a_range_of_another_version_gives_the_whole_picture(client: TestClient, url: str) -> None:
    whole = client.get(f"{url}/thumbnail")
    same = {"Range": "bytes=0-9", "If-Range": whole.headers["ETag"]}
    assert client.get(f"{url}/thumbnail", headers=same).status_code == 206
    other = client.get(f"{url}/thumbnail", headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert (other.status_code, other.content) == (200, whole.content)


def test_an_original_is_the_uploaded_bytes_in_pieces(own_library: Library) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1_200, 1_000, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    body = file.getvalue()
    image = own_library.add("big.png", body)
    with own_library.client() as client:
        for name, expected in (
            ("original", body),
            ("grayscale", own_library.worker.outputs.get(image.outputs["grayscale"]["name"])),
        ):
            assert expected is not None
            answer = client.get(f"/images/{image.id}/{name}")
            assert answer.content == expected
            assert answer.headers["Content-Length"] == str(len(expected))
            middle = {"Range": "bytes=1048570-1048590"}
            part = client.get(f"/images/{image.id}/{name}", headers=middle)
            assert part.content == expected[1048570:1048591]


def test_pieces_of_an_output_join_to_the_whole(
    client: TestClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = client.get(f"{url}/grayscale").content
    monkeypatch.setattr(pictures, "PIECE_BYTES", 1_000)
    assert client.get(f"{url}/grayscale").content == whole
    part = client.get(f"{url}/grayscale", headers={"Range": "bytes=999-4321"})
    assert part.content == whole[999:4322]


def test_only_raster_pictures_are_shown_and_all_else_is_a_download(
    library: Library, client: TestClient
) -> None:
    expected = {
        "photos/a.jpg": ("image/jpeg", "inline"),
        "photos/b.png": ("image/png", "inline"),
        "page.jpg": ("application/octet-stream", "attachment"),
        "drawing.svg": ("application/octet-stream", "attachment"),
        "holes/one.csv": ("application/octet-stream", "attachment"),
        "waiting.jpg": ("application/octet-stream", "attachment"),
    }
    for key, (media_type, kind) in expected.items():
        answer = client.get(f"/images/{library.image(key).id}/original")
        assert answer.content == (library.folder / key).read_bytes()
        assert answer.headers["Content-Type"] == media_type
        name = key.rpartition("/")[2]
        assert answer.headers["Content-Disposition"].startswith(f'{kind}; filename="{name}"')
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_an_empty_upload_is_served_as_empty(own_library: Library) -> None:
    image = own_library.add("empty.jpg", b"")
    with own_library.client() as client:
        answer = client.get(f"/images/{image.id}/original")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Content-Length"] == "0"
        part = client.get(f"/images/{image.id}/original", headers={"Range": "bytes=0-"})
        assert (part.status_code, part.headers["Content-Range"]) == (416, "bytes */0")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_original_that_was_overwritten_is_never_served_as_the_old_one(
    own_library: Library, method: str
) -> None:
    image = own_library.add("a.jpg", jpeg(seed=1))
    newer = jpeg(seed=2)
    own_library.put("a.jpg", newer)
    with own_library.client() as client:
        early = client.request(method, f"/images/{image.id}/original")
        assert (early.status_code, early.headers["Retry-After"]) == (409, "5")
        own_library.announce()
        answer = client.request(method, f"/images/{image.id}/original")
        assert answer.status_code == 200
        assert answer.headers["Content-Length"] == str(len(newer))
        # Nobody looked at it yet, so nobody says that it is a picture.
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["ETag"] != f'"{image.sha256}"'
        own_library.process()
        answer = client.request(method, f"/images/{image.id}/original")
        assert answer.headers["ETag"] == f'"{hashlib.sha256(newer).hexdigest()}"'


def test_an_output_that_was_replaced_while_it_was_asked_for_is_the_new_one(
    own_library: Library,
) -> None:
    image = own_library.add("a.png", png(30, 20, seed=1))
    old = image.outputs["thumbnail"]["name"]
    with own_library.client() as client:
        outputs = client.app.state.connections.outputs  # type: ignore[attr-defined]
        get_range = outputs.get_range

        def collect_first(name: str, start: int, end: int) -> bytes:
            if name == old:
                own_library.add("a.png", png(50, 40, seed=2))
                own_library.worker.outputs.delete([old])
            return bytes(get_range(name, start, end))

        outputs.get_range = collect_first
        answer = client.get(f"/images/{image.id}/thumbnail")
    assert Image.open(io.BytesIO(answer.content)).size == (50, 40)


def test_depth_images_have_a_preview(own_library: Library) -> None:
    image = own_library.add("a.csv", depth_csv(rows=20))
    with own_library.client() as client:
        answer = client.get(f"/images/{image.id}/preview")
    record = image.outputs["preview"]
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (record["width"], record["height"])
