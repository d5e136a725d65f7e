"""The table that `make bench` prints, and its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measure:
    """A figure of imgflow beside that of a peer or a limit."""

    name: str
    ours: float
    peer: str
    theirs: float
    ratio: float
    wanted: str


def show(measures: Iterable[Measure]) -> None:
    """Print measures as a table."""
    table = Table("measure", "imgflow", "peer or limit", "its figure", "ratio", "wanted")
    for measure in measures:
        table.add_row(
            measure.name,
            f"{measure.ours:.2f}",
            measure.peer,
            f"{measure.theirs:.2f}",
            f"{measure.ratio:.2f}",
            measure.wanted,
        )
    Console(width=160).print(table)
