"""LAS 2.0 files, as borehole tools write them: the first curve is the depth, the others pixels."""

from collections.abc import Iterable, Iterator

import numpy as np

from imgflow.depth.readers.missing import checked_rows
from imgflow.depth.readers.rows import DepthLimits, DepthRows
from imgflow.depth.readers.streams import line_blocks
from imgflow.errors import Rejected


class LasReader:
    """Reads section ~A; the number that the header calls NULL is a missing pixel."""

    media_type = "application/x-las"

    def read(self, stream: Iterable[bytes], limits: DepthLimits) -> Iterator[DepthRows]:
        """Read a file from its first byte, some megabytes at a time."""
        in_rows, null, columns, count, number = False, b"NaN", 0, 0, 0
        for block in line_blocks(stream, limits):
            rows: dict[int, bytes] = {}
            for line in block.splitlines():
                number += 1
                if line.startswith(b"~"):
                    in_rows = line[:2].upper() == b"~A"
                elif in_rows and line.strip():
                    rows[number] = line
                elif line.upper().startswith(b"NULL."):
                    null = line.split()[1]
            if not rows:
                continue
            try:
                table = np.loadtxt(list(rows.values()), ndmin=2)
                table[table == float(null)] = np.nan
            except ValueError as error:
                raise Rejected("not_a_table", f"below line {min(rows)}: {error}") from error
            columns, count = columns or table.shape[1], count + len(table)
            if table.shape[1] != columns or columns > limits.max_columns:
                raise Rejected("ragged_row", f"line {min(rows)}: {table.shape[1]} columns")
            limits.check_rows(count)
            yield checked_rows(table, min(rows))
        if not count:
            raise Rejected("no_rows", "there is no section ~A with rows")
