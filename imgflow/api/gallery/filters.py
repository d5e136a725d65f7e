"""What a page of the gallery is narrowed to, and how its links say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image, Kind, State

KINDS: dict[str, Kind] = {"photo": "photo", "depth": "depth"}
STATES: dict[str, State] = {"ready": "ready", "pending": "pending", "rejected": "rejected"}
LONGEST_SEARCH = 1_024


@dataclass(frozen=True)
class Filters:
    """What is shown; a value that means nothing narrows nothing, since people edit addresses."""

    kind: Kind | None = None
    state: State | None = None
    containing: str = ""

    def query(self, **changed: object) -> str:
        """These filters as the query of a link, with its `?`; empty when there are none.

        Args:
            changed: `kind`, `state` and `q` instead of these, and other parameters.
        """
        values = {"kind": self.kind, "state": self.state, "q": self.containing, **changed}
        text = urlencode({name: value for name, value in values.items() if value})
        return f"?{text}" if text else ""

    def browse(self, catalog: PostgresCatalog, **options: Any) -> list[Image]:
        """Rows that these filters let through; see `Browsing.browse`."""
        return catalog.browse(
            kind=self.kind, state=self.state, containing=self.containing, **options
        )


async def _filters(
    kind: str = "",
    state: str = "",
    q: Annotated[str, Query(max_length=LONGEST_SEARCH)] = "",
) -> Filters:
    return Filters(KINDS.get(kind), STATES.get(state), q.strip())


FiltersInQuery = Annotated[Filters, Depends(_filters)]
