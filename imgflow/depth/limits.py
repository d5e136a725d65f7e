"""What one depth image may cost: bytes and rows read, rows stored, and processor time.

A few bytes of gzip unpack to gigabytes, and a row of two numbers is stored as 150. So besides the
fixed limits, the size of the upload bounds what is read and stored. Small files may use a free
allowance. The factors leave room for honest files: the most repetitive tables we could make (every
pixel -999.25, gzip -9) unpack to 271 times their size, and the shortest rows (two columns of
uint16, one of them constant) take 1.4 bytes each.

Imports no library, since the settings import this. Limits of photographs are in
`imgflow.images.formats.decoding`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from imgflow.errors import Rejected

FREE_TEXT_BYTES = 64 * 2**20
TEXT_PER_UPLOADED_BYTE = 400
FREE_ROWS = 100_000
ROWS_PER_UPLOADED_BYTE = 2

# The slowest honest table, gzipped and read cell by cell, takes a second per 300,000 bytes.
FREE_SECONDS = 60.0
UPLOADED_BYTES_PER_SECOND = 100_000


@dataclass(frozen=True)
class DepthLimits:
    """What one depth image may cost; an image over a limit is rejected, never truncated.

    Attributes:
        max_bytes: Maximum length of the text, after decompression.
        max_rows: Maximum number of rows with data. Ordering keeps 4 bytes a row, 24 if the file is
            unsorted.
        max_columns: Maximum number of columns, including the depth column.
        block_bytes: Bytes of text parsed at once; also the longest line that is accepted.
        upload_bytes: Size of the upload if it lowered `max_bytes` and `max_rows`, for messages.
    """

    max_bytes: int = 16 * 2**30
    max_rows: int = 2_000_000
    max_columns: int = 16_384
    block_bytes: int = 4 * 2**20
    upload_bytes: int | None = None

    def for_upload(self, size: int) -> DepthLimits:
        """Lower these limits to what an upload of `size` bytes may become."""
        return replace(
            self,
            max_bytes=min(self.max_bytes, max(FREE_TEXT_BYTES, TEXT_PER_UPLOADED_BYTE * size)),
            max_rows=min(self.max_rows, max(FREE_ROWS, ROWS_PER_UPLOADED_BYTE * size)),
            upload_bytes=size,
        )

    def check_bytes(self, size: int) -> None:
        """Raise `Rejected` (`too_many_bytes`) if the text is longer than `max_bytes`."""
        if size > self.max_bytes:
            raise Rejected(
                "too_many_bytes",
                f"the table is longer than {self.max_bytes:,} bytes{self._of_upload}",
            )

    def check_rows(self, rows: int) -> None:
        """Raise `Rejected` (`too_many_rows`) if there are more than `max_rows`."""
        if rows > self.max_rows:
            raise Rejected("too_many_rows", f"more than {self.max_rows:,} rows{self._of_upload}")

    @property
    def _of_upload(self) -> str:
        if self.upload_bytes is None:
            return ""
        return f", the most that an upload of {self.upload_bytes:,} bytes may have"


def processor_seconds(upload_bytes: int, most: float) -> float:
    """Processor seconds that a depth image of this size may take, at most `most`."""
    return min(most, FREE_SECONDS + upload_bytes / UPLOADED_BYTES_PER_SECOND)
