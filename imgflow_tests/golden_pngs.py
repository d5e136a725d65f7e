"""The PNG files of `imgflow/doctor/golden`, with what each must give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from imgflow_tests.golden_values import (
    COLOURS,
    NINE,
    PLACES,
    case,
    clear,
    encode_srgb,
    from_adobe,
    luma,
    quarters,
    vectors,
    wide_vectors,
)
from imgflow_tests.images.pictures import corners, encoded, rgb_profile
from imgflow_tests.images.profiles import gray_profile
from imgflow_tests.images.wide_pictures import iccp, png16


def pngs() -> Iterator[tuple[bytes, dict[str, Any]]]:
    picture, exact = corners(), quarters()
    gray = {"gray": exact["gray"]}
    alpha = {
        "alpha": [
            [*place, value] for place, value in zip(PLACES, (128, 128, 255, 255), strict=True)
        ]
    }
    size = {"width": len(NINE), "height": 1}
    yield (
        encoded(vectors(), "PNG"),
        case(
            "luma of single colours",
            "vectors.png",
            "PNG",
            "RGB",
            facts=size,
            gray=[[x, 0, luma(colour)] for x, colour in enumerate(NINE)],
            colours=[[x, 0, list(colour)] for x, colour in enumerate(NINE)],
        ),
    )
    yield encoded(picture, "PNG"), case("PNG, colour", "rgb.png", "PNG", "RGB", **exact)
    yield (
        encoded(clear(), "PNG"),
        case("PNG, alpha", "rgba.png", "PNG", "RGBA", **gray, **alpha, gray_mode="LA"),
    )
    yield (
        encoded(clear("LA"), "PNG"),
        case("PNG, gray with alpha", "la.png", "PNG", "LA", **gray, **alpha, gray_mode="LA"),
    )
    yield encoded(picture.convert("L"), "PNG"), case("PNG, gray", "l.png", "PNG", "L", **gray)
    bits = picture.convert("L").point(lambda level: 255 * (level > 100)).convert("1")
    yield (
        encoded(bits, "PNG"),
        case("PNG, 1 bit", "1.png", "PNG", "1", gray=quarters([0, 255, 0, 255])["gray"]),
    )
    palette = Image.new("P", (40, 24), 3)
    palette.putpalette([value for colour in COLOURS for value in colour])
    for index, (x, y) in enumerate(((0, 0), (20, 0), (0, 12))):
        palette.paste(index, (x, y, x + 20, y + 12))
    yield encoded(palette, "PNG"), case("PNG, palette", "p.png", "PNG", "P", **exact)
    yield (
        encoded(palette, "PNG", transparency=0),
        case(
            "PNG, palette with a clear colour",
            "p-clear.png",
            "PNG",
            "P",
            gray_mode="LA",
            gray=gray["gray"],
            alpha=[
                [*place, value] for place, value in zip(PLACES, (0, 255, 255, 255), strict=True)
            ],
        ),
    )
    ramp = np.linspace(0, 65535, 24 * 40).round().astype(np.uint16).reshape(24, 40)
    levels = [[x, y, int(ramp[y, x])] for x, y in PLACES]
    yield (
        encoded(Image.fromarray(ramp), "PNG"),
        case("PNG, gray of 16 bits", "i16.png", "PNG", "I;16", gray=levels, gray_mode="I;16"),
    )
    linear = encode_srgb(ramp / 65535) * 65535
    yield (
        encoded(Image.fromarray(ramp), "PNG", icc_profile=gray_profile(1.0)),
        case(
            "PNG, gray of 16 bits with profile",
            "i16-icc.png",
            "PNG",
            "I;16",
            gray_mode="I;16",
            gray=[[x, y, round(linear[y, x])] for x, y in PLACES],
            tolerance=1,
        ),
    )
    wide, size = wide_vectors(), {"width": 6, "height": 2}
    places = [(x, y) for y in range(2) for x in range(6)]
    exact_wide = [[x, y, luma(wide[y, x, :3])] for x, y in places]
    yield (
        png16(wide[..., :3]),
        case(
            "PNG, colour of 16 bits",
            "rgb16.png",
            "PNG",
            "RGB",
            facts=size,
            gray=exact_wide,
            gray_mode="I;16",
        ),
    )
    yield (
        png16(wide),
        case(
            "PNG, colour and alpha of 16 bits",
            "rgba16.png",
            "PNG",
            "RGBA",
            facts=size,
            gray=exact_wide,
            alpha=[[x, y, int(wide[y, x, 3])] for x, y in places],
            gray_mode="LA;16",
        ),
    )
    yield (
        png16(wide[..., 2:]),
        case(
            "PNG, gray and alpha of 16 bits",
            "la16.png",
            "PNG",
            "RGBA",
            facts=size,
            gray_mode="LA;16",
            gray=[[x, y, int(wide[y, x, 2])] for x, y in places],
            alpha=[[x, y, int(wide[y, x, 3])] for x, y in places],
        ),
    )
    middle = (150, 120, 90)
    plain = encoded(Image.new("RGB", (40, 24), middle), "PNG", icc_profile=rgb_profile())
    brought = from_adobe(middle, 255)
    yield (
        plain,
        case(
            "ICC profile, 8 bits",
            "icc.png",
            "PNG",
            "RGB",
            gray=[[20, 12, luma(brought)]],
            tolerance=1,
            colours=[[20, 12, brought.tolist()]],
            colour_tolerance=1,
        ),
    )
    middle16 = tuple(value * 257 for value in middle)
    brought16 = from_adobe(middle16, 65535)
    yield (
        png16(np.full((24, 40, 3), middle16, np.uint16), iCCP=iccp(rgb_profile())),
        case(
            "ICC profile, 16 bits",
            "icc16.png",
            "PNG",
            "RGB",
            gray=[[20, 12, luma(brought16)]],
            tolerance=20,
            gray_mode="I;16",
        ),
    )
