"""One gallery for all tests of a browser, and Debian's Chromium."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.service.samples import upload_samples
from imgflow_tests.api.gallery.site import READER, TOKEN, Site
from imgflow_tests.browser import started_chromium
from imgflow_tests.pictures import jpeg

WAIT_MILLISECONDS = 60_000

# A key is anybody's text.
ODD_KEYS = (
    "<script>alert(1)</script>.jpg",
    '"onerror="alert(1) \'.jpg',
    "two\nlines.jpg",
    "right\u202egpj.exe.jpg",
    "عربى.jpg",
    "a#b?c%20d&amp;.jpg",
    "long/" + "/".join(["x" * 245] * 4) + "/" + "y" * 11 + ".jpg",
)
REJECTED = "broken/notes.png"
DEPTH = "samples/borehole.csv"
PHOTO = "samples/coffee.png"
PLAIN = 66

UNEVEN, ONE_ROW = "wells/uneven.csv", "wells/one.csv"
UNEVEN_DEPTHS = ("0.00025", "0.0003", "0.00035", "0.0004", "0.0104")


def table(*depths: str) -> bytes:
    """A depth CSV of three columns, whose values are row, column and a fraction."""
    rows = [f"{depth},{row},{row}.5,{row}.25" for row, depth in enumerate(depths)]
    return "\n".join(["depth,a,b,c", *rows, ""]).encode()


@pytest.fixture(scope="package")
def site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Samples, many plain photographs, odd keys and one that is rejected."""
    name = f"gallery{uuid.uuid4().hex}"
    connection = psycopg2.connect(postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    site = Site(
        tmp_path_factory.mktemp("gallery") / "home",
        postgres.url.replace("/imgflow?", f"/{name}?"),
    )
    library = site.library
    for number in range(PLAIN):
        library.put(f"plain/IMG_{number:04d}.jpg", jpeg(96, 72, seed=number))
    for number, key in enumerate(ODD_KEYS):
        library.put(key, jpeg(80, 60, seed=1_000 + number))
    library.put(REJECTED, b"these are notes, not a picture\n")
    library.put(UNEVEN, table(*UNEVEN_DEPTHS))
    library.put(ONE_ROW, table("17.5"))
    upload_samples(library.worker.source)
    report = site.ingest()
    assert (report["rejected"], report["failed"]) == (1, 0)
    with site.serving():
        yield site
    library.engine.dispose()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of a module."""
    with started_chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    """A page of who may only read; nothing may be wrong in its console when a test ends."""
    with watched(chromium, site) as page:
        begin_session(page, READER)
        yield page


@pytest.fixture
def signed_in(page: Page) -> Page:
    """The same with a session that may change something."""
    begin_session(page, TOKEN)
    return page


def begin_session(page: Page, token: str) -> None:
    """Sign a browser in."""
    answer = page.request.post("/session", headers={"Authorization": f"Bearer {token}"})
    assert answer.ok


class watched:
    """A page whose console and network are watched; errors fail the test."""

    def __init__(self, browser: Browser, site: Site, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 860}, **options}
        self._context = browser.new_context(base_url=site.url, **options)
        self.wrong: list[str] = []

    def __enter__(self) -> Page:
        self._context.set_default_timeout(WAIT_MILLISECONDS)
        page = self._context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        return page

    def __exit__(self, kind: object, *_rest: object) -> None:
        self._context.close()
        if kind is None:
            assert not self.wrong

    def _note(self, message: ConsoleMessage) -> None:
        # Chromium also writes down answers such as 401, which pages show in words.
        if message.type in ("error", "warning") and "status of 4" not in message.text:
            self.wrong.append(f"{message.text} ({message.location})")
