from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from imgflow.api.backend import depth_reads
from imgflow.api.routes import depth_frames
from imgflow.catalog.postgres.depth_arrays import DepthArrays, Interval
from imgflow.depth.colormaps import COLORMAPS, parse_colormap
from imgflow.depth.ordering import ResizedChunk
from imgflow_tests.api.library import Library
from imgflow_tests.pictures import depth_csv

DEPTHS = [9000.1 + 0.0] + [float(f"{9000 + (1 + n) // 10}.{(1 + n) % 10}") for n in range(1, 40)]


@pytest.fixture
def stored(library: Library) -> Interval:
    """The array itself, read around the API."""
    return DepthArrays(library.engine).read(library.image("holes/one.csv").id)


@pytest.fixture
def url(library: Library) -> str:
    return f"/image/{library.image('holes/one.csv').id}"


def numbers(client: TestClient, url: str, **parameters: Any) -> NDArray[np.float32]:
    answer = client.get(url, params={"format": "npy", **parameters})
    assert answer.status_code == 200, answer.text
    array: NDArray[np.float32] = np.load(io.BytesIO(answer.content), allow_pickle=False)
    return array


def opened(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_the_whole_image_is_a_jpeg_by_default(
    client: TestClient, url: str, stored: Interval
) -> None:
    answer = client.get(url)
    assert answer.headers["Content-Type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(answer.content))
    assert (picture.format, picture.size) == ("JPEG", (150, 40))
    expected = COLORMAPS["strata"][np.rint(stored.pixels).astype(int)].astype(int)
    # Noise is the worst case for JPEG; its mean survives, and so would not another colour map's.
    assert np.abs(opened(answer.content).mean((0, 1)) - expected.mean((0, 1))).max() < 3


def test_a_png_has_exactly_the_colours_of_the_values(
    client: TestClient, url: str, stored: Interval
) -> None:
    for name in ("strata", "viridis", "gray", "gray_r"):
        answer = client.get(url, params={"format": "png", "colormap": name})
        table = COLORMAPS[name]
        assert np.array_equal(opened(answer.content), table[np.rint(stored.pixels).astype(int)])


def test_numbers_are_the_stored_array(client: TestClient, url: str, stored: Interval) -> None:
    array = numbers(client, url)
    assert array.dtype == np.float32
    assert np.array_equal(array, stored.pixels)
    assert stored.depths.tolist() == DEPTHS


@pytest.mark.parametrize(
    ("low", "high", "first", "last"),
    [
        ("9000.3", "9001.7", 2, 17),
        ("9000.3", None, 2, 40),
        (None, "9000.3", 0, 3),
        ("9000.3", "9000.3", 2, 3),
        ("9000.30000000001", "9001.69999999999", 3, 16),
        ("9.0003e3", "+9001.7", 2, 17),
        ("-5", "9000.1", 0, 1),
        ("9004.0", "1e300", 39, 40),
        ("9000.2999999999999999999999", "9000.35", 2, 3),
        (" 9000.3 ", "9001.70", 2, 17),
    ],
)
def test_both_bounds_are_optional_inclusive_and_exact(
    *,
    client: TestClient,
    url: str,
    stored: Interval,
    low: str | None,
    high: str | None,
    first: int,
    last: int,
) -> None:
    bounds = {"depth_min": low, "depth_max": high}
    parameters = {name: text for name, text in bounds.items() if text is not None}
    answer = client.get(url, params={"format": "png", **parameters})
    expected = stored.pixels[first:last]
    assert np.array_equal(
        opened(answer.content), COLORMAPS["strata"][np.rint(expected).astype(int)]
    )
    assert np.array_equal(numbers(client, url, **parameters), expected)
    assert answer.headers["X-Imgflow-Rows"] == str(last - first)
    assert float(answer.headers["X-Imgflow-Depth-First"]) == DEPTHS[first]
    assert float(answer.headers["X-Imgflow-Depth-Last"]) == DEPTHS[last - 1]
    assert answer.headers["X-Imgflow-Value-Range"] == "0.0,255.0"


def test_a_colour_map_may_come_as_json(client: TestClient, url: str, stored: Interval) -> None:
    own = '[[0, "#102030"], [0.5, "#ff0000"], [1, "#fffffe"]]'
    answer = client.get(url, params={"format": "png", "colormap": own})
    table = parse_colormap(own)
    assert np.array_equal(opened(answer.content), table[np.rint(stored.pixels).astype(int)])
    legend = client.get(f"/colormaps/{quote(own, safe='')}", params={"width": 308})
    assert np.array_equal(opened(legend.content)[20, 26:282], table)
    for path in (url, f"/colormaps/{quote('[1]', safe='')}"):
        refused = client.get(path, params={"colormap": '["#12345", "#000000"]'})
        assert (refused.status_code, refused.json()["code"]) == (422, "bad_colormap")
        assert "#ffffff" in refused.json()["detail"]


def test_rescale_moves_the_ends_of_the_colour_map(
    client: TestClient, url: str, stored: Interval
) -> None:
    answer = client.get(url, params={"format": "png", "colormap": "gray", "rescale": "50,150.5"})
    scaled = (stored.pixels.astype(np.float64) - 50) * (255 / 100.5)
    expected = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    assert np.array_equal(opened(answer.content)[..., 0], expected)
    assert answer.headers["X-Imgflow-Value-Range"] == "50.0,150.5"


def test_formats_have_their_media_types(client: TestClient, url: str) -> None:
    for name, media_type in (
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
        ("npy", "application/x-npy"),
    ):
        answer = client.get(url, params={"format": name})
        assert answer.headers["Content-Type"] == media_type
        assert "Content-Encoding" not in answer.headers


def test_a_known_frame_is_not_even_read(
    client: TestClient, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = {"depth_min": "9001", "colormap": "viridis"}
    first = client.get(url, params=parameters)
    assert first.headers["Cache-Control"] == "private, no-cache"

    def refuse(*_: object, **__: object) -> Interval:
        raise AssertionError("pixels were read")

    arrays = client.app.state.connections.arrays  # type: ignore[attr-defined]
    monkeypatch.setattr(arrays, "read", refuse)
    headers = {"If-None-Match": first.headers["ETag"]}
    again = client.get(url, params=parameters, headers=headers)
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    same_numbers = {"depth_min": "9.001e3", "colormap": "viridis"}
    assert client.get(url, params=same_numbers, headers=headers).status_code == 304


def test_whatever_changes_a_frame_changes_its_etag(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = own_library.add("a.csv", depth_csv(seed=1))
    with own_library.client() as client:

        def etag(**parameters: str) -> str:
            answer = client.get(f"/image/{image.id}", params=parameters)
            assert answer.status_code == 200
            return str(answer.headers["ETag"])

        tags = [
            etag(),
            etag(depth_min="9001"),
            etag(depth_max="9001"),
            etag(colormap="gray"),
            etag(format="jpeg"),
            etag(format="png"),
            etag(rescale="0,100"),
        ]
        assert etag(rescale="0,255") == tags[0]
        own_library.add("a.csv", depth_csv(seed=2))
        tags.append(etag())
        monkeypatch.setattr(depth_frames, "FRAME_VERSION", 2)
        tags.append(etag())
    assert len(set(tags)) == len(tags)


def test_a_head_of_a_frame_has_its_headers(client: TestClient, url: str) -> None:
    get, head = client.get(url), client.head(url)
    assert head.content == b""
    for name in ("Content-Length", "Content-Type", "ETag", "X-Imgflow-Rows"):
        assert head.headers[name] == get.headers[name]


def test_a_frame_never_mixes_two_uploads(own_library: Library) -> None:
    image = own_library.add("a.csv", depth_csv(rows=30, seed=1))
    with own_library.client() as client:
        arrays = client.app.state.connections.arrays  # type: ignore[attr-defined]
        read, is_replaced = arrays.read, False

        def replace_first(*args: Any, **kwargs: Any) -> Interval:
            nonlocal is_replaced
            if not is_replaced:
                is_replaced = True
                own_library.add("a.csv", depth_csv(rows=25, seed=2))
            interval: Interval = read(*args, **kwargs)
            return interval

        arrays.read = replace_first
        raced = client.get(f"/image/{image.id}?format=npy")
        later = client.get(f"/image/{image.id}?format=npy")
    assert raced.headers["ETag"] == later.headers["ETag"]
    assert raced.content == later.content
    assert np.load(io.BytesIO(raced.content)).shape == (25, 150)


@pytest.fixture(scope="module")
def tall(library: Library) -> Iterator[tuple[TestClient, str]]:
    """A depth image of more rows than JPEG can hold, of width 2."""
    tall = Library(library.settings.home / "tall", library.settings.database_url, depth_width=2)
    lines = ["depth,a,b", *(f"{n},{n % 256},{(n + 1) % 256}" for n in range(65_600))]
    image = tall.add("tall.csv", "\n".join(lines).encode())
    with tall.client() as client:
        yield client, f"/image/{image.id}"
    tall.engine.dispose()


def test_a_frame_too_tall_for_jpeg_is_a_png_unless_jpeg_was_asked_for(
    tall: tuple[TestClient, str],
) -> None:
    client, url = tall
    assert client.get(url).headers["Content-Type"] == "image/png"
    assert client.get(url).headers["X-Imgflow-Rows"] == "65600"
    assert client.get(url, params={"depth_max": 65_499}).headers["Content-Type"] == "image/jpeg"
    refused = client.get(url, params={"format": "jpeg"})
    assert refused.json()["code"] == "frame_too_tall"
    assert "png" in refused.json()["detail"]


def test_an_interval_is_as_long_as_the_limit_or_refused(
    tall: tuple[TestClient, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, url = tall
    monkeypatch.setattr(depth_reads, "MOST_PIXELS", 2 * 1_000)
    for start in (0, 1, 511, 512, 60_000):
        exact = {"depth_min": start, "depth_max": start + 999}
        assert client.get(url, params=exact).headers["X-Imgflow-Rows"] == "1000"
        over = {"depth_min": start, "depth_max": start + 1_000}
        refused = client.get(url, params=over)
        assert (refused.status_code, refused.json()["code"]) == (422, "too_many_rows")
        assert refused.json()["most_rows"] == 1_000
    assert client.get(url).json()["code"] == "too_many_rows"


def test_other_formats_of_depth_images_have_frames_as_well(own_library: Library) -> None:
    pixels = np.random.default_rng(1).integers(0, 65_536, (30, 150)).astype(np.uint16)
    table, picture = io.BytesIO(), io.BytesIO()
    np.save(table, np.column_stack([np.arange(30), pixels]).astype(np.float64))
    Image.fromarray(pixels).save(picture, "PNG")
    for key, body in (("a.npy", table), ("a.depth.png", picture)):
        image = own_library.add(key, body.getvalue())
        assert (image.kind, image.state, image.width, image.height) == ("depth", "ready", 150, 30)
        assert image.media_type == ("application/x-npy" if body is table else "image/png")
        with own_library.client() as client:
            found = numbers(client, f"/image/{image.id}", depth_min="4", depth_max="8")
        assert np.array_equal(found, pixels[4:9])


def test_statistics_are_those_of_numpy(client: TestClient, url: str, stored: Interval) -> None:
    statistics = url.replace("/image/", "/depth/") + "/statistics"
    found = client.get(statistics, params={"depth_min": "9000.3", "depth_max": 9001.7, "bins": 7})
    answer = found.json()
    values = stored.pixels[2:17].astype(np.float64)
    assert (answer["rows"], answer["width"], answer["count"]) == (15, 150, values.size)
    assert (answer["depth_first"], answer["depth_last"]) == (9000.3, 9001.7)
    assert (answer["min"], answer["max"]) == (values.min(), values.max())
    assert answer["mean"] == pytest.approx(values.mean())
    assert answer["std"] == pytest.approx(values.std())
    assert answer["percentiles"]["50"] == pytest.approx(np.median(values))
    assert answer["histogram"] == np.histogram(values, 7)[0].tolist()
    assert len(answer["bin_edges"]) == 8


def test_colour_maps_are_listed_and_shown(client: TestClient) -> None:
    items = client.get("/colormaps").json()["items"]
    assert [item["name"] for item in items] == list(COLORMAPS)
    assert [item["name"] for item in items if item["is_default"]] == ["strata"]
    for item in items:
        answer = client.get(item["url"], params={"low": "-1.5", "high": "2", "width": 308})
        assert answer.headers["Content-Type"] == "image/png"
        bar = opened(answer.content)[20, 26:282]
        assert np.array_equal(bar, COLORMAPS[item["name"]])
        known = {"If-None-Match": answer.headers["ETag"]}
        query = {"low": "-1.5", "high": "2.0", "width": 308}
        assert client.get(item["url"], params=query, headers=known).status_code == 304


def test_an_array_of_shorter_chunks_is_refused_rather_than_cut(
    own_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = own_library.add("a.csv", depth_csv(rows=40))
    arrays = DepthArrays(own_library.engine)
    whole = arrays.read(image.id)
    name = image.outputs["resized"]["name"]
    chunks = [
        ResizedChunk(n // 4, n, whole.depths[n : n + 4], whole.pixels[n : n + 4])
        for n in range(0, 40, 4)
    ]
    arrays.store(image.id, name, chunks)
    monkeypatch.setattr(depth_reads, "MOST_PIXELS", 40 * 150)
    with own_library.client() as client:
        assert client.get(f"/image/{image.id}").json()["code"] == "too_many_rows"
        part = client.get(f"/image/{image.id}?depth_max=9000.7&format=npy")
    assert np.array_equal(np.load(io.BytesIO(part.content)), whole.pixels[:7])
