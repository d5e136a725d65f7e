"""Everything that decides the pixels and bytes of a photograph's outputs."""

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
        thumbnail_size: Box in pixels (width, height) that thumbnails fit.
        thumbnail_format: `auto` is JPEG for opaque pictures and PNG for those with alpha.
        grayscale_format: `auto` is JPEG for opaque 8-bit pictures from JPEG, MPO, WebP, AVIF, HEIC
            and JPEG 2000, and PNG for all else. `jpeg` costs alpha and 16 bits.
        jpeg_quality: 1 to 100, of grayscale and proof as JPEG.
        thumbnail_quality: 1 to 100, of thumbnails as JPEG or WebP. With 95 the file itself, not
            only what is encoded, has an SSIM of 0.98 beside Lanczos.
        background: Red, green and blue, 0 to 255, under transparent pictures where the output has
            no alpha.
        watermark_text: What proofs are marked with; None or blank: no proofs are made.
        proof_size: Box in pixels that proofs fit.
        watermark_font: File of the font that proofs are marked with; empty: fonts of imgflow.
        watermark_font_sha256: Of that file, since the same path may hold another font elsewhere.
        parameters: Of installed outputs, where they differ from the defaults: name of the output,
            name of the parameter, value.
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
        """The parameters of an installed output: its defaults, and what the settings say.

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
                value = float(value)  # noqa: PLW2901 - 8 is written for 8.0
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
            output: A name that `imgflow.images.outputs.find_output` knows.

        Returns:
            16 hexadecimal letters, from SHA-256 over canonical JSON.
        """
        # Imported here because the outputs are functions of a recipe.
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
