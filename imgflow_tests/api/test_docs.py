"""`docs/api.md`: its examples are run, and its list of problems is that of the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.api.http.problems import PROBLEMS
from imgflow_tests.api.library import Library, bearer, local
from imgflow_tests.fetch.servers import WebServer, ok, serving
from imgflow_tests.pictures import depth_csv, jpeg

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
LIST = re.compile(r"(<!-- problems: .*? -->\n)(.*?)(<!-- end of problems -->)", re.DOTALL)
BUCKET = "https://photos.s3.eu-central-1.amazonaws.com"
TOKEN = "the-token"  # noqa: S105 - of these tests


def examples() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [
        line
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
        if "$API" in line
    ]


def problems() -> str:
    by_status = sorted(PROBLEMS.items(), key=lambda item: item[1].status)
    lines = [f"- {meaning.status} `{code}`: {meaning.title}" for code, meaning in by_status]
    return "\n".join(lines) + "\n"


@pytest.fixture
def web() -> Iterator[WebServer]:
    """Stands for the bucket of the examples."""
    with serving(ok(jpeg(seed=9))) as server:
        yield server


@pytest.fixture
def client(make_library: Callable[..., Library], web: WebServer) -> Iterator[TestClient]:
    """An API whose first image is the photograph of the examples, the second the depth image."""
    host = f"http://127.0.0.1:{web.port}"
    library = make_library(api_token=TOKEN, watermark_text="© me", fetch_hosts=host)
    library.add("summer/a.jpg", jpeg(400, 300))
    library.add("well.csv", depth_csv(rows=40))
    with local(create_app(library.settings)) as client:  # which sends what an example sends
        yield client


def run(client: TestClient, command: str, bucket: str = "") -> httpx.Response:
    """What curl would send."""
    command = command.replace("$API", "").replace("$TOKEN", TOKEN).replace(BUCKET, bucket)
    words = iter(shlex.split(command))
    assert next(words) == "curl"
    method, url, headers, body = "", "", {}, None
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words).replace("…", "5ecre7").encode()
        elif word == "--data-binary":
            assert next(words).endswith(".jpg")
            body = jpeg(seed=7)
        elif word == "-o":
            next(words)
        else:
            assert not url
            url = word
    method = method or ("GET" if body is None else "POST")
    return client.request(method, url, headers=headers, content=body)


def test_every_example_works_and_every_route_has_one(client: TestClient, web: WebServer) -> None:
    document = client.get("/openapi.json", headers=bearer(TOKEN)).json()
    missing = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    for command in examples():
        answer = run(client, command, f"http://127.0.0.1:{web.port}")
        assert answer.status_code < 400, f"{command}\n{answer.text}"
        path = answer.request.url.path
        missing -= {
            (method, template)
            for method, template in missing
            if method == answer.request.method
            and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.replace("summer/", ""))
        }
    assert not missing


def test_the_list_of_problems_is_that_of_the_code() -> None:
    found = LIST.search(PAGE.read_text())
    assert found is not None
    assert found.group(2) == problems(), "run `python -m imgflow_tests.api.test_docs`"


if __name__ == "__main__":
    PAGE.write_text(LIST.sub(lambda m: m.group(1) + problems() + m.group(3), PAGE.read_text()))
