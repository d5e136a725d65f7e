"""The recipe: all settings that decide a depth image's outputs, and their fingerprints.

Limits on what is accepted are in `imgflow.depth.limits`.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from imgflow.depth.colormap_data import DEFAULT_COLORMAP

# Raise a version when the same input and recipe give other values, so that stored ones are stale.
RESIZED_VERSION = 2
PREVIEW_VERSION = 2

CHUNK_ROWS = 128
"""Rows in a stored chunk: 77 kB at width 150. A frame of 500 rows reads 627 on average; longer
chunks would make it read more rows, shorter ones would take the database longer to find."""

_HEX_DIGITS = 16


@dataclass(frozen=True)
class DepthRecipe:
    """How a depth image is resized and previewed.

    Attributes:
        width: Pixels in a resized row, at least 1.
        order: Order of the spline, 0 (nearest) to 5, as in `skimage.transform.resize`.
        anti_aliasing: Whether to smooth with a Gaussian before making a row narrower.
        colormap: Name of the preview's colour map, see `imgflow.depth.colormaps`.
        preview_size: Maximum width and height of the preview, in pixels.
    """

    width: int = 150
    order: int = 1
    anti_aliasing: bool = True
    colormap: str = DEFAULT_COLORMAP
    preview_size: tuple[int, int] = (512, 1024)

    def __post_init__(self) -> None:
        if self.width < 1 or min(self.preview_size) < 1:
            raise ValueError("width and preview_size must be at least 1")
        if self.order not in range(6):
            raise ValueError(f"order must be 0 to 5, not {self.order}")

    def fingerprint(self, output: Literal["resized", "preview"]) -> str:
        """Identify what an output depends on besides the image: settings and code version.

        Returns:
            16 hexadecimal digits of a SHA-256 over canonical JSON.
        """
        parts: dict[str, Any] = {
            "output": output,
            "version": RESIZED_VERSION,
            "chunk_rows": CHUNK_ROWS,
            "width": self.width,
            "order": self.order,
            "anti_aliasing": self.anti_aliasing,
        }
        if output == "preview":
            del parts["chunk_rows"]
            parts |= {
                "preview_version": PREVIEW_VERSION,
                "colormap": self.colormap,
                "preview_size": list(self.preview_size),
            }
        canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:_HEX_DIGITS]
