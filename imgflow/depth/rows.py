"""The types between a depth reader and what follows it: rows, limits and the reader itself.

No reader is named here, so that a new one needs only this module. Choosing among the readers is
`imgflow.depth.formats`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class DepthLimits:
    """What one depth image may cost; whatever passes a limit is rejected, never half read.

    Attributes:
        max_bytes: length of the text, after decompression.
        max_rows: rows with data. Ordering keeps 4 bytes a row, 24 when the file is unsorted.
        max_columns: columns of the header, the depth column included.
        block_bytes: how much text is parsed at once; also the longest line that is accepted.
    """

    max_bytes: int = 16 * 2**30
    max_rows: int = 5_000_000
    max_columns: int = 16_384
    block_bytes: int = 4 * 2**20


@dataclass(frozen=True, eq=False)
class DepthRows:
    """Some consecutive rows of a depth image, in the order of the file.

    Attributes:
        depths: float64 (n,), finite, correctly rounded from the text.
        pixels: float32 (n, N), C order; NaN where a pixel is missing, otherwise finite. N is the
            same in all batches of a file.
        first_line: 1-based line of the file in which this batch begins.
        empty_rows: entirely empty rows that were dropped in this batch; n may then be 0.
        lines: int64 (n,), the line of each row; None where they follow `first_line` one by one.
    """

    depths: Float64
    pixels: Float32
    first_line: int
    empty_rows: int = 0
    lines: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.depths)


class DepthReader(Protocol):
    """One file format of depth images.

    One is made for each file. To add one, write a class with these members and register its
    suffix, see `imgflow.depth.formats`.
    """

    @property
    def media_type(self) -> str:
        """Media type of the format, such as `text/csv`."""

    def read(self, stream: Iterable[bytes], limits: DepthLimits) -> Iterator[DepthRows]:
        """Read a file from its first byte, in memory bounded by `limits.block_bytes`.

        Args:
            stream: the decompressed bytes, cut anywhere.
            limits: what the file may cost.

        Raises:
            Rejected: the bytes are not a depth image; no other exception of the reader's own.
        """
