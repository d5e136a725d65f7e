"""What anyone reads without a token: nothing of any image, wherever a request comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.api.gallery.static_files import BASE
from imgflow.errors import SettingsError
from imgflow.service.up import up
from imgflow.settings.variables import Settings
from imgflow_tests.api.library import Library, bearer, local
from imgflow_tests.api.test_problems import check
from imgflow_tests.pictures import depth_csv, jpeg

READER, WRITER = "reader-token", "writer-token"
TOKENS = f"{READER}:read,{WRITER}:write"
MakeLibrary = Callable[..., Library]

OPEN = {"/health/", "/health/ready", "/problems", "/problems/{code}"}


@pytest.fixture
def listening(make_library: MakeLibrary) -> Iterator[tuple[Library, TestClient]]:
    """An API that listens on all addresses, asked from elsewhere."""
    library = make_library(api_token=TOKENS, api_host="0.0.0.0")  # noqa: S104
    library.add("a.jpg", jpeg())
    library.add("b.csv", depth_csv(rows=5))
    app = create_app(library.settings)
    with local(app, client="192.0.2.7", host="192.0.2.1") as client:
        yield library, client


def test_everything_that_shows_an_image_needs_a_token_with_the_scope_read(
    listening: tuple[Library, TestClient],
) -> None:
    library, client = listening
    photo, depth = library.image("a.jpg").id, library.image("b.csv").id
    paths = client.get("/openapi.json", headers=bearer(READER)).json()["paths"]
    reading = {path for path, operations in paths.items() if "get" in operations} - OPEN
    reading.remove("/session")  # which says what any token allows
    assert len(reading) >= 10
    for template in reading:
        is_depth = "preview" in template or not template.startswith("/images")
        path = template.format(image=depth if is_depth else photo, name="gray")
        for method in ("GET", "HEAD"):
            answer = client.request(method, path)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="imgflow"'
        check(client.get(path), "token_missing")
        check(client.get(path, headers=bearer("wrong")), "token_unknown")
        check(client.get(path, headers=bearer(WRITER)), "scope_missing")
        if template != "/images/{image}/proof":
            assert client.get(path, headers=bearer(READER)).status_code == 200, path


def test_what_says_nothing_of_images_is_open(listening: tuple[Library, TestClient]) -> None:
    _, client = listening
    for template in (*OPEN, "/sign-in", f"{BASE}/gallery.css"):
        assert client.get(template.format(code="not_found")).status_code == 200, template


def test_no_route_is_open_because_somebody_forgot_to_close_it(
    listening: tuple[Library, TestClient],
) -> None:
    """Asks what the app has, documented or not."""
    _, client = listening
    open_paths = OPEN | {"/sign-in", "/gallery/static/{version}/{name}"}
    routes = [
        (method, path)
        for path, methods in routes_of(client.app)
        for method in methods
        if path not in open_paths and (method, path) != ("DELETE", "/session")
    ]
    assert {("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/"), ("HEAD", "/metrics")} <= {
        *routes
    }
    assert len(routes) > 40
    for method, path in routes:
        answer = client.request(method, path.format(image=1, name="gray"))
        assert answer.status_code == 401, (method, path)


def routes_of(app: Any) -> list[tuple[str, list[str]]]:
    """Paths and methods of all routes, also of those within routers."""
    found, waiting = [], list(app.routes)
    while waiting:
        route = waiting.pop()
        if getattr(route, "methods", None):
            found.append((route.path, sorted(route.methods)))
        # FastAPI keeps a router that is included as one route.
        inner = getattr(route, "original_router", route)
        waiting += getattr(inner, "routes", None) or []
    return found


@pytest.mark.parametrize(
    ("client", "host", "headers"),
    [
        ("127.0.0.1", "127.0.0.1", {}),
        ("::1", "127.0.0.9", {"Host": "localhost:8000"}),
        ("::1", "127.0.0.9", {"Host": "[::1]:8000"}),
        ("127.0.0.1", "127.0.0.1", {"Host": "evil.com@localhost"}),
        ("127.0.0.1", "127.0.0.1", {"Host": "evil.com:x@127.0.0.1:8000"}),
        ("192.0.2.7", "127.0.0.1", {}),
        ("127.0.0.1", "192.0.2.1", {}),
        ("127.0.0.1", "127.0.0.1", {"Host": "attacker.example"}),  # a name that resolves to here
        ("127.0.0.1", "127.0.0.1", {"Host": "127.0.0.1.attacker.example:8000"}),
        ("127.0.0.1", "127.0.0.1", {"Host": "[::1"}),
        ("127.0.0.1", "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", "127.0.0.1", {"Forwarded": "for=127.0.0.1"}),
    ],
)
def test_no_address_and_no_name_opens_anything(
    own_library: Library, client: str, host: str, headers: dict[str, str]
) -> None:
    with local(create_app(own_library.settings), client, host) as asking:
        check(asking.get("/images", headers=headers), "token_missing")
        assert asking.get("/", headers=headers).status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:127.0.0.1"])  # noqa: S104
def test_without_a_token_of_the_setting_the_api_does_not_listen_to_others(
    make_library: MakeLibrary, host: str
) -> None:
    with pytest.raises(SettingsError, match="does not start without IMGFLOW_API_TOKEN"):
        create_app(make_library(api_host=host).settings)
    create_app(make_library(api_host=host, api_token="some-token").settings)  # noqa: S106


def test_neither_does_imgflow_up(make_library: MakeLibrary) -> None:
    settings = make_library(api_host="0.0.0.0").settings  # noqa: S104
    with pytest.raises(SettingsError, match="does not start without IMGFLOW_API_TOKEN"):
        up(settings, lambda line: pytest.fail(f"started: {line}"))
    assert not (settings.home / "up.lock").exists()


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.53", "[::1]"])
def test_on_loopback_it_starts_without_one(make_library: MakeLibrary, host: str) -> None:
    create_app(make_library(api_host=host).settings)


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1:80", "1.2.3", ""])
def test_what_is_no_address_is_refused(make_library: MakeLibrary, host: str) -> None:
    with pytest.raises(SettingsError, match=r"^IMGFLOW_API_HOST: .*IP address"):
        make_library(api_host=host)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104
        ("::", "http://[::1]:8000"),
        ("[2001:db8::1]", "http://[2001:db8::1]:8000"),
    ],
)
def test_this_machine_finds_the_api_wherever_it_listens(
    make_settings: Callable[..., Settings], host: str, url: str
) -> None:
    assert make_settings(api_host=host, api_port=8000).api_url == url
