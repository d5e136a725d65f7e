"""The API over buckets: what differs from folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imgflow_tests.api.library import Library, encoded
from imgflow_tests.pictures import jpeg

KEY = "a b/ü#?.jpg"


def test_outputs_and_originals_come_from_buckets(
    make_library: Callable[..., Library], s3: Any, bucket: str
) -> None:
    library = make_library(source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/out")
    body = jpeg(300, 200)
    s3.put_object(Bucket=bucket, Key=f"in/{KEY}", Body=body)
    library.announce()
    library.process()
    image = library.image(KEY)
    with library.client() as client:
        assert client.get("/health/ready").status_code == 200
        url = f"/images/{encoded(KEY)}"
        thumbnail = client.get(f"{url}/thumbnail")
        stored = s3.get_object(Bucket=bucket, Key=f"out/{image.outputs['thumbnail']['name']}")
        assert thumbnail.content == stored["Body"].read()
        part = client.get(f"{url}/thumbnail", headers={"Range": "bytes=3-9"})
        assert part.content == thumbnail.content[3:10]
        assert client.get(f"{url}/original").content == body
        assert client.get(f"{url}/original", headers={"Range": "bytes=-5"}).content == body[-5:]
        assert client.head(f"{url}/original").headers["Content-Length"] == str(len(body))

        s3.put_object(Bucket=bucket, Key=f"in/{KEY}", Body=jpeg(seed=2))
        for method in ("GET", "HEAD"):
            assert client.request(method, f"{url}/original").status_code == 409
        s3.delete_object(Bucket=bucket, Key=f"in/{KEY}")
        assert client.get(f"{url}/original").json()["code"] == "original_deleted"
        assert client.get(f"{url}/thumbnail").content == thumbnail.content


def test_keys_that_differ_in_slashes_and_dots_are_served_apart(
    make_library: Callable[..., Library], s3: Any, bucket: str
) -> None:
    library = make_library(source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/out")
    keys = ["a.jpg", "/a.jpg", "a.jpg/", "a//b.jpg", "a/b.jpg", "x/../a.jpg", "./a.jpg", "a\t.jpg"]
    bodies = {key: jpeg(200, 100 + number) for number, key in enumerate(keys)}
    for key, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=body)
    library.announce()
    library.process()
    with library.client() as client:
        items = {key: client.get(f"/images/{encoded(key)}").json() for key in keys}
        assert {key: (item["key"], item["height"]) for key, item in items.items()} == {
            key: (key, 100 + number) for number, key in enumerate(keys)
        }
        for key in keys:
            by_id = client.get(f"/images/{items[key]['id']}/original")
            assert client.get(f"/images/{encoded(key)}/original").content == bodies[key]
            assert by_id.content == bodies[key]
        thumbnails = {client.get(f"/images/{encoded(key)}/thumbnail").content for key in keys}
    assert len(thumbnails) == len(keys)


def test_readiness_names_buckets_that_do_not_exist(
    make_library: Callable[..., Library], s3: Any, bucket: str
) -> None:
    assert s3  # the environment points to its server
    library = make_library(source_url="s3://no-such-source", output_url="s3://no-such-outputs")
    with library.client() as client:
        assert client.get("/health/ready").json()["parts"] == ["source", "outputs"]
    library = make_library(source_url=f"s3://{bucket}/in", output_url="s3://no-such-outputs")
    with library.client() as client:
        assert client.get("/health/ready").json()["parts"] == ["outputs"]
