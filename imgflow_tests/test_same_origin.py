"""Who is answered by a server that asks nobody who they are, by what a request says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.datastructures import Headers

from imgflow.web.same_origin import SameOrigin

OWN = "127.0.0.1:3000"
PAGE = "https://dagster.example.org"
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

Message = MutableMapping[str, Any]


async def tell(scope: Mapping[str, Any], _receive: Any, send: Any) -> None:
    """The server behind it, which tells everybody everything."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "secret"})
    else:
        headers = [(b"content-security-policy", b"object-src 'none'")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"secret"})


APP = SameOrigin(tell, page=PAGE, setting="IMGFLOW_DAGSTER_URL", health="/server_info")


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    status: int
    headers: Headers
    text: str


def ask(
    headers: Mapping[str, str] | Sequence[tuple[str, str]],
    path: str = "/runs",
    method: str = "GET",
    kind: str = "http",
) -> Answer:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    scope = {
        "type": kind,
        "path": path,
        "headers": [(n.lower().encode(), v.encode("latin-1")) for n, v in pairs],
        "extensions": {"websocket.http.response": {}},
        **({"method": method} if kind == "http" else {}),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect" if kind == "websocket" else "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(APP(scope, receive, send))
    start, *rest = sent
    told = "".join(one.get("text", "") or one.get("body", b"").decode() for one in rest)
    return Answer(start.get("status", 101), Headers(raw=start.get("headers", [])), told)


def get(headers: Mapping[str, str]) -> int:
    found = ask({"Host": OWN, **headers})
    assert (found.text == "secret") == (found.status == 200)
    return found.status


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:3000", "127.8.9.1:80", "localhost", "LocalHost:3001"),
        *("[::1]:3000", "dagster.example.org", "Dagster.Example.ORG:443"),
        "dagster.example.org:8443",
    ],
)
def test_addresses_of_its_own_are_answered(host: str) -> None:
    assert get({"Host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.test", "evil.test:3000", "10.0.0.7:3000", "0.0.0.1", "[::]", "128.0.0.1", ""),
        *("localhost.evil.test", "127.0.0.1.evil.test", "evil.test@localhost"),
        *("localhost@evil.test", "localhost:80@evil.test", "localhost/evil.test"),
        *("localhost evil.test", "localhost,evil", "dagster.example.org.evil.test"),
        *("evil-dagster.example.org", "x.dagster.example.org", "localhost:", "localhost:x"),
        *("127.1", "2130706433", "0x7f.1", "[::1", "::1", "localhost."),
    ],
)
def test_other_names_are_not_and_the_setting_is_named(host: str) -> None:
    found = ask({"Host": host})
    assert found.status == 421
    assert "IMGFLOW_DAGSTER_URL" in found.text
    assert "secret" not in found.text


def test_two_hosts_are_one_too_many() -> None:
    assert ask([("Host", OWN), ("Host", "evil.test")]).status == 421
    assert ask({}).status == 421


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (OWN, f"http://{OWN}", 200),
        ("localhost", "http://localhost:80", 200),
        ("dagster.example.org", PAGE, 200),
        ("dagster.example.org:443", PAGE, 200),
        ("dagster.example.org:8443", "https://dagster.example.org:8443", 200),
        (OWN, PAGE, 200),  # a proxy that does not pass Host on
        (OWN, "http://localhost:3000", 403),
        (OWN, "http://127.0.0.1:3001", 403),
        (OWN, "http://127.0.0.1", 403),
        (OWN, "http://evil.test", 403),
        (OWN, "http://dagster.example.org", 403),
        (OWN, "https://dagster.example.org:444", 403),
        (OWN, "null", 403),
        (OWN, "", 403),
        (OWN, f"http://{OWN}@evil.test", 403),
        (OWN, f"http://evil.test@{OWN}", 403),
        (OWN, f"file://{OWN}", 403),
        (OWN, f"chrome-extension://{OWN}", 403),
        (OWN, "http://[::1", 403),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_are_answered_that_are_its_own(
    host: str, origin: str, status: int, kind: str, method: str
) -> None:
    headers = {"Host": host, "Origin": origin, "Content-Type": "application/json"}
    found = ask(headers, "/graphql", method, kind)
    assert found.status == (101 if (kind, status) == ("websocket", 200) else status)
    assert (found.text == "secret") == (status == 200)


def test_a_websocket_of_a_program_is_answered_and_of_another_name_not() -> None:
    assert ask({"Host": OWN}, kind="websocket").text == "secret"
    assert ask({"Host": "evil.test"}, kind="websocket").status == 421
    assert ask({"Host": OWN, **LINK}, kind="websocket").status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unknown", ""])
def test_pages_of_other_sites_may_link_here_and_nothing_else(site: str) -> None:
    for own in ("same-origin", "none"):
        assert get({"Sec-Fetch-Site": own}) == 200
    assert get({"Sec-Fetch-Site": site}) == 403
    link = {**LINK, "Sec-Fetch-Site": site}
    assert get(link) == 200
    for name, other in (("Sec-Fetch-Dest", "iframe"), ("Sec-Fetch-Mode", "no-cors")):
        assert get({**link, name: other}) == 403
    post = {"Host": OWN, "Content-Type": "application/json", **link}
    assert ask(post, "/graphql", "POST").status == 403


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("application/json", 200),
        ("Application/JSON ; charset=utf-8", 200),
        ("text/plain", 415),
        ("text/plain; application/json", 415),
        ("multipart/form-data; boundary=application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/graphql", 415),
        ("application/json-patch+json", 415),
        ("text/plain, application/json", 415),
        ("", 415),
    ],
)
def test_what_is_posted_is_json(content: str, status: int) -> None:
    assert ask({"Host": OWN, "Content-Type": content}, "/graphql", "POST").status == status
    assert ask({"Host": OWN}, "/graphql", "POST").status == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"])
def test_other_methods_are_not_answered(method: str) -> None:
    assert ask({"Host": OWN}, "/graphql", method).status == 405


def test_a_health_probe_learns_that_the_server_is_there() -> None:
    for path, status in (("/server_info", 200), ("/server_info/", 421), ("/runs", 421)):
        found = ask({"Host": "10.1.2.3:3000"}, path)
        assert found.status == status
        assert "secret" not in found.text
    assert ask({"Host": OWN}, "/server_info").text == "secret"


def test_browsers_are_told_to_keep_it_out_of_other_pages() -> None:
    found = ask({"Host": OWN})
    assert found.headers["x-frame-options"] == "DENY"
    assert found.headers["x-content-type-options"] == "nosniff"
    policies = found.headers.getlist("content-security-policy")
    assert policies == ["object-src 'none'", "frame-ancestors 'none'"]
