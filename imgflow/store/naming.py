"""Output names: each names the source, the source key and the fingerprint of an immutable object.

`thumbnail/1d0a5b9c/summer/IMG 1.png/@3f9a….jpg` is the thumbnail of `summer/IMG 1.png`. `1d0a5b9c`
stands for its source: several sources can share a location, and each looks for outputs to delete
only below its own part. The fingerprint covers key, content and recipe, so an overwritten image
gets new names and no reader ever sees a mix of old and new.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

# File systems allow 255 bytes per name, S3 allows 1,024 per key; the rest is for folder and
# fingerprint.
MOST_SEGMENT_BYTES = 200
MOST_KEY_BYTES = 850

# Not escaped, so that ordinary keys stay readable. `@` is escaped: it marks imgflow's own names.
SAFE = " !$&'()+,;=-_."

# Object that names the catalogue which owns all outputs of a location.
MARKER = "imgflow.json"

# First segments of output names.
INSTALLED_FOLDER = "installed/"  # shared by all outputs that other packages add
OUTPUT_FOLDERS = ("grayscale/", "thumbnail/", "proof/", "preview/", INSTALLED_FOLDER)

# Form of every output name. Anything else is not an output, wherever it is.
OWN_NAME = re.compile(r".*/@[0-9a-f]{32}(\.[a-z0-9]+)*", re.ASCII)
# Where `POST /process` stores images from elsewhere in the source, named by their content.
FETCHED_FOLDER = "fetched/"

# Keys that `obstore` changes when it lists, reads or writes them, or cannot handle at all.
INEXACT = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")


def is_exact(key: str) -> bool:
    """Whether `obstore` lists, reads and writes a key exactly as it is."""
    return not INEXACT.search(key)


def source_part(source: str) -> str:
    """The segment of output names that identifies a source, from its canonical URL."""
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def own_folders(source: str) -> tuple[str, ...]:
    """The folders that hold all outputs of a source, and none of any other source."""
    return tuple(f"{folder}{source_part(source)}/" for folder in OUTPUT_FOLDERS)


def is_own(name: str, source: str) -> bool:
    """Whether a name has the form that `output_name` gives outputs of this source."""
    return name.startswith(own_folders(source)) and bool(OWN_NAME.fullmatch(name))


def output_name(output: str, source: str, key: str, fingerprint: str, extension: str) -> str:
    """Name an output object.

    Args:
        output: Name of the output, such as `thumbnail`.
        source: Canonical URL of the source; the same key in another source is another image.
        key: Object key below the source prefix.
        fingerprint: Covers the content and the recipe.
        extension: File name extension including its dot.

    Returns:
        A name of at most 1,024 bytes, each segment at most 255, that file systems and every S3
        client represent exactly. Different arguments give different names.
    """
    digest = hashlib.sha256("\0".join((source, key, fingerprint)).encode()).hexdigest()[:32]
    part = source_part(source)
    is_built_in = f"{output}/" in OUTPUT_FOLDERS
    folder = f"{output}/{part}/" if is_built_in else f"{INSTALLED_FOLDER}{part}/{output}/"
    return f"{folder}{_readable(key)}/@{digest}{extension}"


def _readable(key: str) -> str:
    segments = [_segment(segment) for segment in key.split("/")]
    name = "/".join(segments)
    if len(name.encode()) <= MOST_KEY_BYTES:
        return name
    return f"@{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def _segment(segment: str) -> str:
    # Empty, `.` and `..` have another meaning in file systems.
    safe = quote(segment, safe=SAFE) if set(segment) - {"."} else "@" + "%2E" * len(segment)
    if len(safe) <= MOST_SEGMENT_BYTES:
        return safe
    return f"{safe[:100]}@{hashlib.sha256(segment.encode()).hexdigest()[:32]}"
