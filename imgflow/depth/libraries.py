"""Importing this loads what depth images are read and resampled with, in 0.7 s of processor time.

Before memory is limited: what a library takes must not count as an image's, and OpenBLAS asks for
ever for memory that it is refused while it is being loaded.
"""

from __future__ import annotations

import numpy as np
import pandas  # noqa: F401 - by the reader of CSV

from imgflow.depth.resampling import resize_width

# The rest of it is imported by the first call.
resize_width(np.zeros((1, 2), dtype=np.float32), 1)
