"""An uploader sends depths so far apart that their steps overflow, to break pages and answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from imgflow.catalog.records import Image
from imgflow_tests.api.library import Library
from imgflow_tests.depth.tables import npy_bytes
from imgflow_tests.pictures import depth_csv

FAR = {
    "far.csv": b"depth,x\n-1e308,1\n1e308,2\n",
    "unsorted.csv": b"depth,x\n1e308,1\n-1e308,2\n0,2\n",
    "far.npy": npy_bytes(np.array([[-1.7e308, 1], [1.7e308, 2]])),
}
WIDE = {
    "most.csv": b"depth,x\n0,1\n1.7976931348623157e308,2\n",
    "large.csv": b"depth,x\n0,1\n1e300,2\n2e300,3.4e38\n",
    "small.csv": b"depth,x\n0,1\n1e-300,2\n2e-300,-3.4e38\n",
    "denormal.csv": b"depth,x\n5e-324,1e-45\n1e-323,2e-45\n",
    "mixed.csv": b"depth,a,b\n-8e307,-3.4e38,3.4e38\n-1,nan,3.4e38\n8e307,3.4e38,-3.4e38\n",
}


@pytest.fixture
def library(tmp_path: Path, database_url: str) -> Iterator[Library]:
    library = Library(tmp_path / "home", database_url)
    yield library
    library.engine.dispose()


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from numbers(part)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("key", FAR)
def test_depths_further_apart_than_a_float_holds_are_rejected_with_both(
    key: str, library: Library
) -> None:
    image = library.add(key, FAR[key])
    assert (image.state, image.reason_code) == ("rejected", "infinite_value")
    assert "further apart than float64 holds" in str(image.reason)


@pytest.mark.parametrize("key", WIDE)
def test_what_a_float_just_holds_is_shown_by_every_page_and_route(
    key: str, library: Library
) -> None:
    image = library.add(key, WIDE[key])
    assert image.state == "ready", image.reason
    facts = image.outputs["resized"]["facts"]
    assert None not in facts.values(), facts
    assert facts["step_median"] > 0
    assert facts["duplicates"] == 0
    assert np.isfinite(list(numbers([image.facts, image.outputs]))).all()
    paths = (
        f"/gallery/{image.id}",
        "/",
        f"/images/{image.id}",
        *(f"/image/{image.id}?format={name}" for name in ("jpeg", "png", "webp", "npy")),
        f"/image/{image.id}?max_rows=1",
        f"/depth/{image.id}/statistics",
        f"/depth/{image.id}/legend",
        f"/image/{image.id}?depth_min={facts['depth_min']}&depth_max={facts['depth_max']}",
    )
    with library.client() as client:
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text)
            if "json" in answer.headers["content-type"]:
                json.loads(answer.text, parse_constant=_not_json)


def _not_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def spoil(library: Library, image: Image, facts: dict[str, Any]) -> None:
    statement = sa.text("UPDATE images SET facts = CAST(:facts AS jsonb) WHERE id = :id")
    with library.engine.begin() as connection:
        connection.execute(statement, {"facts": json.dumps(facts), "id": image.id})


def test_the_gallery_shows_a_row_whatever_its_facts_are(
    library: Library, make_spoiled: Callable[..., list[dict[str, Any]]]
) -> None:
    image = library.add("a.csv", depth_csv(rows=5))
    with library.client() as client:
        for facts in make_spoiled(image.facts):
            spoil(library, image, facts)
            for path in (f"/gallery/{image.id}", "/"):
                answer = client.get(path)
                assert answer.status_code == 200, (facts, answer.text)


@pytest.fixture
def make_spoiled() -> Callable[..., list[dict[str, Any]]]:
    def make(facts: Any) -> list[dict[str, Any]]:
        without = [{k: v for k, v in facts.items() if k != name} for name in facts]
        emptied = [{**facts, name: None} for name in facts]
        return [{}, *without, *emptied, {"depth_min": None}, {"depth_min": 1}]

    return make
