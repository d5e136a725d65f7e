"""The catalogues that the tests of the contract are run with; another database is one name more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow_tests.catalog.uploads import SOURCE, Open


@pytest.fixture
def open_postgres(database_url: str) -> Iterator[Open]:
    engine = make_engine(database_url, pool_size=8)
    yield lambda source: PostgresCatalog(engine, source)
    engine.dispose()


CATALOGS = ["open_postgres"]


@pytest.fixture(params=CATALOGS)
def open_catalog(request: pytest.FixtureRequest) -> Open:
    """Opens the catalogue of a source in one fresh database."""
    opening: Open = request.getfixturevalue(request.param)
    return opening


@pytest.fixture
def catalog(open_catalog: Open) -> PostgresCatalog:
    catalog = open_catalog(SOURCE)
    catalog.migrate()
    return catalog
