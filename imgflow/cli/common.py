"""What commands share: printing for people, reading settings, opening the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from imgflow.errors import SettingsError
from imgflow.foreign_text import visible

if TYPE_CHECKING:
    from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
    from imgflow.catalog.records import Image
    from imgflow.settings.variables import Settings

# `people` gets progress and errors, `answer` the result, on standard output. Markup and emoji are
# off, since keys may look like Rich's markup, `[red]`, or like the name of an emoji.
people = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
answer = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, last, on standard output.")
]


def say(line: str) -> None:
    """Report progress or an error to people."""
    people.print(visible(line, keep="\n"))


def put(line: str, console: Console = answer) -> None:
    """Print one line; keys and reasons in it need no escaping."""
    console.print(visible(line))


def read_settings() -> Settings:
    """Read the settings; imported here, so that `--help` stays quick."""
    from imgflow.settings.variables import load_settings

    return load_settings()


@contextmanager
def open_catalog() -> Iterator[tuple[Settings, PostgresCatalog]]:
    """Open the catalogue, migrated to this version; yields the settings with it."""
    from imgflow.catalog.database.engine import database_url, make_engine
    from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog

    settings = read_settings()
    engine = make_engine(database_url(settings))
    try:
        catalog = PostgresCatalog(engine, settings.stores.locations()[0].url)
        catalog.migrate()
        yield settings, catalog
    finally:
        engine.dispose()


def find_image(catalog: PostgresCatalog, key: str) -> Image:
    """Find an image by its key, or else by its id.

    Raises:
        SettingsError: There is no such image.
    """
    image = catalog.by_keys([key]).get(key)
    if image is None and key.isdecimal():
        image = catalog.by_id(int(key))
    if image is None:
        raise SettingsError(
            f"There is no image {key!r} in {catalog.source}; `imgflow status` counts them."
        )
    return image
