"""Who may change something: tokens, their scopes, and that no answer or log shows one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.settings.tokens import FILE_NAME
from imgflow_tests.api.library import Library, local
from imgflow_tests.api.test_problems import check
from imgflow_tests.pictures import jpeg

BOTH, READER, WRITER = "b0th-Token", "reader/Token+1==", "wr1ter.Token~"
MakeLibrary = Callable[..., Library]


@pytest.fixture
def own_library(make_library: MakeLibrary) -> Library:
    return make_library(api_token=f"{BOTH}, {READER}:read,{WRITER}:write")


def delete(client: TestClient, path: str, authorization: str | None = None) -> httpx.Response:
    if authorization is None:
        client.headers.pop("Authorization", None)
        return client.delete(path)
    return client.delete(path, headers={"Authorization": authorization})


@pytest.mark.parametrize(
    ("authorization", "code", "challenge"),
    [
        (None, "token_missing", 'Bearer realm="imgflow"'),
        ("", "token_missing", 'Bearer realm="imgflow"'),
        ("Bearer", "token_missing", 'Bearer realm="imgflow"'),
        (f"Basic {BOTH}", "token_missing", 'Bearer realm="imgflow"'),
        (BOTH, "token_missing", 'Bearer realm="imgflow"'),
        ("Bearer wrong", "token_unknown", 'Bearer realm="imgflow", error="invalid_token"'),
        (
            f"Bearer {BOTH[:-1]}",
            "token_unknown",
            'Bearer realm="imgflow", error="invalid_token"',
        ),
        (
            f"Bearer {READER}:read",
            "token_unknown",
            'Bearer realm="imgflow", error="invalid_token"',
        ),
        (
            f"Bearer {READER}",
            "scope_missing",
            'Bearer realm="imgflow", error="insufficient_scope", scope="write"',
        ),
    ],
)
def test_without_the_right_token_nothing_is_changed_nor_told(
    own_library: Library, authorization: str | None, code: str, challenge: str
) -> None:
    image = own_library.add("a.jpg", jpeg())
    with own_library.client() as client:
        paths = (f"/images/{image.id}", "/images/999999", "/images/abc", "/images/1?dry_run=x")
        for path in (*paths, f"/images/{image.id}?dry_run=true", f"/images/{image.id}?source=1"):
            answer = delete(client, path, authorization)
            check(answer, code)
            assert answer.headers["WWW-Authenticate"] == challenge
            for token in (BOTH, READER, WRITER):
                assert token not in answer.text
    assert own_library.image("a.jpg") == image


@pytest.mark.parametrize("token", [BOTH, WRITER])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_token_that_may_write_does(own_library: Library, scheme: str, token: str) -> None:
    image = own_library.add("a.jpg", jpeg())
    with own_library.client() as client:
        answer = delete(client, f"/images/{image.id}", f"{scheme} {token}")
    assert (answer.status_code, answer.json()["images"]) == (200, 1)


def test_reading_is_open_whatever_token_is_sent_where_the_operator_says_so(
    make_library: MakeLibrary,
) -> None:
    library = make_library(api_token=f"{BOTH}", open_reading=True)
    image = library.add("a.jpg", jpeg())
    with local(create_app(library.settings)) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
            for path in ("/images", f"/images/{image.id}", f"/images/{image.id}/thumbnail", "/"):
                for method in ("GET", "HEAD"):
                    answer = client.request(method, path, headers=headers)
                    assert answer.status_code == 200
                    assert "WWW-Authenticate" not in answer.headers
        assert client.get("/session").json() == {"scopes": ["read"]}
        check(delete(client, f"/images/{image.id}"), "token_missing")
    with local(create_app(make_library().settings)) as client:
        check(client.get("/images"), "token_missing")


def test_without_the_setting_the_token_in_the_home_is_made_once_and_works(
    make_library: MakeLibrary,
) -> None:
    library = make_library()
    image = library.add("a.jpg", jpeg())
    file = library.settings.home / FILE_NAME
    with library.client() as client:
        token = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        check(delete(client, f"/images/{image.id}"), "token_missing")
        check(delete(client, f"/images/{image.id}", f"Bearer {token}x"), "token_unknown")
    with library.client() as client:
        assert file.read_text().strip() == token, "a restart keeps it"
        assert delete(client, f"/images/{image.id}", f"Bearer {token}").status_code == 200


def test_where_no_token_can_be_kept_nobody_is_let_in(
    make_library: MakeLibrary, caplog: pytest.LogCaptureFixture
) -> None:
    library = make_library()
    image = library.add("a.jpg", jpeg())
    (library.settings.home / FILE_NAME).mkdir()
    with local(create_app(library.settings)) as client:
        assert client.get("/health/").status_code == 200
        check(client.get(f"/images/{image.id}"), "token_missing")
        for given in ("Bearer x", "Bearer  "):
            assert delete(client, f"/images/{image.id}", given).status_code == 401
    assert "set IMGFLOW_API_TOKEN" in caplog.text


def test_no_log_shows_a_token(own_library: Library, caplog: pytest.LogCaptureFixture) -> None:
    image = own_library.add("a.jpg", jpeg())
    with caplog.at_level(logging.DEBUG), own_library.client() as client:
        client.app.state.connections.outputs = None  # type: ignore[attr-defined]
        answer = delete(client, f"/images/{image.id}", f"Bearer {BOTH}")
        check(answer, "unexpected")
        delete(client, f"/images/{image.id}", f"Bearer {READER}")
    assert "A request failed" in caplog.text
    for token in (BOTH, READER, WRITER):
        assert token not in caplog.text


def test_openapi_shows_which_routes_need_a_token(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    scheme = document["components"]["securitySchemes"]["token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    secured: dict[str, Any] = {
        f"{method} {path}": operation["security"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "security" in operation
    }
    with_token = [{"token": []}, {"session": []}]
    changing = {
        route
        for route, security in secured.items()
        if security == with_token and not route.startswith("get ")
    }
    assert changing == {
        "delete /images/{image}",
        "put /images/{image}/original",
        "post /images/{image}/links",
        "post /images/{image}/retry",
        "post /process",
    }
    assert secured["post /session"] == [{"token": []}]
    assert {} not in [way for ways in secured.values() for way in ways]
    assert secured["get /images"] == with_token
    assert secured["get /images/{image}/proof"] == [*with_token, {"link": []}]
    assert "get /health/" not in secured
    answers = document["paths"]["/images/{image}"]["delete"]["responses"]
    assert {"200", "401", "403", "404", "422", "503"} <= answers.keys()
    assert "`token_missing`" in answers["401"]["description"]
