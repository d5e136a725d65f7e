"""Depth tables as text and as whole arrays, made without the package under test."""

import csv
import io
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.reading import read_depth_rows
from imgflow.depth.readers.rows import DepthLimits


def table_text(
    depths: list[str] | NDArray[np.float64],
    pixels: NDArray[np.generic],
    *,
    spell: Callable[[object], str] = str,
    separator: str = ",",
    newline: str = "\n",
) -> bytes:
    lines = [separator.join(["depth", *(f"col{i}" for i in range(1, pixels.shape[1] + 1))])]
    for depth, row in zip(list(depths), pixels.tolist(), strict=True):
        lines.append(separator.join([str(depth), *(spell(value) for value in row)]))
    return (newline.join(lines) + newline).encode()


def npy_bytes(table: NDArray[np.generic]) -> bytes:
    out = io.BytesIO()
    np.save(out, table)
    return out.getvalue()


def cut(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def whole(
    data: bytes, *, name: str = "a.csv", part: int = 1000, limits: DepthLimits | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """All rows of a file, read by the package."""
    batches = list(read_depth_rows(cut(data, part), name, limits))
    depths = np.concatenate([batch.depths for batch in batches])
    return depths, np.concatenate([batch.pixels for batch in batches])


def oracle(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """All rows of a well-formed file, read by the standard library."""
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    at = [name.strip().lower() for name in rows[0]].index("depth")
    numbers = [[float(cell or "nan") for cell in row] for row in rows[1:] if any(row)]
    depths = np.array([row[at] for row in numbers])
    pixels = np.array([row[:at] + row[at + 1 :] for row in numbers])
    return depths, pixels.astype(np.float32)
