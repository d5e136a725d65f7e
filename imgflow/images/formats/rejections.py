"""How a photograph is rejected: turns Pillow's errors into a `Rejected` with a code and a sentence.

Codes: `empty`, `not_an_image`, `unsupported_format`, `too_many_bytes`, `too_many_pixels`,
`too_long_side`, `too_many_frames`, `too_many_scans`, `too_large` (memory ran out), `truncated`,
`corrupt`. Those that need no decoder are raised in `decoding` and `headers`; the codes of depth
images are in `imgflow.depth.readers.reading`.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from imgflow.errors import Rejected
from imgflow.images.formats.sniffing import is_cut_short, public_name

PILLOW_ERRORS: tuple[type[Exception], ...] = (
    Image.DecompressionBombError,
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    SystemError,
    BufferError,
    MemoryError,
    Warning,
    struct.error,
    zlib.error,
)
"""All errors that Pillow's decoders were seen to raise on hostile files. Catch them only around
calls of Pillow that read untrusted bytes: our own bugs are not bad pictures."""

_UNSUPPORTED = ("unknown pixel mode", "cannot handle", "not yet supported", "unsupported", "layers")


def too_many_pixels(width: int, height: int, limit: int) -> Rejected:
    """The rejection of a picture above the pixel limit."""
    return Rejected(
        "too_many_pixels",
        f"The picture has {width:,} x {height:,} = {width * height:,} pixels, "
        f"and at most {limit:,} are accepted.",
    )


def too_large(kind: str) -> Rejected:
    """The rejection of a picture within the limits for which memory ran out."""
    return Rejected(
        "too_large", f"The {public_name(kind)} picture needs more memory than there is for it."
    )


def verdict(error: Exception, kind: str, data: bytes, hints: str = "") -> Rejected:
    """Turn an error of Pillow into the rejection of the picture.

    Args:
        error: Any of `PILLOW_ERRORS`.
        kind: Format name, as sniffed or as Pillow names it.
        data: Complete file.
        hints: Pillow's other messages about the failure, such as warnings.
    """
    name = public_name(kind)
    text = f"{error} {hints}".lower()
    # Some decoders report a lack of memory in the message only.
    if isinstance(error, MemoryError) or "out of memory" in text or "cannot allocate" in text:
        return too_large(kind)
    if isinstance(error, Image.DecompressionBombError):
        # Pillow refuses at twice the limit it is given, and its message has that number.
        count = re.search(r"\((\d+) pixels\).* limit of (\d+)", str(error))
        claim = (
            f"claims {int(count[1]):,} pixels, and at most {int(count[2]) // 2:,} are accepted"
            if count
            else "claims more pixels than are accepted"
        )
        return Rejected("too_many_pixels", f"The {name} picture {claim}.")
    if "truncat" in text or isinstance(error, EOFError) or is_cut_short(kind, data):
        return Rejected(
            "truncated",
            f"The {name} picture is incomplete: the file stops after {len(data):,} bytes.",
        )
    if any(word in text for word in _UNSUPPORTED):
        return Rejected(
            "unsupported_format",
            f"The file of {len(data):,} bytes is a {name} of a variant that cannot be read here.",
        )
    return Rejected(
        "corrupt", f"The {name} picture of {len(data):,} bytes is damaged and cannot be decoded."
    )


@contextmanager
def pillow_errors(
    kind: str, data: bytes, caught: Sequence[warnings.WarningMessage] = ()
) -> Iterator[None]:
    """Turn whatever Pillow raises inside the block into a `Rejected`.

    Args:
        kind: Format name, as sniffed or as Pillow names it.
        data: Complete file.
        caught: Pillow's warnings, which explain some of its errors.
    """
    try:
        yield
    except PILLOW_ERRORS as error:
        hints = " ".join(str(warning.message) for warning in caught)
        raise verdict(error, kind, data, hints) from error
