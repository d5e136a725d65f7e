"""What one depth image may cost: bytes and rows that are read, rows that are stored, and time.

A few bytes of gzip unpack to gigabytes, and a row of two numbers is stored as 150. So what is read
and stored is bounded by what was uploaded, beside the limits that hold for all. Free allowances let
small files of any content pass. The factors leave honest files room: the most repetitive tables
that could be made (every pixel -999.25, gzip -9) unpack to 271 times their size, and the shortest
rows (two columns of uint16, one of them constant) take 1.4 bytes each.

Imports nothing, since settings do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from imgflow.errors import Rejected

FREE_TEXT_BYTES = 64 * 2**20
TEXT_PER_UPLOADED_BYTE = 400
FREE_ROWS = 100_000
ROWS_PER_UPLOADED_BYTE = 2

# The slowest honest table, read cell by cell out of gzip, takes a second for 300,000 bytes.
FREE_SECONDS = 60.0
UPLOADED_BYTES_PER_SECOND = 100_000


@dataclass(frozen=True)
class DepthLimits:
    """What one depth image may cost; whatever passes a limit is rejected, never half read.

    Attributes:
        max_bytes: length of the text, after decompression.
        max_rows: rows with data. Ordering keeps 4 bytes a row, 24 when the file is unsorted.
        max_columns: columns of the header, the depth column included.
        block_bytes: how much text is parsed at once; also the longest line that is accepted.
        upload_bytes: size of the upload, where it lowers `max_bytes` and `max_rows`.
    """

    max_bytes: int = 16 * 2**30
    max_rows: int = 2_000_000
    max_columns: int = 16_384
    block_bytes: int = 4 * 2**20
    upload_bytes: int | None = None

    def for_upload(self, size: int) -> DepthLimits:
        """These limits, lowered to what an upload of so many bytes may become."""
        return replace(
            self,
            max_bytes=min(self.max_bytes, max(FREE_TEXT_BYTES, TEXT_PER_UPLOADED_BYTE * size)),
            max_rows=min(self.max_rows, max(FREE_ROWS, ROWS_PER_UPLOADED_BYTE * size)),
            upload_bytes=size,
        )

    def check_bytes(self, size: int) -> None:
        """Raise `Rejected` (`too_many_bytes`) when the text is longer than it may be."""
        if size > self.max_bytes:
            raise Rejected(
                "too_many_bytes",
                f"the table is longer than {self.max_bytes:,} bytes{self._of_upload}",
            )

    def check_rows(self, rows: int) -> None:
        """Raise `Rejected` (`too_many_rows`) when there are more than may be stored."""
        if rows > self.max_rows:
            raise Rejected("too_many_rows", f"more than {self.max_rows:,} rows{self._of_upload}")

    @property
    def _of_upload(self) -> str:
        if self.upload_bytes is None:
            return ""
        return f", the most that an upload of {self.upload_bytes:,} bytes may have"


def processor_seconds(upload_bytes: int, most: float) -> float:
    """Processor time for a depth image of that size, at most `most` seconds."""
    return min(most, FREE_SECONDS + upload_bytes / UPLOADED_BYTES_PER_SECOND)
