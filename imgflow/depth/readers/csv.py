"""Reads depth images as CSV, block by block: fast in `csv_fast`, cell by cell in `csv_careful`.

The rules of the format are in the table in `imgflow.depth.readers.reading`.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np

from imgflow.depth.readers.csv_careful import ends_in_separator, parse_rows
from imgflow.depth.readers.csv_fast import (
    may_have_holes,
    parse_fixed_point,
    parse_with_pandas,
    with_commas,
    without_empty_rows,
)
from imgflow.depth.readers.csv_header import Header, parse_header
from imgflow.depth.readers.rows import DepthLimits, DepthRows, Float32, Float64
from imgflow.depth.readers.streams import line_blocks
from imgflow.errors import Rejected


class CsvDepthReader:
    """Reads CSV in blocks: fast if a block is plain numbers, cell by cell if not."""

    media_type = "text/csv"

    def read(self, stream: Iterable[bytes], limits: DepthLimits) -> Iterator[DepthRows]:
        """Read a CSV file; see `imgflow.depth.readers.rows.DepthReader.read`."""
        blocks = line_blocks(stream, limits)
        header, first = parse_header(next(blocks, b""), limits)
        parser = _BlockParser(header)
        line, rows = header.lines + 1, 0
        for block in chain([first], blocks):
            if not block:
                continue
            batch = parser.parse(block, line)
            line += len(batch) + batch.empty_rows
            rows += len(batch)
            limits.check_rows(rows)
            yield batch
        if not rows:
            raise Rejected("no_rows", "there is a header and no row with values")


_Parser = Callable[[bytes, Header], tuple[Float64, Float32] | None]


class _BlockParser:
    """Parses the blocks of one file, trying the fastest way first; see `csv_fast`."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._parsers: tuple[_Parser, _Parser] = (parse_fixed_point, parse_with_pandas)

    def parse(self, block: bytes, first_line: int) -> DepthRows:
        header = self._header
        is_whole = block.endswith(b"\n")
        whole = block if is_whole else block + b"\n"
        if not is_whole and ends_in_separator(block, header):
            return self._parse_carefully(block, first_line)
        # pandas would turn blank lines into rows of holes.
        parsed = None if b"\n\n" in whole else self._parse_fast(whole)
        if parsed is not None:
            return DepthRows(*parsed, first_line)
        # Only now, since finding empty rows takes time and few blocks have any.
        kept, numbers = without_empty_rows(whole, header.separator)
        rows = whole.count(b"\n")
        if not kept:
            no_pixels = np.empty((0, header.columns - 1), dtype=np.float32)
            return DepthRows(np.empty(0), no_pixels, first_line, rows, numbers)
        parsed = self._parse_fast(kept) if len(numbers) < rows else None
        if parsed is not None:
            return DepthRows(*parsed, first_line, rows - len(numbers), first_line + numbers)
        return self._parse_carefully(block, first_line)

    def _parse_carefully(self, block: bytes, first_line: int) -> DepthRows:
        depths, pixels, lines = parse_rows(block, self._header, first_line)
        rows = block.count(b"\n") + (not block.endswith(b"\n"))
        return DepthRows(depths, pixels, first_line, rows - len(lines), lines)

    def _parse_fast(self, block: bytes) -> tuple[Float64, Float32] | None:
        text = with_commas(block, self._header.separator)
        if may_have_holes(text):
            return parse_with_pandas(text, self._header, with_holes=True)
        for parser in self._parsers:
            parsed = parser(text, self._header)
            if parsed is not None:
                # One program wrote the file, so what fits one block usually fits the next.
                if parser is not self._parsers[0]:
                    self._parsers = (self._parsers[1], self._parsers[0])
                return parsed
        return None
