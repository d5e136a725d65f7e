"""A temporary file of resized rows, written in the order of the file and read in that of depth.

Plain reads and not a memory map: mapped pages would count as memory of the process.
"""

import os
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.rows import Float32, Float64

_SLAB_FACTOR = 4  # reading up to four times the rows at once is cheaper than one by one


class RowSpool:
    """Rows on disk and their depths in memory (8 bytes a row, 20 while they are read back).

    The file has no name where the system allows it, so it also goes away when the process is
    killed.
    """

    def __init__(self, width: int, directory: Path | None) -> None:
        self._row_bytes = 4 * width
        self._width = width
        # Closed by `__exit__`; every user goes through `with`.
        self._file = tempfile.TemporaryFile(dir=directory, prefix="imgflow-depth-")  # noqa: SIM115
        self._depths: list[Float64] = []

    def __enter__(self) -> "RowSpool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, depths: Float64, pixels: Float32) -> None:
        """Add rows: float64 (n,) and float32 (n, width)."""
        self._depths.append(depths)
        self._file.write(np.ascontiguousarray(pixels).data)

    def sorted_depths(self) -> tuple[Float64, NDArray[np.int64]]:
        """All depths in the order of the file, and the stable permutation that sorts them."""
        self._file.flush()
        depths = np.concatenate(self._depths)
        self._depths.clear()
        return depths, np.argsort(depths, kind="stable")

    def rows(self, numbers: NDArray[np.int64]) -> Float32:
        """Read rows by their number in the file, in the order given; float32 (n, width)."""
        first, last = int(numbers.min()), int(numbers.max())
        if last - first < _SLAB_FACTOR * len(numbers):
            return self._slab(first, last + 1)[numbers - first]
        found = np.empty((len(numbers), self._width), dtype=np.float32)
        for place, number in enumerate(numbers.tolist()):
            found[place] = self._slab(number, number + 1)[0]
        return found

    def _slab(self, first: int, stop: int) -> Float32:
        size = (stop - first) * self._row_bytes
        data = os.pread(self._file.fileno(), size, first * self._row_bytes)
        return np.frombuffer(data, dtype=np.float32).reshape(stop - first, self._width)
