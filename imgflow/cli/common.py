"""What commands have in common: how they speak, and how they open what the settings name."""

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

# Progress and errors; what a command was asked for goes to standard output.
# Keys may look like Rich's markup, `[red]`, or like the name of an emoji.
people = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)
answer = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, last, on standard output.")
]


def say(line: str) -> None:
    """Report progress or an error to people."""
    people.print(visible(line, keep="\n"))


def put(line: str, console: Console = answer) -> None:
    """Print one line, in which keys and reasons may stand as they are."""
    console.print(visible(line))


def read_settings() -> Settings:
    """Read the settings; whoever only asks for help does not import them."""
    from imgflow.settings.variables import load_settings

    return load_settings()


@contextmanager
def open_catalog() -> Iterator[tuple[Settings, PostgresCatalog]]:
    """Open the catalogue, with its schema at this version, and give the settings with it."""
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
        SettingsError: there is none.
    """
    image = catalog.by_keys([key]).get(key)
    if image is None and key.isdecimal():
        image = catalog.by_id(int(key))
    if image is None:
        raise SettingsError(
            f"There is no image {key!r} in {catalog.source}; `imgflow status` counts them."
        )
    return image
