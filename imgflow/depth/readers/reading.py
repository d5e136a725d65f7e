"""Reading depth images; the rules of the CSV format. `registry` has the others.

A depth CSV is one column of depths and N columns of pixels, one row per depth. What is accepted:

| what | rule |
| --- | --- |
| compression | none, or gzip by its magic number, several members too |
| encoding | UTF-8, with or without a byte order mark |
| line ends | LF, CRLF or CR; the last line may go without |
| header | the first line that is not blank |
| depth column | named `depth`, any case, any place; blanks and quotes around names do not count |
| separator | comma, semicolon or tab: the one the header has most of |
| numbers | digits, sign, decimal point, exponent; blanks and quotes around them do not count |
| decimal comma | only where the separator is a semicolon |
| depths | any finite float64, correctly rounded: `9000.1` is 9000.1 |
| pixels | any finite float32. Negative, fractional and above 255 are data, not mistakes: an |
|  | image need not have eight bits; the range found is reported in `DepthFacts` |
| number of pixels | any from 1 up to `DepthLimits.max_columns` - 1 |
| missing pixels | an empty cell or `nan` in a row with a depth: NaN, and counted, also when all |
|  | pixels of the row are missing; numbers that stand for none, such as -999.25, are pixels |
| empty rows | blank, or nothing but separators: dropped wherever they are, and counted |
| order of depths | any; see `imgflow.depth.ordering` |
| equal depths, equal pixels | kept: no row is ever dropped for what it says |

What is rejected, as `imgflow.errors.Rejected` with this code, and with the line in the reason:

| code | cause |
| --- | --- |
| `unknown_depth_format` | the name has a suffix of no reader |
| `corrupt_gzip` | damaged gzip data |
| `truncated` | gzip data ends early, or the last line breaks off, also behind a separator |
| `empty_file` | no bytes, or nothing but blank lines |
| `not_utf8` | UTF-16, or a header that is no UTF-8 |
| `nul_bytes` | NUL bytes in the header or in a row |
| `no_header` | numbers where the column names belong |
| `no_depth_column` | no column named `depth` |
| `unnamed_column` | a column with an empty name |
| `duplicate_columns` | two columns of one name (two of `depth` in any case) |
| `no_pixel_columns` | `depth` is the only column |
| `no_rows` | no row with values |
| `ragged_row` | a row with more or fewer cells than the header |
| `quoted_newline` | a quoted cell that goes over a line end |
| `empty_depth` | empty or NaN depth in a row that has pixels |
| `no_pixels` | every pixel of the image is missing |
| `infinite_value` | infinity, a number beyond float64 (depth) or float32 (pixel), or depths |
|  | further apart than float64 holds |
| `not_a_number` | any other text in a cell |
| `line_too_long` | a line longer than `DepthLimits.block_bytes` |
| `too_many_bytes`, `too_many_rows`, `too_many_columns` | past a limit of `DepthLimits`, or |
|  | more than an upload of that size may have |
| `too_large` | needs more memory than the worker that reads it may take |

No bytes raise anything else. Errors of the stream itself, such as a lost connection, pass through.
"""

from collections.abc import Iterable, Iterator

from imgflow.depth.readers.registry import reader_of
from imgflow.depth.readers.rows import DepthLimits, DepthRows
from imgflow.depth.readers.streams import decompressed


def read_depth_rows(
    stream: Iterable[bytes], name: str, limits: DepthLimits | None = None
) -> Iterator[DepthRows]:
    """Read a depth image of any known format in bounded memory.

    Args:
        stream: the file's bytes as stored, cut anywhere, possibly gzip.
        name: its name or object key; only its suffix matters.
        limits: what it may cost.

    Yields:
        Its rows in the order of the file, in batches of a few megabytes; a batch may have no rows.

    Raises:
        Rejected: the bytes are not a depth image; codes in the table above.
    """
    yield from reader_of(name).read(decompressed(stream), limits or DepthLimits())
