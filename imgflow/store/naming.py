"""Names of outputs: immutable objects whose name holds source, source key and fingerprint.

`thumbnail/1d0a5b9c/summer/IMG 1.png/@3f9a….jpg` is the thumbnail of `summer/IMG 1.png`, and
`1d0a5b9c` the part of its source, so that several sources share a location and each looks for what
is to be deleted in its own part only. Since the fingerprint covers key, content and recipe, an
overwritten image gets new names and nobody ever reads half of a change.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

# File systems take 255 bytes a name, S3 takes 1,024 a key; the rest is for folder and fingerprint.
MOST_SEGMENT_BYTES = 200
MOST_KEY_BYTES = 850

# Left as they are, so that ordinary keys stay readable. `@` is not among them: it marks our own
# names.
SAFE = " !$&'()+,;=-_."

# Names the catalogue to which all outputs of a location belong.
MARKER = "imgflow.json"

# First segments of output names.
INSTALLED_FOLDER = "installed/"  # outputs that other packages add share it, whatever their names
OUTPUT_FOLDERS = ("grayscale/", "thumbnail/", "proof/", "preview/", INSTALLED_FOLDER)

# What every name of an output is like. What is not is nobody's output, wherever it lies.
OWN_NAME = re.compile(r".*/@[0-9a-f]{32}(\.[a-z0-9]+)*", re.ASCII)
# Where `POST /process` puts images from elsewhere into the source, by their content.
FETCHED_FOLDER = "fetched/"

# Keys that `obstore` lists, reads or writes under another name than they have, or not at all.
INEXACT = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")


def is_exact(key: str) -> bool:
    """Whether `obstore` reads, writes and lists a key under the name that it has."""
    return not INEXACT.search(key)


def source_part(source: str) -> str:
    """The segment of output names that tells whose they are.

    Args:
        source: its canonical URL.
    """
    return hashlib.sha256(source.encode()).hexdigest()[:8]


def own_folders(source: str) -> tuple[str, ...]:
    """The folders below which all outputs of a source lie, and none of another source."""
    return tuple(f"{folder}{source_part(source)}/" for folder in OUTPUT_FOLDERS)


def is_own(name: str, source: str) -> bool:
    """Whether a name is of the form that `output_name` gives outputs of this source."""
    return name.startswith(own_folders(source)) and bool(OWN_NAME.fullmatch(name))


def output_name(output: str, source: str, key: str, fingerprint: str, extension: str) -> str:
    """Name an output object.

    Args:
        output: its name, such as `thumbnail`.
        source: canonical URL of the source, part of every key's identity.
        key: object key below the source prefix.
        fingerprint: of content and recipe.
        extension: with its dot.

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
    # Empty, `.` and `..` mean something else to file systems.
    safe = quote(segment, safe=SAFE) if set(segment) - {"."} else "@" + "%2E" * len(segment)
    if len(safe) <= MOST_SEGMENT_BYTES:
        return safe
    return f"{safe[:100]}@{hashlib.sha256(segment.encode()).hexdigest()[:32]}"
