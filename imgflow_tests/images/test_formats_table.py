"""`docs/formats.md` says what happens: its table is made from pictures that are processed."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgflow.images.formats.sniffing import public_name
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow_tests.images.pictures import encoded, process, rgb_profile, scene
from imgflow_tests.images.profiles import cmyk_profile
from imgflow_tests.images.wide_pictures import png16, tiff16

CYAN = (50, 0, 0)  # Lab
DOCUMENT = Path(__file__).parents[2] / "docs/formats.md"
TABLE = re.compile(r"(<!-- formats: .*? -->\n)(.*?)(<!-- end of formats -->)", re.DOTALL)


def golden(name: str) -> bytes:
    """A file of the golden set."""
    return files("imgflow.doctor.golden").joinpath(name).read_bytes()


def clear() -> Image.Image:
    image = scene().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def wide(dtype: type, highest: float) -> Image.Image:
    levels = np.linspace(0, highest, 96 * 64).reshape(64, 96)
    return Image.fromarray(levels.astype(dtype))


def wide_samples(channels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 65536, (64, 96, channels)).astype(np.uint16)


def clear_palette() -> bytes:
    image = Image.new("P", (96, 64), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(0, (0, 0, 9, 9))
    return encoded(image, "PNG", transparency=0)


def samples() -> Iterator[tuple[str, bytes]]:
    """What is uploaded, in words, and such a file."""
    photo = scene()
    pages = {"save_all": True, "append_images": [scene(seed=2), scene(seed=3)]}
    yield "baseline", encoded(photo, "JPEG")
    yield "progressive", encoded(photo, "JPEG", progressive=True)
    yield "gray", encoded(photo.convert("L"), "JPEG")
    yield "CMYK", encoded(photo.convert("CMYK"), "JPEG")
    yield (
        "CMYK with profile",
        encoded(photo.convert("CMYK"), "JPEG", icc_profile=cmyk_profile(CYAN)),
    )
    yield "YCCK", golden("ycck.jpg")
    yield "YCCK with profile", golden("ycck-icc.jpg")
    yield "wide-gamut profile", encoded(photo, "JPEG", icc_profile=rgb_profile())
    yield "pictures", encoded(photo, "MPO", save_all=True, append_images=[photo])
    yield "colour", encoded(photo, "PNG")
    yield "colour with alpha", encoded(clear(), "PNG")
    yield "gray with alpha", encoded(clear().convert("LA"), "PNG")
    yield "gray, 16 bits", encoded(wide(np.uint16, 65535), "PNG")
    yield "colour, 16 bits a channel", png16(wide_samples(3))
    yield "colour with alpha, 16 bits a channel", png16(wide_samples(4))
    yield "gray with alpha, 16 bits a channel", png16(wide_samples(2))
    yield "1 bit", encoded(photo.convert("1"), "PNG")
    yield "palette, 2 bits", encoded(photo.quantize(4), "PNG", bits=2)
    yield "palette", encoded(photo.quantize(), "PNG")
    yield "palette with a clear colour", clear_palette()
    yield "animated", encoded(photo, "PNG", **pages)
    yield "palette", encoded(photo, "GIF")
    yield "animated", encoded(photo, "GIF", **pages)
    yield "colour", encoded(photo, "WEBP")
    yield "colour with alpha", encoded(clear(), "WEBP")
    yield "animated", encoded(photo, "WEBP", **pages)
    yield "colour", encoded(photo, "TIFF")
    yield "pages", encoded(photo, "TIFF", **pages)
    yield "gray, 16 bits", encoded(wide(np.uint16, 65535), "TIFF")
    yield "colour, 16 bits a channel", tiff16(wide_samples(3))
    yield "32-bit floats, 0 to 1", encoded(wide(np.float32, 1), "TIFF")
    yield "32-bit floats, 0 to 9000", encoded(wide(np.float32, 9000), "TIFF")
    yield "32-bit integers, 0 to 9000", encoded(wide(np.int32, 9000), "TIFF")
    yield "CMYK", encoded(photo.convert("CMYK"), "TIFF")
    yield "Lab", encoded(photo.convert("LAB"), "TIFF")
    yield "colour", encoded(photo, "BMP")
    yield "colour", encoded(photo, "AVIF")
    yield "colour with alpha", encoded(clear(), "AVIF")
    yield "colour", encoded(photo, "JPEG2000")
    yield "colour with alpha", encoded(clear(), "JPEG2000")
    yield "colour", encoded(photo, "HEIF")
    yield "colour with alpha", encoded(clear(), "HEIF")


def table() -> str:
    """A row for what comes out alike: first kinds of one format, then formats of the same kinds."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for what, data in samples():
        done = process(data, PhotoRecipe())
        facts = done.facts
        gray, small = (
            f"{output.media_type.removeprefix('image/').upper()}, {output.mode}"
            for output in (done.outputs["grayscale"], done.outputs["thumbnail"])
        )
        frames = f" ({facts.frames} frames)" if facts.frames > 1 else ""
        outcome = f"{gray} | {small} | {'; '.join(facts.notes)}"
        kinds.setdefault((public_name(facts.format), outcome), []).append(what + frames)
    rows: dict[tuple[str, str], list[str]] = {}
    for (name, outcome), found in kinds.items():
        rows.setdefault(("; ".join(found), outcome), []).append(name)
    lines = ["| format | what | grayscale | thumbnail | notes |", "|---|---|---|---|---|"]
    for (what, outcome), names in rows.items():
        lines.append(f"| {', '.join(names)} | {what} | {outcome} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_formats_is_what_happens() -> None:
    found = TABLE.search(DOCUMENT.read_text())
    assert found is not None
    remedy = "run `python -m imgflow_tests.images.test_formats_table`"
    assert found.group(2) == table(), remedy


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_is_the_same_picture_whatever_its_compression(compression):
    found = process(encoded(scene(), "TIFF", compression=compression)).outputs["grayscale"]
    assert found.data == process(encoded(scene(), "PNG")).outputs["grayscale"].data


if __name__ == "__main__":
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(TABLE.sub(lambda m: m.group(1) + table() + m.group(3), text))
