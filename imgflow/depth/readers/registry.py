"""Which keys are depth images, and which class reads each: by suffix, built in or from a plugin.

Listing a bucket needs only the suffixes, so this module imports no reader.

To add a format, write a class with the two members of `imgflow.depth.readers.rows.DepthReader`, and
declare an entry point in its package, named like the suffix without its first dot:

    [project.entry-points."imgflow.depth_readers"]
    las = "borehole_formats:LasReader"

An entry point cannot override a built-in suffix, or a package could change what `.csv` means.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from imgflow.errors import Rejected, Trouble

if TYPE_CHECKING:
    from imgflow.depth.readers.rows import DepthReader

ENTRY_POINTS = "imgflow.depth_readers"

_CSV = "imgflow.depth.readers.csv:CsvDepthReader"
_NPY = "imgflow.depth.readers.npy:NpyDepthReader"
_PNG = "imgflow.depth.readers.raster:PngDepthReader"
_TIFF = "imgflow.depth.readers.raster:TiffDepthReader"
BUILT_IN: Mapping[str, str] = {
    **dict.fromkeys((".csv", ".csv.gz", ".tsv", ".tsv.gz"), _CSV),
    **dict.fromkeys((".npy", ".npy.gz"), _NPY),
    # Not `.png` and `.tiff` alone, which are photographs.
    ".depth.png": _PNG,
    **dict.fromkeys((".depth.tif", ".depth.tiff"), _TIFF),
}
"""The class that reads each suffix, in lower case."""


@cache
def readers() -> Mapping[str, EntryPoint]:
    """The reader of each suffix, not imported yet; plugins are discovered once in a process."""
    found = {f".{point.name.lower()}": point for point in entry_points(group=ENTRY_POINTS)}
    own = {suffix: EntryPoint(suffix, place, ENTRY_POINTS) for suffix, place in BUILT_IN.items()}
    return {**found, **own}


def is_depth_key(key: str) -> bool:
    """Whether an object is a depth image, judged by its key alone."""
    return key.lower().endswith(tuple(readers()))


def reader_of(name: str) -> DepthReader:
    """Make the reader for a name or key, by the longest suffix that matches.

    Raises:
        Rejected: `unknown_depth_format`, if no suffix matches.
        Trouble: The reader belongs to another package and cannot be loaded.
    """
    lowered = name.lower()
    suffix = max((s for s in readers() if lowered.endswith(s)), key=len, default=None)
    if suffix is None:
        known = ", ".join(readers())
        raise Rejected("unknown_depth_format", f"the name ends in none of {known}")
    if suffix in BUILT_IN:
        own: DepthReader = readers()[suffix].load()()
        return own
    try:
        made: DepthReader = readers()[suffix].load()()
    except Exception as error:  # importing foreign code may raise anything
        raise Trouble(
            f"The reader of {suffix} that an installed package brings cannot be loaded "
            f"({error!r}). Fix or uninstall the package."
        ) from error
    return made
