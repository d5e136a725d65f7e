from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from imgflow.api.http.problems import PROBLEMS
from imgflow_tests.api.library import Library, encoded

PATHS = [
    "/health/",
    "/images",
    "/images/999999",
    "/nothing",
    f"/images/{encoded('photos/a.jpg')}/thumbnail",
    f"/images/{encoded('page.jpg')}/original",
    f"/image/{encoded('holes/one.csv')}",
    "/colormaps/gray",
    "/docs",
    "/",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_safe_headers(client: TestClient, path: str) -> None:
    headers = client.get(path, headers={"Origin": "https://elsewhere.example"}).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] in ("no-store", "private, no-cache")
    assert not [name for name in headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("asks", "policy"),
    [("same-site", "cross-origin"), ("cross-site", "same-origin"), ("same-origin", "same-origin")],
)
def test_pages_of_the_same_site_may_show_outputs(
    client: TestClient, asks: str, policy: str
) -> None:
    """As Dagster's UI does, on another port."""
    path = f"/images/{encoded('photos/a.jpg')}/thumbnail"
    first = client.get(path, headers={"Sec-Fetch-Site": asks})
    known = client.get(
        path, headers={"Sec-Fetch-Site": asks, "If-None-Match": first.headers["ETag"]}
    )
    assert (first.status_code, known.status_code) == (200, 304)
    for answer in (first, known):
        assert answer.headers["Cross-Origin-Resource-Policy"] == policy
        assert "Sec-Fetch-Site" in answer.headers["Vary"]


def test_a_request_id_is_kept_where_it_is_well_formed(client: TestClient) -> None:
    for given in ("a", "0f-A_1.b", "x" * 64):
        answer = client.get("/health/", headers={"X-Request-ID": given})
        assert answer.headers["X-Request-ID"] == given
    made = set()
    for given in ("", "x" * 65, "a b", "a\tb", "<script>", "é"):
        answer = client.get("/health/", headers={"X-Request-ID": given.encode()})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
        made.add(answer.headers["X-Request-ID"])
    assert len(made) == 6


def test_json_is_compressed_and_pictures_are_not(client: TestClient) -> None:
    answer = client.get("/images", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert (
        "Content-Encoding"
        not in client.get("/images", headers={"Accept-Encoding": "identity"}).headers
    )
    for path in (
        f"/images/{encoded('photos/a.jpg')}/thumbnail",
        f"/images/{encoded('holes/one.csv')}/original",
        f"/image/{encoded('holes/one.csv')}?format=npy",
    ):
        answer = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in answer.headers
        assert len(answer.content) == int(answer.headers["Content-Length"])


def test_the_docs_are_a_page_that_asks_this_api_only(client: TestClient) -> None:
    page = client.get("/docs")
    assert "/openapi.json" in page.text
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, Any]:
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def test_the_routes_are_the_contract(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {
        "/health/",
        "/health/ready",
        "/metrics",
        "/images",
        "/images/{image}",
        "/images/{image}/original",
        "/images/{image}/grayscale",
        "/images/{image}/thumbnail",
        "/images/{image}/proof",
        "/images/{image}/preview",
        "/image/{image}",
        "/images/{image}/links",
        "/images/{image}/retry",
        "/session",
        "/process",
        "/depth/{image}/legend",
        "/depth/{image}/statistics",
        "/colormaps",
        "/colormaps/{name}",
        "/problems",
        "/problems/{code}",
    }


def test_every_route_is_described_and_declares_its_problems(document: dict[str, Any]) -> None:
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for operation in operations:
        assert operation["description"]
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            schema = response["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
            for code in re.findall(r"`(\w+)`:", response["description"]):
                assert PROBLEMS[code].status == int(status)
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    schemas = document["components"]["schemas"]
    assert "code" in schemas["Problem"]["properties"]
    assert "HTTPValidationError" not in schemas


def test_depths_are_numbers_to_clients(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/image/{image}"]["get"]["parameters"]
    types = {parameter["name"]: parameter["schema"] for parameter in parameters}
    assert types["depth_min"]["type"] == types["depth_max"]["type"] == "number"
    assert types["image"]["type"] == "string"


def test_every_route_answers_head(client: TestClient, library: Library) -> None:
    names = {"image": str(library.image("holes/one.csv").id), "name": "gray", "code": "not_found"}
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        if "get" not in operations:
            continue
        get, head = (client.request(verb, path.format(**names)) for verb in ("GET", "HEAD"))
        assert head.status_code == get.status_code, path
