"""A run that was cut off and given up records nothing more; silence is waited for in bounds."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from imgflow.catalog.database.engine import with_patience
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow_tests.catalog.uploads import announced, row, verdict


def test_a_run_that_was_given_up_records_nothing_more(catalog: PostgresCatalog) -> None:
    (image,) = announced(catalog, "a.jpg")
    catalog.holds.begin("cut-off", "batch", "photo", [image.id])
    catalog.holds.take_up(["cut-off"])
    assert catalog.record([verdict(image, run_id="cut-off")]) == set()
    assert row(catalog, "a.jpg").state == "pending"
    catalog.holds.begin("other", "batch", "photo", [image.id])
    assert catalog.record([verdict(image, run_id="other")]) == {image.id}
    assert row(catalog, "a.jpg").run_id == "other"


def test_a_run_that_is_resumed_after_it_was_given_up_records_again(
    catalog: PostgresCatalog,
) -> None:
    (image,) = announced(catalog, "a.jpg")
    catalog.holds.begin("run", "batch", "photo", [image.id])
    catalog.holds.take_up(["run"])
    catalog.holds.begin("run", "batch", "photo", [image.id])
    assert catalog.record([verdict(image, run_id="run")]) == {image.id}


def test_what_the_api_records_belongs_to_no_run(catalog: PostgresCatalog) -> None:
    (image,) = announced(catalog, "a.jpg")
    catalog.holds.take_up(["other"])
    assert catalog.record([verdict(image, run_id="")]) == {image.id}


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://imgflow:p%40ss@db:5432/imgflow", {}),
        ("postgresql://imgflow:p@db/imgflow?sslmode=require", {"sslmode": "require"}),
        ("postgresql://imgflow:p@db/imgflow?connect_timeout=60", {"connect_timeout": "60"}),
    ],
)
def test_dagsters_own_connections_have_bounds_too(url: str, kept: dict[str, str]) -> None:
    before, after = sa.make_url(url), sa.make_url(with_patience(url))
    assert {"connect_timeout": "5", "tcp_user_timeout": "25000", **kept}.items() <= dict(
        after.query
    ).items()
    assert after.set(query={}) == before.set(query={})
    assert with_patience(with_patience(url)) == with_patience(url)


def test_a_socket_of_this_machine_needs_none() -> None:
    url = "postgresql://postgres:@/imgflow?host=/run/postgresql"
    assert with_patience(url) == url
