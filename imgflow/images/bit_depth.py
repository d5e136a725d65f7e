"""Bits a channel of formats of which Pillow gives 8 whatever the file has, read from headers."""

from PIL import Image

_ORDINARY = 8


def bits_per_channel(image: Image.Image, data: bytes) -> int:
    """How many bits a channel has in a file that Pillow decodes to 8; 8 where that is not told.

    Args:
        image: Opened, of any format.
        data: The whole file.
    """
    if image.mode.startswith("I"):
        return _ORDINARY  # nothing is lost
    try:
        return max(_ORDINARY, _READERS[str(image.format)](image, data))
    except (KeyError, IndexError):
        return _ORDINARY


def _heif(image: Image.Image, _: bytes) -> int:
    return int(image.info.get("bit_depth", _ORDINARY))


def _avif(_: Image.Image, data: bytes) -> int:
    """Box `pixi` (ISO/IEC 23008-12, 6.5.6): version and flags, channels, bits of each."""
    at = data.find(b"pixi")
    return data[at + 9] if at >= 0 else _ORDINARY


def _jpeg2000(_: Image.Image, data: bytes) -> int:
    """Marker SIZ (ISO/IEC 15444-1, A.5.1): bits of the first component, less 1, in seven bits."""
    at = data.find(b"\xff\x4f\xff\x51")
    return (data[at + 42] & 0x7F) + 1 if at >= 0 else _ORDINARY


_READERS = {"HEIF": _heif, "AVIF": _avif, "JPEG2000": _jpeg2000}
