from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from imgflow.api.routes.depth_frames import plain_parameters
from imgflow_tests.api.library import Library

QUERIES = [
    "",
    "depth_min=9000.3&depth_max=9001.7",
    "depth_min=+9000.3",
    "depth_max=%209001",
    "depth_min=9000.3&format=png&colormap=gray_r&rescale=0,100",
    "depth_min=",
    "depth_min=9002&depth_max=9001",
    "depth_min=9000.31&depth_max=9000.39",
    "format=gif",
    "format=",
    "rescale=1",
    "colormap=jet",
    "colormap=%FF",
    "depth_min=1e9",
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("named", ["{id}", "key:holes%2Fone.csv", "key:holes/one.csv", "x", "0"])
def test_a_plain_request_is_answered_as_fastapi_answers_it(
    client: TestClient, library: Library, query: str, named: str
) -> None:
    url = f"/image/{named.format(id=library.image('holes/one.csv').id)}"
    assert plain_parameters(query.encode()) is not None
    assert plain_parameters(f"{query}&unknown=1".encode()) is None
    own = {"X-Request-ID": "same"}
    plain = client.get(f"{url}?{query}", headers=own)
    solved = client.get(f"{url}?{query}&unknown=1", headers=own)
    assert (plain.status_code, plain.content) == (solved.status_code, solved.content)
    assert plain.headers == solved.headers


def test_what_is_not_plain_is_left_to_fastapi() -> None:
    for query in (b"depth_min=1&depth_min=2", b"bins=3", b"depth_min=" + b"1" * 300):
        assert plain_parameters(query) is None
