"""Pages as they are sent: who gets them, what they may do, what keys become in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psycopg2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.engine import make_url

from imgflow.api.app import create_app
from imgflow.api.gallery.rendering import DagsterUi
from imgflow.api.gallery.static_files import BASE, FILES, SWAGGER_UI
from imgflow.api.gallery.wording import parts_of, shown, size_of
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.partition_keys import partition_key
from imgflow.store.objects import SourceObject
from imgflow_tests.api.library import Library, bearer, local
from imgflow_tests.pictures import depth_csv, jpeg

READER, WRITER = "the-reader", "the-writer"
MakeLibrary = Callable[..., Library]

# What only a bucket can hold, and what else a page could take for something else.
HOSTILE_KEYS = [
    "x/../y.jpg",
    "../../etc/passwd",
    "..",
    "/",
    "//a.jpg",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "two\nlines\r\n.jpg",
    "abc\u202egpj.exe",
    "a&b=c#d?e%2f%20.jpg",
    "\x07bell\x7f.jpg",
    "y" * 1_000 + ".jpg",
]


@pytest.fixture
def own_library(make_library: MakeLibrary) -> Library:
    return make_library(api_token=f"{READER}:read,{WRITER}")


@pytest.fixture
def client(own_library: Library) -> Iterator[TestClient]:
    with own_library.client() as client:
        yield client


class Elements(HTMLParser):
    """All elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def links(self) -> list[str]:
        names = ("href", "src", "action")
        return [str(values[n]) for _, values in self.found for n in names if n in values]


def announce(library: Library, *keys: str) -> None:
    when = datetime(2026, 8, 1, tzinfo=UTC)
    library.catalog.announce([SourceObject(key, "e1", None, 10, when) for key in keys])


def check_page(answer: httpx.Response) -> Elements:
    """A page that cannot run or load anything but the gallery's own files."""
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    elements = Elements(answer.text)
    for tag, values in elements.found:
        assert tag != "style"
        assert "style" not in values
        assert not [name for name in values if name.startswith("on")], values
        if tag == "script":
            assert str(values["src"]).startswith(f"{BASE}/")
    for link in elements.links():
        assert urlsplit(link).scheme in ("", "http"), link
    return elements


def test_a_page_is_for_whom_the_images_are_for(own_library: Library) -> None:
    image = own_library.add("secret-name.jpg", jpeg())
    paths = ("/", f"/gallery/{image.id}", f"/gallery/cards?ids={image.id}", "/gallery/999")
    app = create_app(own_library.settings)
    with local(app, client="192.0.2.7") as stranger:
        for path in paths:
            refused = stranger.get(path)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
            assert "secret-name" not in refused.text
            check_page(refused)
            assert stranger.get(path, headers=bearer("wrong")).status_code == 401
            assert stranger.head(path).status_code == 401
        for path in paths[:3]:
            page = stranger.get(path, headers=bearer(READER))
            assert page.status_code == 200
            assert "secret-name" in page.text
        stranger.post("/session", headers=bearer(READER))
        page = stranger.get("/")
        assert page.status_code == 200
        assert 'data-scopes="read"' in page.text
        answer = stranger.post(f"/images/{image.id}/retry", headers={"Origin": str(page.url)[:-1]})
        assert answer.json()["code"] == "scope_missing"


def test_a_cookie_changes_nothing_at_the_request_of_another_site(
    own_library: Library, client: TestClient
) -> None:
    image = own_library.add("broken.jpg", b"no picture")
    client.post("/session", headers=bearer(WRITER))
    del client.headers["Authorization"]
    path = f"/images/{image.id}/retry"
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
        assert client.post(path, headers=headers).status_code == 401
    assert own_library.image("broken.jpg").state == "rejected"
    assert client.post(path, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 202


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_key_is_text_wherever_it_stands(
    own_library: Library, client: TestClient, key: str
) -> None:
    announce(own_library, key)
    image = own_library.image(key)
    for path in ("/", f"/?q={key[:20].encode().hex()}", f"/gallery/{image.id}"):
        elements = check_page(client.get(path))
        assert not [tag for tag, values in elements.found if values.get("src") == "x"]
    elements = check_page(client.get("/", params={"q": key}))
    link = f"/gallery/{image.id}"
    assert [urlsplit(found).path for found in elements.links()].count(link) == 1
    (found,) = [found for found in elements.links() if urlsplit(found).path == link]
    assert parse_qs(urlsplit(found).query) == {"q": [key.strip()]}
    page = check_page(client.get(found))
    assert shown(key) in page.texts
    assert f"/images/{image.id}" in page.links()
    link = urlsplit(DagsterUi("http://127.0.0.1:3000").partition(image, "metadata"))
    assert link.path == "/assets/photo/metadata"
    asked = parse_qs(link.query, strict_parsing=True)
    assert asked == {"view": ["partitions"], "partition": [partition_key(key)]}


def test_pages_stay_what_they_are_while_images_are_added(
    own_library: Library, client: TestClient
) -> None:
    announce(own_library, *(f"{number:03}.jpg" for number in range(150)))

    def keys(path: str) -> tuple[list[str], str | None]:
        elements = Elements(client.get(path).text)
        cards = [str(v["data-id"]) for tag, v in elements.found if v.get("class") == "card"]
        return cards, next((v["href"] for _, v in elements.found if v.get("id") == "more"), None)

    first, more = keys("/?q=JPG")
    announce(own_library, "new.jpg")
    second, last = keys(str(more))
    third, end = keys(str(last))
    assert end is None
    assert [len(first), len(second), len(third)] == [60, 60, 30]
    seen = [*first, *second, *third]
    assert len(set(seen)) == 150
    assert str(own_library.image("new.jpg").id) not in seen
    assert keys("/")[0][0] == str(own_library.image("new.jpg").id)


def test_search_takes_wildcards_for_what_they_are(own_library: Library, client: TestClient) -> None:
    announce(own_library, "100%.jpg", "100x.jpg", "a_b.jpg", "aXb.jpg", "c\\d.jpg")
    for text, key in (("0%", "100%.jpg"), ("A_B", "a_b.jpg"), ("\\", "c\\d.jpg")):
        page = client.get("/", params={"q": text}).text
        assert page.count('class="card"') == 1
        assert f'data-id="{own_library.image(key).id}"' in page
    assert "No image matches." in client.get("/", params={"q": "\0"}).text
    assert client.get("/", params={"kind": "nonsense", "state": "x"}).text.count('"card"') == 5


def test_neighbours_are_within_the_filters(own_library: Library, client: TestClient) -> None:
    announce(own_library, "a1.jpg", "b.jpg", "a2.jpg", "c.csv", "a3.jpg")
    middle = own_library.image("a2.jpg").id
    links = Elements(client.get(f"/gallery/{middle}?q=a").text).links()
    for key in ("a1.jpg", "a3.jpg"):
        assert f"/gallery/{own_library.image(key).id}?q=a" in links
    assert not [link for link in links if f"/gallery/{own_library.image('b.jpg').id}" in link]


def test_what_cannot_be_shown_is_said_on_a_page(own_library: Library, client: TestClient) -> None:
    image = own_library.add("a.jpg", jpeg())
    client.delete(f"/images/{image.id}", headers=bearer(WRITER))
    for path, status in (
        (f"/gallery/{image.id}", 404),
        ("/gallery/999999", 404),
        ("/gallery/a.jpg", 422),
        ("/?before=0", 422),
        ("/gallery/cards?ids=1,x", 422),
    ):
        answer = client.get(path)
        assert answer.status_code == status
        check_page(answer)


def test_a_database_that_is_away_is_said_on_a_page(
    own_library: Library, client: TestClient, postgres: EmbeddedPostgres
) -> None:
    name = make_url(own_library.settings.database_url).database
    assert client.get("/").status_code == 200
    with closing(psycopg2.connect(postgres.url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            answer = client.get("/")
            cursor.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    check_page(answer)


def test_static_files_are_kept_and_of_one_version(client: TestClient) -> None:
    for name, body in FILES.items():
        answer = client.get(f"{BASE}/{name}")
        assert answer.content == body
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get(f"{BASE}/gallery.css").headers["Content-Type"].startswith("text/css")
    assert client.get(f"{BASE}/page.js").headers["Content-Type"].startswith("text/javascript")
    for path in (f"{BASE}/none.js", "/gallery/static/0/page.js", f"{BASE}/..%2fpages.py"):
        assert client.get(path).status_code == 404


def test_links_to_dagster_are_for_those_who_reach_it(make_library: MakeLibrary) -> None:
    library = make_library(api_token=READER, dagster_url="https://dagster.example.org/")
    image = library.add("a b.jpg", jpeg())
    with local(create_app(library.settings), client="192.0.2.7") as stranger:
        page = stranger.get(f"/gallery/{image.id}", headers=bearer(READER)).text
    assert 'href="https://dagster.example.org"' in page


def test_the_depth_viewer_takes_its_interval_from_the_address(
    own_library: Library, client: TestClient
) -> None:
    image = own_library.add("w.csv", depth_csv())
    path = f"/gallery/{image.id}?depth_min=9000.3&depth_max=9000.9&colormap=magma_r"
    links = check_page(client.get(path)).links()
    frame = next(link for link in links if link.startswith(f"/image/{image.id}?format=png"))
    assert client.get(frame).headers["X-Imgflow-Rows"] == "7"
    for hostile in ('"><script>', "9' onload='x", "&colormap=gray"):
        check_page(client.get(f"/gallery/{image.id}", params={"depth_min": hostile}))
        check_page(client.get(f"/gallery/{image.id}", params={"colormap": hostile}))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.jpg", ("", "a.jpg")),
        ("a/b/c.jpg", ("a/b/", "c.jpg")),
        ("a/b/", ("a/", "b/")),
        ("/", ("", "/")),
        ("//", ("", "//")),
        ("a\tb/c\u200bd", ("a⇥b/", "c⟨U+200B⟩d")),
    ],
)
def test_folder_and_name_of_a_key(key: str, expected: tuple[str, str]) -> None:
    assert parts_of(key) == expected


def test_sizes_are_short() -> None:
    sizes = (0, 999, 1_000, 12_345, 4_357_819, 2 * 10**12, 10**16)
    assert [size_of(size) for size in sizes] == [
        *("0 B", "999 B", "1.0 KB", "12 KB", "4.4 MB", "2.0 TB", "10000 TB"),
    ]


def test_an_api_below_a_path_links_to_itself(own_library: Library) -> None:
    own_library.add("a.jpg", jpeg())
    app: Any = create_app(own_library.settings)
    with TestClient(app, base_url="http://127.0.0.1", root_path="/pictures") as client:
        links = Elements(client.get("/pictures/", headers=bearer(READER)).text).links()
    assert links
    assert not [link for link in links if link.startswith("/") and link[:9] != "/pictures"]


def test_the_wheel_holds_templates_and_static_files() -> None:
    root = Path(__file__).parents[3]
    folder = root / "imgflow" / "api" / "gallery"
    declared = (root / "pyproject.toml").read_text()
    assert '"imgflow.api.gallery" = ["templates/*.html", "static/*"]' in declared
    assert {file.suffix for file in (folder / "templates").iterdir()} == {".html"}
    assert {file.name for file in (folder / "static").iterdir()} == {*FILES} - {*SWAGGER_UI}
