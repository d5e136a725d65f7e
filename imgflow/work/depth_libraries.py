"""Loads the libraries that read and resample depth images, in 0.7 s of processor time.

Workers import this before their memory is limited: a library's memory must not count as an
image's, and OpenBLAS retries for ever when it is refused memory while loading.
"""

from __future__ import annotations

import numpy as np
import pandas  # noqa: F401 - for the CSV reader

from imgflow.depth.resampling import resize_width

# The first call imports the rest.
resize_width(np.zeros((1, 2), dtype=np.float32), 1)
