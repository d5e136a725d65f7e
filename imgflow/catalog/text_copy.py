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
        lines.write(_line(row))
        lines.write("\n")
    if not lines.tell():
        return
    lines.seek(0)
    names = ", ".join(f'"{column}"' for column in columns)
    cursor: Any = connection.connection.cursor()
    with cursor:
        cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", lines)


def _line(row: Sequence[Any]) -> str:
    """Write a row; most have nothing to escape, and are looked through as a whole."""
    line = "\t".join([_text(value) for value in row])
    nulls = sum(1 for value in row if value is None)
    if (
        line.count("\\") == nulls
        and line.count("\t") == len(row) - 1
        and "\n" not in line
        and "\r" not in line
    ):
        return line
    return "\t".join(map(_escaped, row))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else r"\N" if value is None else str(value)


def _escaped(value: Any) -> str:
    r"""Write one value; `\N` is NULL."""
    if not isinstance(value, str):  # numbers and times, which have none of these characters
        return _text(value)
    return (
        value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    )
