"""The types between a depth reader and what follows it: rows, and the reader itself.

No reader is named here, so that a new one needs only this module. Choosing among the readers is
`imgflow.depth.readers.registry`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.limits import DepthLimits

__all__ = ["DepthLimits", "DepthReader", "DepthRows", "Float32", "Float64"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


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
    suffix, see `imgflow.depth.readers.registry`.
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
