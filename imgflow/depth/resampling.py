"""Resizes the width of depth images row by row, with the same result as scikit-image.

`skimage.transform.resize` to `(rows, width)` treats each row on its own: its Gaussian has sigma 0
along the depth axis, and its spline passes through the samples it is evaluated at. So for a given
N, width and order, resizing a row is multiplying it with a fixed N by width matrix: the result of
resizing the identity matrix. Multiplying 1,300 rows takes 0.7 ms.

scikit-image finally clips to the range of the entire image, which matters for splines of order 2
and up, since only they overshoot. That range is only known after the last row, so `resize_width`
does not clip; `imgflow.depth.ordering` does, when it reads its temporary file.

Missing pixels (NaN) get no weight: the values, with 0 in their place, and a mask of 1 and 0 are
resized alike, and one is divided by the other. Where the mask is below a half, the pixel stays
missing. So a hole spreads by half a kernel at most, and rows without holes are not affected.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from imgflow.depth.readers.missing import filled, has_missing, shared
from imgflow.depth.readers.rows import Float32, Float64

FIRST_OVERSHOOTING_ORDER = 2
_WIDEST_MATRIX = 2_048  # columns; a wider matrix takes seconds to make and saves little
_IDENTITY_ROWS = 256
_SPARSE_SHARE = 0.2


def resize_width(
    pixels: Float32, width: int, *, order: int = 1, anti_aliasing: bool = True
) -> Float32:
    """Resize rows to another width, as scikit-image would; see the module.

    Args:
        pixels: float32 (n, N), finite or NaN, N at least 1.
        width: Pixels in a resized row.
        order: Order of the spline, 0 to 5.
        anti_aliasing: Whether to smooth rows before making them narrower.

    Returns:
        float32 (n, width), not clipped; `pixels` itself if N is already `width`.
    """
    columns = pixels.shape[1]
    if columns == width:
        return pixels
    if not len(pixels):
        return np.empty((0, width), dtype=np.float32)
    if has_missing(pixels):
        resized = shared(*(_resized(part, width, order, anti_aliasing) for part in filled(pixels)))
    else:
        resized = _resized(pixels, width, order, anti_aliasing)
    if order >= FIRST_OVERSHOOTING_ORDER:
        limit = np.finfo(np.float32).max
        resized = np.clip(resized, -limit, limit)
    return np.ascontiguousarray(resized, dtype=np.float32)


def _resized(pixels: Float32 | Float64, width: int, order: int, anti_aliasing: bool) -> Float64:
    columns = pixels.shape[1]
    if columns > _WIDEST_MATRIX:
        return _resize(pixels.astype(np.float64), width, order, anti_aliasing)
    weights = _weights(columns, width, order, anti_aliasing)
    # Transposed, so that a sparse product runs along columns.
    resized: Float64 = (weights @ np.ascontiguousarray(pixels.T, dtype=np.float64)).T
    return resized


@lru_cache(maxsize=8)
def _weights(columns: int, width: int, order: int, anti_aliasing: bool) -> Any:
    """The transposed matrix, sparse if that is faster.

    At orders 0 and 1 a pixel depends on few others: 4 of 200 at width 150. A dense product takes
    twice the time, and its threads compete when several workers share the cores.
    """
    from scipy.sparse import csr_array  # type: ignore[import-untyped]  # SciPy has no types

    transposed = np.ascontiguousarray(resize_matrix(columns, width, order, anti_aliasing).T)
    is_sparse = np.count_nonzero(transposed) < _SPARSE_SHARE * transposed.size
    return csr_array(transposed) if is_sparse else transposed


def resize_matrix(columns: int, width: int, order: int, anti_aliasing: bool) -> Float64:
    """The float64 (columns, width) matrix that resizes a row by multiplication."""
    matrix = np.empty((columns, width))
    for start in range(0, columns, _IDENTITY_ROWS):
        rows = np.eye(min(_IDENTITY_ROWS, columns - start), columns, start)
        matrix[start : start + len(rows)] = _resize(rows, width, order, anti_aliasing)
    return matrix


def _resize(pixels: Float64, width: int, order: int, anti_aliasing: bool) -> Float64:
    from skimage.transform import resize

    resized: Float64 = resize(  # type: ignore[no-untyped-call]  # scikit-image has none
        pixels,
        (len(pixels), width),
        order=order,
        anti_aliasing=anti_aliasing,
        preserve_range=True,
        clip=False,
    )
    return resized
