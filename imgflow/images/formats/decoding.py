"""Opens an upload as a photograph within limits, or rejects it with a reason.

The decoders themselves are in `pillow`, and what they are given of a file in `headers`; the opened
photograph is `imgflow.images.photo.Photo`.
"""

import importlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from imgflow.errors import Rejected, SettingsError
from imgflow.images.colour import jpeg2000_profile
from imgflow.images.formats import credit
from imgflow.images.formats.headers import bits_per_channel, count_frames, for_decoder
from imgflow.images.formats.pillow import MEDIA_TYPES, load_decoder, open_as, pillow_session
from imgflow.images.formats.rejections import pillow_errors, too_large, too_many_pixels
from imgflow.images.formats.sniffing import Kind, public_name, sniff
from imgflow.images.modes import raw_mode
from imgflow.images.photo import Header, Photo, PhotoFacts

__all__ = ["DECODING_VERSION", "Limits", "Photo", "PhotoFacts", "open_photo", "prepare_decoder"]

DECODING_VERSION = 3
"""Part of every output's fingerprint; bump it by hand when decoded pixels or the credit change."""

_BLIND_DECODERS = {"WEBP": 16, "JPEG2000": 20, "AVIF": 10, "HEIF": 8}
"""Bytes per pixel of the decoders that report damage when memory runs out."""


_MOST_HINTS, _MOST_HINT_CHARACTERS = 10, 300
_PILLOW_BITS = 8
_PLANAR_CONFIGURATION, _BY_PLANE = 284, 2  # TIFF 6.0, section 8
_WIDE_FORMATS = frozenset({"PNG", "TIFF", "JPEG2000"})
"""Formats that may have more than 8 bits a channel, for which `modes` uses numpy."""


@dataclass(frozen=True)
class Limits:
    """What is accepted. A picture at a limit is accepted, one above it is rejected.

    Attributes:
        max_bytes: Maximum size of the file.
        max_pixels: Maximum width times height, checked in the header before decoding. Memory for
            grayscale and thumbnail peaks at 5 bytes a pixel for a baseline JPEG and an opaque PNG,
            9 for most others, 12 for 32-bit TIFF, 13 for 16-bit colour (18 with alpha), 16 for WebP
            and 20 for JPEG 2000.
        max_side: Longest side in pixels; JPEG outputs cannot exceed 65,500.
        max_frames: Maximum number of frames or pages in the file.
        max_memory: Bytes that decoding may take. The caller enforces it on the process; this module
            only rejects pictures whose decoder reports a lack of memory as damage.
        formats: Names in `pillow.MEDIA_TYPES` that are accepted. Others are rejected by name.
    """

    max_bytes: int = 200 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_side: int = 65_500
    max_frames: int = 10_000
    formats: tuple[str, ...] = tuple(MEDIA_TYPES)
    max_memory: int = 3 * 2**30

    def __post_init__(self) -> None:
        unknown = [name for name in self.formats if name not in MEDIA_TYPES]
        if unknown or not self.formats:
            known = ", ".join(MEDIA_TYPES)
            raise SettingsError(f"Image formats {unknown} cannot be enabled; known are {known}.")
        if (
            min(self.max_bytes, self.max_pixels, self.max_side, self.max_frames, self.max_memory)
            < 1
        ):
            raise SettingsError("Limits of images must be at least 1.")


def check_kind(data: bytes, limits: Limits) -> Kind:
    """Check a file's size and format by its first bytes; nothing is decoded.

    Raises:
        Rejected: As `open_photo` does.
    """
    if not data:
        raise Rejected("empty", "The file is empty: it has 0 bytes.")
    if len(data) > limits.max_bytes:
        raise Rejected(
            "too_many_bytes",
            f"The file has {len(data):,} bytes, and at most {limits.max_bytes:,} are accepted.",
        )
    kind = sniff(data)
    if not kind.is_picture:
        raise Rejected(
            "not_an_image",
            f"The file of {len(data):,} bytes is not a picture: it looks like {kind.name}.",
        )
    if kind.name not in limits.formats:
        raise _not_enabled(kind.name, limits)
    if not load_decoder(kind.name):
        raise _not_installed(kind.name)
    return kind


def open_photo(data: bytes, limits: Limits) -> Photo:
    """Open a photograph by its content, whatever its file name.

    A JPEG is decoded when an output needs its pixels, other formats here.

    Args:
        data: Complete file.
        limits: Photographs beyond these are rejected.

    Raises:
        Rejected: Has one of the codes in `imgflow.images.formats.rejections`. No content raises
            anything else.
    """
    kind = check_kind(data, limits)
    decoded, lost = for_decoder(data, kind.name)
    # The WebP decoder allocates on opening, so only Pillow's own check comes before that. Pillow
    # refuses at twice the limit it is given.
    is_blind = kind.name in _BLIND_DECODERS
    affordable = limits.max_memory // _BLIND_DECODERS[kind.name] // 2 if is_blind else math.inf
    with pillow_session(int(min(limits.max_pixels, affordable))) as caught:
        try:
            with pillow_errors(kind.name, data, caught):
                image = open_as(decoded, kind.name)
        except Rejected as rejection:
            if rejection.code == "too_many_pixels" and affordable < limits.max_pixels:
                raise too_large(kind.name) from rejection
            raise
        header = _read_header(image, data, limits)
    notes = tuple(dict.fromkeys((*header.notes, *lost, *_hints(caught))))
    return Photo(data, decoded, image, replace(header, notes=notes))


def _hints(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """The decoder's warnings, capped, since a few bytes of a file can cause another one."""
    hints = list(
        dict.fromkeys(
            " ".join(str(warning.message)[:_MOST_HINT_CHARACTERS].split()) for warning in caught
        )
    )
    if len(hints) > _MOST_HINTS:
        hints[_MOST_HINTS:] = [f"and {len(hints) - _MOST_HINTS:,} more warnings of the decoder"]
    return hints


def prepare_decoder(data: bytes, limits: Limits) -> None:
    """Load the libraries that these bytes may need, so that they do not count as the file's cost.

    It also keeps OpenBLAS, which numpy loads, from retrying for ever when memory is refused.
    """
    kind = sniff(data)
    if kind.name in limits.formats:
        load_decoder(kind.name)
        if kind.name in _WIDE_FORMATS:
            importlib.import_module("numpy")


def _not_enabled(name: str, limits: Limits) -> Rejected:
    enabled = ", ".join(public_name(known) for known in limits.formats)
    return Rejected(
        "unsupported_format",
        f"The file is of the format {public_name(name)}, and only {enabled} are accepted.",
    )


def _not_installed(name: str) -> Rejected:
    public = public_name(name)
    return Rejected(
        "unsupported_format",
        f"The file is of the format {public}, whose decoder cannot be loaded here: "
        f"pip install 'imgflow[{public.lower()}]'.",
    )


def _read_header(image: Image.Image, data: bytes, limits: Limits) -> Header:
    """Check the limits, then read the header, decoding the picture unless it is a JPEG."""
    name = str(image.format)
    if name not in limits.formats:
        raise _not_enabled(name, limits)
    width, height = image.size
    if width * height > limits.max_pixels:
        raise too_many_pixels(width, height, limits.max_pixels)
    if max(width, height) > limits.max_side:
        raise Rejected(
            "too_long_side",
            f"The picture is {width:,} x {height:,} pixels, "
            f"and sides of at most {limits.max_side:,} pixels are accepted.",
        )
    if width * height * _BLIND_DECODERS.get(name, 0) > limits.max_memory:
        raise too_large(name)
    frames = count_frames(image, data, limits.max_frames)
    if frames > limits.max_frames:
        raise Rejected(
            "too_many_frames",
            f"The file has more than {limits.max_frames:,} frames or pages, which is not accepted.",
        )
    mode, stored, is_jpeg = image.mode, raw_mode(image), name in ("JPEG", "MPO")
    if name == "TIFF" and image.tag_v2.get(_PLANAR_CONFIGURATION) == _BY_PLANE:  # type: ignore[attr-defined]  # of TIFF only
        stored += " by plane"
    # Loading a TIFF turns it upright and drops its orientation.
    facts = credit.read_exif(image) if name == "TIFF" else None
    if not is_jpeg:
        with pillow_errors(name, data):
            image.load()
            if image.size != (width, height):
                raise ValueError("the decoded picture is not of the size that its header said")
    # A PNG may carry EXIF after its pixels, where Pillow has only now found it.
    facts = facts or credit.read_exif(image)
    notes = ["exif broken, ignored"] if facts.is_broken else []
    if (bits := bits_per_channel(image, data)) > _PILLOW_BITS:
        notes.append(f"{bits} bits per channel read as {_PILLOW_BITS}")
    profile = image.info.get("icc_profile")
    if name == "JPEG2000":
        profile = jpeg2000_profile(data)
    return Header(
        format=name,
        media_type=MEDIA_TYPES[name],
        stored_size=(width, height),
        mode=mode,
        frames=frames,
        orientation=facts.orientation,
        upright_at_load=name in ("TIFF", "HEIF"),
        credit=facts.credit,
        profile=profile if isinstance(profile, bytes) else b"",
        stored=stored,
        notes=tuple(notes),
    )
