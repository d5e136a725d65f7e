"""One opened photograph: its facts, and the two pictures that all outputs are made from.

Opening it is in `imgflow.images.formats.decoding`, making its outputs in `imgflow.images.outputs`.
"""

from dataclasses import dataclass
from functools import cached_property

from PIL import Image

from imgflow.images import wide
from imgflow.images.colour import is_srgb, is_usable, to_srgb
from imgflow.images.formats.credit import TURNED, UPRIGHT
from imgflow.images.formats.pillow import open_as, pillow_session
from imgflow.images.formats.rejections import pillow_errors
from imgflow.images.modes import ALPHA, WIDE, narrow, plain

_WORTHWHILE_REDUCTION = 2.0
"""Pictures are first reduced by an integer factor, to at least this many times the target size."""


@dataclass(frozen=True)
class PhotoFacts:
    """What is known of a photograph.

    Attributes:
        format: Pillow's name of the format, by content: `JPEG`, `MPO`, `PNG`, ...
        media_type: Media type of the file, such as `image/jpeg`.
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        mode: Pillow's mode of the picture as stored.
        frames: Number of frames or pages in the file; only the first is used.
        orientation: EXIF orientation of the file, 1 to 8; the outputs are upright.
        notes: Plain-language notes on what was lost or ignored.
    """

    format: str
    media_type: str
    width: int
    height: int
    mode: str
    frames: int
    orientation: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """What `open_photo` reads besides the pixels; sizes are as stored, in pixels."""

    format: str
    media_type: str
    stored_size: tuple[int, int]
    mode: str
    frames: int
    orientation: int
    upright_at_load: bool
    credit: bytes
    profile: bytes
    stored: str
    notes: tuple[str, ...]


class Photo:
    """A photograph whose pixels are decoded once, when they are first needed.

    The pixels depend on the file alone, so no output depends on which others are made.

    Attributes:
        header: What was read when the file was opened.
        credit: EXIF block with artist and copyright only, or `b""`.
        data: File as uploaded.
        decoded: Bytes that the decoder gets, see `imgflow.images.formats.headers`.
    """

    def __init__(self, data: bytes, decoded: bytes, image: Image.Image, header: Header) -> None:
        self.header = header
        self.credit = header.credit
        self.data = data
        self.decoded = decoded
        self._image = image
        self._notes = list(header.notes)
        self._full: Image.Image | None = None
        self._luma: Image.Image | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        width, height = self.header.stored_size
        return (height, width) if self._is_turned else (width, height)

    @property
    def facts(self) -> PhotoFacts:
        """The facts, with the notes that decoding has added so far."""
        width, height = self.size
        header = self.header
        return PhotoFacts(
            format=header.format,
            media_type=header.media_type,
            width=width,
            height=height,
            mode=header.mode,
            frames=header.frames,
            orientation=header.orientation,
            notes=tuple(self._notes),
        )

    def luma(self) -> Image.Image:
        """The upright grayscale picture, BT.601 luma of the sRGB colours.

        `(R * 19595 + G * 38470 + B * 7471 + 0x8000) >> 16`, Pillow's weights, of the decoded
        colours in every format. A JPEG's own Y channel is not used: where colours were clipped to
        fit into RGB, it is up to 14 levels off.

        Returns:
            Mode L, LA (straight alpha) or I;16 (0 to 65535; alpha, if any, is another I;16 picture
            in `info[modes.ALPHA]`).

        Raises:
            Rejected: `truncated`, `corrupt` or `too_large`.
        """
        if self._luma is None:
            self._luma = self._upright(self._stored_luma())
        return self._luma

    def fitted(self, box: tuple[int, int]) -> Image.Image:
        """The upright picture in sRGB, fitted to a box by Lanczos resampling, never enlarged.

        Always made from the full-size picture, which grayscale needs anyway: reducing that costs
        less than decoding a JPEG a second time at a quarter of its size.

        Args:
            box: Maximum width and height, in pixels.

        Returns:
            Mode RGB, RGBA, L or LA, 8 bits a channel. Its sides are within half a pixel of the
            exact proportions, and at least 1.

        Raises:
            Rejected: `truncated`, `corrupt` or `too_large`.
        """
        size = fit(self.size, box)
        if self._is_turned:
            size = size[::-1]
        whole = source = self._whole()
        if source.size != size:
            source = source.resize(
                size,
                Image.Resampling.LANCZOS,
                # Pillow cannot reduce 16-bit pictures.
                reducing_gap=None if source.mode == WIDE else _WORTHWHILE_REDUCTION,
            )
        if source.mode == WIDE:
            source = narrow(source)
        fitted = self._upright(self._in_srgb(source))
        # Outputs may draw on what they get, and grayscale needs the original.
        return fitted.copy() if fitted is whole else fitted

    def check(self) -> None:
        """Decode the pixels unless that was done already, so that damage is found."""
        self._whole()

    @property
    def _is_turned(self) -> bool:
        return self.header.orientation in TURNED and not self.header.upright_at_load

    def _upright(self, image: Image.Image) -> Image.Image:
        turn = UPRIGHT.get(self.header.orientation)
        if turn is None or self.header.upright_at_load:
            return image
        turned = image.transpose(turn)
        if ALPHA in image.info:
            turned.info[ALPHA] = image.info[ALPHA].transpose(turn)
        return turned

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _whole(self) -> Image.Image:
        """The full-size picture, decoded once, in one of the modes that `plain` returns."""
        if self._full is None:
            with pillow_errors(self.header.format, self.data):
                self._image.load()
                self._full, notes = plain(self._image, self.header.stored)
            for note in notes:
                self._note(note)
            if ";16" in self.header.stored and self._full.mode != WIDE and not self._has_wide_luma:
                self._note("16 bits per channel read as 8")
        return self._full

    @cached_property
    def _has_wide_luma(self) -> bool:
        """Whether the picture has 16 bits a channel in colour, or in gray with alpha."""
        header = self.header
        if header.format not in ("PNG", "TIFF"):
            return False
        if header.stored == wide.GRAY_WITH_ALPHA:
            return True
        if header.stored not in wide.WIDE_COLOURS:
            return False
        return not self._is_foreign("RGB") or wide.describes_light(header.profile, b"RGB ")

    def _wide_luma(self) -> Image.Image:
        """The grayscale picture in 16 bits, from a second decode; not turned upright."""
        header = self.header
        is_gray = header.stored == wide.GRAY_WITH_ALPHA
        data = wide.as_bytes(self.decoded) if is_gray else self.decoded
        self._whole()  # loads the high bytes into the picture that was opened
        pixels = header.stored_size[0] * header.stored_size[1]
        with pillow_session(pixels), pillow_errors(header.format, self.data):
            second = open_as(data, header.format)
            if is_gray:
                second.load()
                luma, alpha = wide.luma_of_gray(second)
            else:
                profile = header.profile if self._is_foreign("RGB") else b""
                clear = second.info.get("transparency")
                luma, alpha = wide.luma_of_colour(
                    self._image, wide.low_bytes(second), clear, profile
                )
        if alpha is not None:
            luma.info[ALPHA] = alpha
        return self._in_srgb(luma) if is_gray else luma

    def _stored_luma(self) -> Image.Image:
        if self._has_wide_luma:
            return self._wide_luma()
        image = self._in_srgb(self._whole())
        if image.mode in ("L", "LA", WIDE):
            return image
        return image.convert("LA" if image.mode == "RGBA" else "L")

    def _is_foreign(self, mode: str) -> bool:
        """Whether the picture has a usable profile other than sRGB; notes unusable ones."""
        profile = self.header.profile
        if not profile or is_srgb(profile):
            return False
        if is_usable(profile, mode):
            return True
        self._note("icc profile broken or of another colour space, ignored")
        return False

    def _in_srgb(self, image: Image.Image) -> Image.Image:
        if image.mode == WIDE:
            profile = self.header.profile
            if not profile or is_srgb(profile):
                return image
            if wide.describes_light(profile, b"GRAY"):
                return wide.gray_in_srgb(image, profile)
            self._note("icc profile broken or of another colour space, ignored")
            return image
        if image.mode == "LA":
            gray, alpha = image.split()
            gray = self._in_srgb(gray)
            return Image.merge("LA", (gray, alpha))
        if self.header.mode == "LAB" or not self._is_foreign(image.mode):
            return image.convert("RGB") if image.mode == "CMYK" else image
        return to_srgb(image, self.header.profile)


def fit(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The largest size in the proportions of `size` that fits `box`; never enlarged, at least 1."""
    width, height = size
    across, down = box
    if width <= across and height <= down:
        return size
    if width * down >= height * across:
        return across, max(1, (2 * height * across + width) // (2 * width))
    return max(1, (2 * width * down + height) // (2 * height)), down
