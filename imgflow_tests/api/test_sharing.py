"""Picture links and sessions: what is let in without a token, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.api.backend import signatures
from imgflow.catalog.database.engine import make_engine
from imgflow_tests.api.library import Library, bearer, encoded, local
from imgflow_tests.api.test_problems import check
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import wait_until

BOTH, READER = "both-token", "reader-token"
MakeLibrary = Callable[..., Library]


@pytest.fixture
def shared(make_library: MakeLibrary) -> Library:
    library = make_library(
        api_token=f"{BOTH},{READER}:read", api_host="192.0.2.1", watermark_text="© me"
    )
    library.add("a.jpg", jpeg(600, 400))
    library.add("b.jpg", jpeg(seed=2))
    return library


@pytest.fixture
def client(shared: Library) -> Iterator[TestClient]:
    with stranger(shared) as client:
        yield client


def stranger(library: Library) -> TestClient:
    return local(create_app(library.settings), client="192.0.2.7", host="192.0.2.1")


def link(client: TestClient, image: object, **wanted: object) -> httpx.Response:
    return client.post(f"/images/{image}/links", json=wanted, headers=bearer(BOTH))


def test_a_link_shows_its_picture_and_no_other_without_a_token(
    shared: Library, client: TestClient
) -> None:
    image, other = shared.image("a.jpg").id, shared.image("b.jpg").id
    answer = link(client, image, picture="proof", seconds=600)
    assert answer.status_code == 201
    url = answer.json()["url"]
    with_token = client.get(f"/images/{image}/proof", headers=bearer(READER))
    shown = client.get(url)
    assert (shown.status_code, shown.content) == (200, with_token.content)
    assert client.head(url).headers["ETag"] == shown.headers["ETag"]
    part = client.get(url, headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, shown.content[:4])
    query = urlsplit(url).query
    for path in (
        f"/images/{image}/original", f"/images/{image}/grayscale", f"/images/{image}/thumbnail",
        f"/images/{other}/proof", f"/images/0{image}/proof", f"/images/{encoded('a.jpg')}/proof",
        f"/images/{image}/preview",
    ):  # fmt: skip
        check(client.get(f"{path}?{query}"), "link_wrong")
    for path in ("/images", f"/images/{image}", "/metrics"):
        check(client.get(f"{path}?{query}"), "token_missing")
    check(client.delete(f"/images/{image}?{query}"), "token_missing")


def test_a_link_that_was_changed_is_none(shared: Library, client: TestClient) -> None:
    image = shared.image("a.jpg").id
    url = link(client, image, seconds=600).json()["url"]
    fields = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    later = str(int(fields["expires"]) + 1)
    path = f"/images/{image}/proof"
    for changed in (
        {**fields, "expires": later},
        {**fields, "expires": f"0{fields['expires']}"},
        {**fields, "expires": "9" * 5_000},
        {**fields, "expires": "now"},
        {"signature": fields["signature"]},
        {**fields, "signature": fields["signature"][:-1]},
        {**fields, "signature": "ü" * 43},
        {**fields, "signature": ""},
    ):
        check(client.get(path, params=changed), "link_wrong")
    # Whoever has a token needs no link, but a wrong one is told all the same.
    check(client.get(path, params={"signature": "x"}, headers=bearer(READER)), "link_wrong")


def test_a_link_ends(shared: Library, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = link(client, shared.image("a.jpg").id, seconds=60).json()
    now = time.time()
    monkeypatch.setattr(signatures.time, "time", lambda: now + 58)
    assert client.get(answer["url"]).status_code == 200
    monkeypatch.setattr(signatures.time, "time", lambda: now + 61)
    check(client.get(answer["url"]), "link_expired")


def test_links_are_looked_at_on_this_machine_too(own_library: Library) -> None:
    image = own_library.add("a.jpg", jpeg())
    with own_library.client() as client:
        thumbnail = f"/images/{image.id}/thumbnail"
        assert client.get(thumbnail).status_code == 200
        check(client.get(f"{thumbnail}?expires=1&signature=x"), "link_wrong")


def test_links_outlive_the_process_and_end_with_their_key(shared: Library) -> None:
    image = shared.image("a.jpg").id
    with stranger(shared) as client:
        url = link(client, image).json()["url"]
    with stranger(shared) as client:
        assert client.get(url).status_code == 200
    (shared.settings.home / "link-key").unlink()
    with stranger(shared) as client:
        check(client.get(url), "link_wrong")


def test_links_are_made_by_those_who_may_write(shared: Library, client: TestClient) -> None:
    path = f"/images/{shared.image('a.jpg').id}/links"
    check(client.post(path, json={}), "token_missing")
    check(client.post(path, json={}, headers=bearer(READER)), "scope_missing")
    # What a stranger sends is not even read.
    check(client.post(path, content=b"{" * 100_000), "token_missing")


def test_links_are_made_of_pictures_that_are_there(shared: Library, client: TestClient) -> None:
    image = shared.image("a.jpg").id
    check(link(client, 999_999), "image_not_found")
    check(link(client, image, picture="preview"), "not_a_depth_image")
    for wanted in ({"picture": "links"}, {"seconds": 0}, {"seconds": 10**9}, {"key": 1}):
        check(link(client, image, **wanted), "invalid_parameter")
    for body in (b"", b"[]", b"{", b"\xff"):
        path = f"/images/{image}/links"
        check(client.post(path, content=body, headers=bearer(BOTH)), "invalid_parameter")
    check(
        client.post(f"/images/{image}/links", content=b" " * 65_537, headers=bearer(BOTH)),
        "body_too_large",
    )


def test_a_session_stands_for_its_token(shared: Library, client: TestClient) -> None:
    check(client.get("/session"), "token_missing")
    begun = client.post("/session", headers=bearer(READER))
    assert (begun.status_code, begun.json()) == (200, {"scopes": ["read"]})
    cookie = begun.headers["Set-Cookie"]
    # The port, since cookies know none, and a second imgflow of this host has its own sessions.
    assert re.match(rf"imgflow_session_{shared.settings.api_port}=", cookie)
    assert re.search(r"HttpOnly.*Max-Age=28800; Path=/; SameSite=strict$", cookie)
    assert READER not in cookie
    assert client.get("/session").json() == {"scopes": ["read"]}
    assert client.get(f"/images/{shared.image('a.jpg').id}/original").status_code == 200
    check(client.delete("/images/1", headers={"Origin": "http://192.0.2.1:8000"}), "scope_missing")
    assert client.delete("/session").status_code == 204
    check(client.get("/images"), "token_missing")
    # It takes a token to begin one, and not another session.
    client.post("/session", headers=bearer(READER))
    check(client.post("/session", headers={"Origin": "http://192.0.2.1:8000"}), "token_missing")


def test_a_session_that_was_ended_is_over_wherever_its_cookie_is(
    shared: Library, client: TestClient
) -> None:
    client.post("/session", headers=bearer(BOTH))
    stolen = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
    with stranger(shared) as other:  # another process of the API
        assert other.get("/images", headers=stolen).status_code == 200
        assert client.delete("/session").status_code == 204
        for path in ("/images", "/", "/session", f"/images/{shared.image('a.jpg').id}/thumbnail"):
            assert client.get(path, headers=stolen).status_code == 401
        wait_until(lambda: other.get("/images", headers=stolen).status_code == 401, 10)
    with stranger(shared) as restarted:
        check(restarted.get("/images", headers=stolen), "token_missing")
        assert restarted.delete("/session", headers=stolen).status_code == 204


def test_signing_in_again_ends_the_session_before(client: TestClient) -> None:
    client.post("/session", headers=bearer(READER))
    before = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
    client.post("/session", headers=bearer(BOTH))
    assert client.get("/session").json() == {"scopes": ["read", "write"]}
    client.cookies.clear()
    check(client.get("/images", headers=before), "token_missing")


def test_a_session_is_renewed_while_it_is_used_and_not_for_ever(
    shared: Library, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/session", headers=bearer(READER))
    (first,) = client.cookies.values()
    began = time.time()
    for hour in range(0, 7 * 24, 3):
        monkeypatch.setattr(signatures.time, "time", lambda now=began + hour * 3_600: now)
        assert client.get("/").status_code == 200, hour
    (last,) = client.cookies.values()
    assert last != first
    monkeypatch.setattr(signatures.time, "time", lambda: began + 7 * 86_400 + 1)
    client.cookies.clear()
    name = f"imgflow_session_{shared.settings.api_port}"
    check(client.get("/images", headers={"Cookie": f"{name}={last}"}), "token_missing")
    # What was renewed is the same session, so that all its cookies end with it.
    monkeypatch.setattr(signatures.time, "time", lambda: began + 60)
    cookies = [{"Cookie": f"{name}={value}"} for value in (first, last)]
    assert client.get("/images", headers=cookies[0]).status_code == 200
    client.delete("/session", headers=cookies[1])
    check(client.get("/images", headers=cookies[0]), "token_missing")


def test_while_nobody_knows_what_was_ended_no_session_is_good(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/session", headers=bearer(BOTH))
    revoked = client.app.state.connections.revoked  # type: ignore[attr-defined]
    away = make_engine("postgresql://imgflow@127.0.0.1:1/imgflow")
    monkeypatch.setattr(revoked, "_engine", away)
    monkeypatch.setattr(revoked, "_fresh_until", 0.0)
    check(client.get("/colormaps"), "unavailable")
    assert client.get("/").status_code == 503
    assert client.get("/colormaps", headers=bearer(READER)).status_code == 200


def test_a_session_changes_something_only_from_our_own_pages(
    shared: Library, client: TestClient
) -> None:
    client.post("/session", headers=bearer(BOTH))
    path = f"/images/{shared.image('b.jpg').id}"
    for headers in (
        {},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://192.0.2.1:8001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        check(client.delete(path, headers=headers), "token_missing")
    own = {"Origin": "http://192.0.2.1:8000", "Sec-Fetch-Site": "same-origin"}
    assert client.delete(path, headers=own).status_code == 200


def test_a_session_ends_with_its_token_and_with_time(
    shared: Library, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/session", headers=bearer(BOTH))
    cookies = dict(client.cookies)
    other = shared.settings.model_copy(update={"api_token": "another-token"})
    with local(create_app(other), client="192.0.2.7", host="192.0.2.1") as elsewhere:
        elsewhere.cookies.update(cookies)
        check(elsewhere.get("/images"), "token_missing")
    now = time.time()
    monkeypatch.setattr(signatures.time, "time", lambda: now + 9 * 3_600)
    client.cookies.clear()
    name, value = next(iter(cookies.items()))
    check(client.get("/images", headers={"Cookie": f"{name}={value}"}), "token_missing")


@pytest.mark.parametrize(
    "value", ["", "x", "a.b.c", "0" * 16 + f".{'A' * 22}.1.9999999999." + "A" * 43]
)
def test_a_made_up_session_is_none(client: TestClient, value: str) -> None:
    cookie = f"imgflow_session_8000={value}"
    check(client.get("/images", headers={"Cookie": cookie}), "token_missing")


def test_a_page_whose_origin_is_no_url_is_not_ours(client: TestClient, shared: Library) -> None:
    assert client.post("/session", headers=bearer(BOTH)).status_code == 200
    image = shared.image("a.jpg").id
    for origin in ("http://[", "http://[x]", "null", ""):
        answer = client.post(f"/images/{image}/links", json={}, headers={"Origin": origin})
        check(answer, "token_missing")


def test_a_form_that_is_none_of_ours_signs_nobody_in(client: TestClient) -> None:
    for body in ("a&" * 5_000 + f"token={BOTH}", "&".join(f"a{n}={n}" for n in range(20))):
        answer = client.post("/sign-in", content=body)
        assert answer.status_code == 400
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "Set-Cookie" not in answer.headers
