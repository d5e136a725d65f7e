"""Reads depth images of any format; also documents the CSV format and all rejection codes of it.

Which other formats exist is in `registry`; the CSV parser is in `csv`.

A depth CSV is one column of depths and N columns of pixels, one row per depth. What is accepted:

| what | rule |
| --- | --- |
| compression | none, or gzip by its magic number, possibly with several members |
| encoding | UTF-8, with or without a byte order mark |
| line ends | LF, CRLF or CR; optional after the last line |
| header | the first line that is not blank |
| depth column | named `depth`, any case, any position; blanks and quotes around names are ignored |
| separator | comma, semicolon or tab, whichever is most frequent in the header |
| numbers | digits, sign, decimal point, exponent; blanks and quotes around them are ignored |
| decimal comma | only if the separator is a semicolon |
| depths | any finite float64, correctly rounded: `9000.1` is 9000.1 |
| pixels | any finite float32. Negative, fractional and above 255 are data, not mistakes: an |
|  | image need not have eight bits; `DepthFacts` reports the range |
| number of pixels | 1 to `DepthLimits.max_columns` - 1 |
| missing pixels | an empty cell or `nan` in a row with a depth: NaN, and counted, even if all |
|  | pixels of the row are missing; placeholder numbers, such as -999.25, are pixels |
| empty rows | blank, or nothing but separators: dropped wherever they are, and counted |
| order of depths | any; see `imgflow.depth.ordering` |
| equal depths, equal pixels | kept: no row is ever dropped for its values |

What is rejected, as `imgflow.errors.Rejected` with one of these codes, and the line in the reason:

| code | cause |
| --- | --- |
| `unknown_depth_format` | no reader has the suffix of the name |
| `corrupt_gzip` | damaged gzip data |
| `truncated` | gzip data ends early, or the last line is cut short, even after a separator |
| `empty_file` | no bytes, or nothing but blank lines |
| `not_utf8` | UTF-16, or a header that is not UTF-8 |
| `nul_bytes` | NUL bytes in the header or in a row |
| `no_header` | numbers where the column names belong |
| `no_depth_column` | no column named `depth` |
| `unnamed_column` | a column with an empty name |
| `duplicate_columns` | two columns of the same name (for `depth`, in any case) |
| `no_pixel_columns` | `depth` is the only column |
| `no_rows` | no row with values |
| `ragged_row` | a row with more or fewer cells than the header |
| `quoted_newline` | a quoted cell that spans lines |
| `empty_depth` | an empty or NaN depth in a row that has pixels |
| `no_pixels` | every pixel of the image is missing |
| `infinite_value` | infinity, a number beyond float64 (depth) or float32 (pixel), or depths |
|  | further apart than float64 holds |
| `not_a_number` | any other text in a cell |
| `line_too_long` | a line longer than `DepthLimits.block_bytes` |
| `too_many_bytes`, `too_many_rows`, `too_many_columns` | above a limit of `DepthLimits`, or |
|  | more than an upload of that size may have |
| `too_large` | needs more memory than its worker may take |

No content raises anything else. Errors of the stream, such as a lost connection, pass through.
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
        stream: The file's bytes as stored, in parts of any size, possibly gzip.
        name: File name or object key; only its suffix matters.
        limits: Files beyond these are rejected.

    Yields:
        Rows in file order, in batches of a few megabytes; a batch may have no rows.

    Raises:
        Rejected: The bytes are not a depth image; codes are in the table above.
    """
    yield from reader_of(name).read(decompressed(stream), limits or DepthLimits())
