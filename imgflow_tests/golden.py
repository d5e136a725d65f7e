"""Writes `imgflow/doctor/golden`: `python -m imgflow_tests.golden`.

The values come from formulas of the standards, in numpy or by hand; nothing of imgflow is asked.
`ycck.jpg` is kept as it is, since Pillow writes no YCCK.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgflow_tests.golden_pngs import pngs
from imgflow_tests.golden_values import (
    PLACES,
    TURNS,
    case,
    clear,
    lanczos,
    luma,
    quarters,
    wide_vectors,
)
from imgflow_tests.images.pictures import corners, encoded, scene
from imgflow_tests.images.profiles import cmyk_profile
from imgflow_tests.images.wide_pictures import tiff16
from imgflow_tests.orchestration.hostile import png

FOLDER = Path(__file__).parents[1] / "imgflow/doctor/golden"
WATERMARK_LEVEL = 128


def jpegs() -> Iterator[tuple[bytes, dict[str, Any]]]:
    close = {"tolerance": 3, "colour_tolerance": 6}
    jpeg = {"quality": 98, "subsampling": 0}
    picture = corners()
    yield (
        encoded(picture, "JPEG", **jpeg),
        case("JPEG, baseline", "baseline.jpg", "JPEG", "RGB", **quarters(), **close),
    )
    yield (
        encoded(picture, "JPEG", **jpeg, progressive=True),
        case("JPEG, progressive", "progressive.jpg", "JPEG", "RGB", **quarters(), **close),
    )
    gray = {"gray": quarters()["gray"], "tolerance": 3}
    yield (
        encoded(picture.convert("L"), "JPEG", quality=98),
        case("JPEG, gray", "gray.jpg", "JPEG", "L", **gray),
    )
    yield (
        encoded(picture.convert("CMYK"), "JPEG", quality=98),
        case("JPEG, CMYK", "cmyk.jpg", "JPEG", "CMYK", **quarters(), **close),
    )
    ycck = (FOLDER / "ycck.jpg").read_bytes()
    yield ycck, case("JPEG, YCCK", "ycck.jpg", "JPEG", "CMYK", **quarters(), **close)
    # L* 50 is a share of 0.184 of the light (CIE 15), which sRGB stores as 119.
    inks = Image.new("CMYK", (40, 24), (255, 0, 0, 0))
    yield (
        encoded(inks, "JPEG", quality=100, icc_profile=cmyk_profile(cyan=(50, 0, 0))),
        case(
            "JPEG, CMYK with profile",
            "cmyk-icc.jpg",
            "JPEG",
            "CMYK",
            gray=[[20, 12, 119]],
            tolerance=4,
        ),
    )
    profile = cmyk_profile(cyan=(50, 0, 0))
    segment = b"ICC_PROFILE\0\1\1" + profile
    marked = ycck[:2] + b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment + ycck[2:]
    # Cyan and yellow, or magenta: the upper right and lower left quarters are cyan in this profile.
    yield (
        marked,
        case(
            "JPEG, YCCK with profile",
            "ycck-icc.jpg",
            "JPEG",
            "CMYK",
            gray=[[29, 5, 119], [9, 17, 119], [29, 17, 255]],
            tolerance=4,
        ),
    )
    for orientation, turn in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = picture if turn is None else picture.transpose(turn)
        yield (
            encoded(stored, "JPEG", **jpeg, exif=exif.tobytes()),
            case(
                f"EXIF orientation {orientation}",
                f"orientation-{orientation}.jpg",
                "JPEG",
                "RGB",
                facts={"orientation": orientation},
                **quarters(),
                **close,
            ),
        )


def others() -> Iterator[tuple[bytes, dict[str, Any]]]:
    picture, exact = corners(), quarters()
    gray = {"gray": exact["gray"]}
    alpha = {
        "alpha": [
            [*place, value] for place, value in zip(PLACES, (128, 128, 255, 255), strict=True)
        ]
    }
    more = [picture.transpose(turn) for turn in (TURNS[3], TURNS[2])]
    pages = {"save_all": True, "append_images": more}
    three = {"facts": {"frames": 3}}
    yield (
        encoded(picture, "GIF", **pages),
        case("GIF, animated", "animated.gif", "GIF", "P", **exact, **three),
    )
    lossless = {"lossless": True, "exact": True}
    yield encoded(picture, "WEBP", lossless=True), case("WebP", "rgb.webp", "WEBP", "RGB", **exact)
    yield (
        encoded(clear(), "WEBP", **lossless),
        case("WebP, alpha", "rgba.webp", "WEBP", "RGBA", **gray, **alpha, gray_mode="LA"),
    )
    yield (
        encoded(picture, "WEBP", **pages, lossless=True),
        case("WebP, animated", "animated.webp", "WEBP", "RGB", **exact, **three),
    )
    yield (
        encoded(picture, "TIFF", compression="tiff_lzw"),
        case("TIFF, LZW", "lzw.tif", "TIFF", "RGB", **exact),
    )
    yield (
        encoded(picture, "TIFF", **pages, compression="tiff_adobe_deflate"),
        case("TIFF, 3 pages", "pages.tif", "TIFF", "RGB", **exact, **three),
    )
    yield (
        encoded(picture.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        case("TIFF, CMYK", "cmyk.tif", "TIFF", "CMYK", **exact),
    )
    ramp = np.linspace(0, 1, 24 * 40, dtype=np.float32).reshape(24, 40)
    yield (
        encoded(Image.fromarray(ramp), "TIFF", compression="tiff_adobe_deflate"),
        case(
            "TIFF, floats",
            "float.tif",
            "TIFF",
            "F",
            gray_mode="I;16",
            gray=[[x, y, round(float(ramp[y, x]) * 65535)] for x, y in PLACES],
        ),
    )
    wide = wide_vectors()
    yield (
        tiff16(wide[..., :3], order=">"),
        case(
            "TIFF, colour of 16 bits",
            "rgb16.tif",
            "TIFF",
            "RGB",
            facts={"width": 6, "height": 2},
            gray=[[x, y, luma(wide[y, x, :3])] for y in range(2) for x in range(6)],
            gray_mode="I;16",
        ),
    )
    yield encoded(picture, "BMP"), case("BMP", "rgb.bmp", "BMP", "RGB", **exact)
    close = {"tolerance": 4, "colour_tolerance": 8}
    yield (
        encoded(picture, "AVIF", quality=95, subsampling="4:4:4"),
        case("AVIF", "rgb.avif", "AVIF", "RGB", **exact, **close),
    )
    yield (
        encoded(clear(), "AVIF", quality=95, subsampling="4:4:4"),
        case(
            "AVIF, alpha",
            "rgba.avif",
            "AVIF",
            "RGBA",
            **gray,
            **alpha,
            tolerance=4,
            alpha_tolerance=3,
            gray_mode="LA",
        ),
    )
    yield encoded(picture, "JPEG2000"), case("JPEG 2000", "rgb.jp2", "JPEG2000", "RGB", **exact)
    yield (
        encoded(picture, "HEIF", quality=-1, chroma=444),
        case("HEIC", "rgb.heic", "HEIF", "RGB", **exact, **close),
    )


def reference(photo: bytes) -> bytes:
    """The thumbnail of a photograph, as PNG."""
    pixels = lanczos(np.asarray(Image.open(io.BytesIO(photo))), 96, 64)
    return encoded(Image.fromarray(pixels), "PNG")


def whole_pictures() -> Iterator[tuple[bytes, dict[str, Any]]]:
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    with Image.open(Path(spec.origin).parent / "data/chelsea.png") as cat:
        photo = cat.convert("RGB").resize((300, 200), Image.Resampling.BICUBIC)
    data = encoded(photo, "JPEG", quality=90)
    yield (
        data,
        case(
            "a thumbnail beside Lanczos",
            "photo.jpg",
            "JPEG",
            "RGB",
            facts={"width": 300, "height": 200},
            similar_to="thumbnail.png",
        ),
    )
    yield (
        encoded(Image.new("L", (600, 400), WATERMARK_LEVEL), "PNG"),
        case(
            "a watermark on plain gray",
            "plain.png",
            "PNG",
            "L",
            facts={"width": 600, "height": 400},
            watermark=WATERMARK_LEVEL,
        ),
    )


def rejected() -> Iterator[tuple[bytes, dict[str, Any]]]:
    whole = encoded(scene(), "JPEG")
    for name, file, data, code in (
        ("a JPEG cut short", "cut.jpg", whole[: len(whole) // 2], "truncated"),
        ("a PNG of 3,600 megapixels", "huge.png", png(60_000, 60_000, b""), "too_many_pixels"),
        ("a page named .jpg", "page.jpg", b"<!doctype html><p>no picture</p>", "not_an_image"),
        ("JPEG XL", "picture.jxl", b"\xff\x0a" + bytes(30), "unsupported_format"),
    ):
        yield data, {"name": name, "file": file, "rejected": code}


def golden() -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every file with what it must give."""
    yield from (*jpegs(), *pngs(), *others(), *whole_pictures(), *rejected())


def write() -> None:
    told = []
    for data, one in golden():
        (FOLDER / one["file"]).write_bytes(data)
        if "similar_to" in one:
            (FOLDER / one["similar_to"]).write_bytes(reference(data))
        told.append(one)
    lines = ",\n".join(json.dumps(one, ensure_ascii=False) for one in told)
    (FOLDER / "cases.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    write()
