"""The recipe: all settings that decide a photograph's outputs, and their fingerprints.

Limits on what is accepted are in `imgflow.images.formats.decoding`; the recipe of depth images is
in `imgflow.depth.depth_recipe`.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from imgflow.errors import SettingsError

GrayscaleFormat = Literal["auto", "jpeg", "png"]
ThumbnailFormat = Literal["auto", "jpeg", "png", "webp"]
Parameter = str | int | float | bool
_LARGEST_BOX = 16_383  # WebP's limit
_LONGEST_WATERMARK = 200
_LARGEST_SAMPLE = 255
_FINGERPRINT_LETTERS = 16


@dataclass(frozen=True)
class PhotoRecipe:
    """How outputs are made; small, picklable and hashable.

    Attributes:
        thumbnail_size: Width and height, in pixels, of the box that thumbnails are fitted to.
        thumbnail_format: `auto` is JPEG for opaque pictures and PNG for those with alpha.
        grayscale_format: `auto` is JPEG for opaque 8-bit pictures from JPEG, MPO, WebP, AVIF, HEIC
            and JPEG 2000, and PNG for all others. `jpeg` drops alpha and 16 bits.
        jpeg_quality: 1 to 100, for grayscale and proofs as JPEG.
        thumbnail_quality: 1 to 100, for thumbnails as JPEG or WebP. At 95, the decoded file has an
            SSIM of 0.98 against plain Lanczos.
        background: Red, green and blue, 0 to 255, behind transparent pictures if the output has no
            alpha.
        watermark_text: Text on proofs; if None or blank, no proofs are made.
        proof_size: Width and height, in pixels, of the box that proofs are fitted to.
        watermark_font: Path of the watermark's font file; empty for the fonts that imgflow ships.
        watermark_font_sha256: Hash of that file, since the path may hold another font elsewhere.
        parameters: Non-default parameters of installed outputs, as (output, parameter, value).
    """

    thumbnail_size: tuple[int, int] = (256, 256)
    thumbnail_format: ThumbnailFormat = "auto"
    grayscale_format: GrayscaleFormat = "auto"
    jpeg_quality: int = 85
    thumbnail_quality: int = 95
    background: tuple[int, int, int] = (255, 255, 255)
    watermark_text: str | None = None
    proof_size: tuple[int, int] = (512, 512)
    watermark_font: str = ""
    watermark_font_sha256: str = ""
    parameters: tuple[tuple[str, str, Parameter], ...] = ()

    def __post_init__(self) -> None:
        for name, box in (("Thumbnail", self.thumbnail_size), ("Proof", self.proof_size)):
            if len(box) != 2 or not all(1 <= side <= _LARGEST_BOX for side in box):  # noqa: PLR2004 - width, height
                raise SettingsError(f"{name} size {box} must be two sides of 1 to {_LARGEST_BOX}.")
        if self.thumbnail_format not in get_args(ThumbnailFormat):
            raise SettingsError(f"Thumbnail format {self.thumbnail_format!r} is not known.")
        if self.grayscale_format not in get_args(GrayscaleFormat):
            raise SettingsError(f"Grayscale format {self.grayscale_format!r} is not known.")
        for quality in (self.jpeg_quality, self.thumbnail_quality):
            if not 1 <= quality <= 100:  # noqa: PLR2004 - JPEG's scale
                raise SettingsError(f"JPEG quality {quality} must be 1 to 100.")
        if len(self.background) != 3 or not all(0 <= v <= _LARGEST_SAMPLE for v in self.background):  # noqa: PLR2004 - R, G, B
            raise SettingsError(f"Background {self.background} must be three values of 0 to 255.")
        if len(self.watermark_text or "") > _LONGEST_WATERMARK:
            raise SettingsError(f"The watermark text is longer than {_LONGEST_WATERMARK} letters.")

    def parameters_of(self, output: str) -> dict[str, Any]:
        """The parameters of an installed output: its defaults, overridden by the settings.

        Raises:
            SettingsError: A value is not of the type of its default.
        """
        from imgflow.images.outputs import find_output

        values: dict[str, Any] = dict(find_output(output).parameters)
        for name, parameter, value in self.parameters:
            if name != output or parameter not in values:
                continue
            kind = type(values[parameter])
            if kind is float and type(value) is int:
                value = float(value)  # noqa: PLW2901 - people write 8 for 8.0
            if type(value) is not kind:
                raise SettingsError(
                    f"IMGFLOW_OUTPUT_PARAMETERS: {name}.{parameter} is {value!r}, and has to be "
                    f"a {kind.__name__}."
                )
            values[parameter] = value
        return values

    def fingerprint(self, output: str) -> str:
        """Identify what an output depends on: its own settings and the version of its code.

        Two recipes with the same fingerprint make the same bytes of the same photograph.

        Args:
            output: Name that `imgflow.images.outputs.find_output` knows.

        Returns:
            16 hexadecimal digits of a SHA-256 over canonical JSON.
        """
        # Imported here because `outputs` imports this module.
        from imgflow.images.formats.decoding import DECODING_VERSION
        from imgflow.images.outputs import find_output

        made = find_output(output)
        own = {"parameters": self.parameters_of(output)} if made.parameters else {}
        text = json.dumps(
            {
                **own,
                "output": made.name,
                "version": made.version,
                "decoding": DECODING_VERSION,
                "settings": {field: getattr(self, field) for field in made.recipe_fields},
            },
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(text.encode()).hexdigest()[:_FINGERPRINT_LETTERS]
