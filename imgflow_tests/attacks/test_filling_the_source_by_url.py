"""Whoever may post URLs makes imgflow fetch what is no picture, again and again."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from imgflow_tests.api.library import Library
from imgflow_tests.fetch.servers import ok, serving
from imgflow_tests.pictures import jpeg

TOKEN = "the-token"  # noqa: S105 - of these tests
NOISE = random.Random(0)


def noise() -> bytes:
    return NOISE.randbytes(1_000_000)


@pytest.mark.parametrize(
    "make",
    [
        noise,
        lambda: jpeg()[:300] + noise(),
        lambda: b"\x89PNG\r\n\x1a\n" + noise(),
        lambda: b"%PDF-1.7\n" + noise(),
    ],
    ids=["noise", "a JPEG that breaks off", "a PNG by name", "a document"],
)
def test_nothing_of_it_stays_in_the_source(
    home: Path, database_url: str, make: Callable[[], bytes]
) -> None:
    with serving(ok(b"")) as web:
        host = f"http://127.0.0.1:{web.port}"
        library = Library(home, database_url, api_token=TOKEN, fetch_hosts=host)
        with library.client() as client:
            for number in range(5):
                web.answer = ok(make())
                answer = client.post(
                    "/process",
                    json={"url": f"{host}/{number}.jpg"},
                    headers={"Authorization": f"Bearer {TOKEN}"},
                )
                assert answer.json()["code"] == "image_unprocessable"
        stored = sum(file.stat().st_size for file in library.folder.rglob("*") if file.is_file())
        assert stored == 0
        assert library.catalog.page(limit=10) == []
        library.engine.dispose()
