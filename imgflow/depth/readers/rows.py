"""The interface of depth readers: the rows they yield, and the protocol they follow.

A new reader needs only this module. Choosing among the readers is in
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
    """Some consecutive rows of a depth image, in file order.

    Attributes:
        depths: float64 (n,), finite, correctly rounded from the text.
        pixels: float32 (n, N), C order; NaN where a pixel is missing, otherwise finite. N is the
            same in all batches of a file.
        first_line: Line of the file where this batch starts, counted from 1.
        empty_rows: Number of entirely empty rows dropped from this batch; n may then be 0.
        lines: int64 (n,), the line of each row; None if the lines are consecutive.
    """

    depths: Float64
    pixels: Float32
    first_line: int
    empty_rows: int = 0
    lines: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.depths)


class DepthReader(Protocol):
    """One file format of depth images; an instance is made for each file.

    To add a format, write a class with these members and register its suffix, see
    `imgflow.depth.readers.registry`.
    """

    @property
    def media_type(self) -> str:
        """Media type of the format, such as `text/csv`."""

    def read(self, stream: Iterable[bytes], limits: DepthLimits) -> Iterator[DepthRows]:
        """Read a file from its first byte, in memory bounded by `limits.block_bytes`.

        Args:
            stream: Decompressed bytes, in parts of any size.
            limits: Files beyond these are rejected.

        Raises:
            Rejected: The bytes are not a depth image; a reader raises no other error of its own.
        """
