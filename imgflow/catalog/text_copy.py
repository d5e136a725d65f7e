"""PostgreSQL's text `COPY` format, for rows of plain values in any table."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa


def copy_rows(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Copy rows into a table, in the transaction of the connection.

    Args:
        connection: of SQLAlchemy, over psycopg2.
        table: its name.
        columns: names of the columns that a row has, in its order.
        rows: texts, and numbers and times, which PostgreSQL reads from what `str` makes of them;
            None is NULL.
    """
    lines = io.StringIO()
    for row in rows:
        lines.write("\t".join(map(_escaped, row)))
        lines.write("\n")
    if not lines.tell():
        return
    lines.seek(0)
    names = ", ".join(f'"{column}"' for column in columns)
    cursor: Any = connection.connection.cursor()
    with cursor:
        cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", lines)


def _escaped(value: Any) -> str:
    r"""Write one value; `\N` is NULL."""
    if value is None:
        return r"\N"
    if not isinstance(value, str):  # numbers and times, which have none of these characters
        return str(value)
    return (
        value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    )
