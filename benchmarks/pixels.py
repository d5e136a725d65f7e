"""Other ways to make the same pixels: time, quality and bytes of each beside imgflow's.

`python -m benchmarks.pixels [GROUP…]` prints the tables; `make bench` shows the first. The
photographs come from `IMGFLOW_TEST_CORPUS` or else from the scikit-image wheel. Ways that need a
package that is not installed (opencv-python-headless, pyvips with pyvips-binary, imagecodecs,
simplejpeg) are skipped by name; imgflow requires none of these.

All ways of a group run in turn on each photograph, in one process, so that other load affects them
all. A way's time is the median over photographs of the ratio of its best time.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage.metrics import structural_similarity

from benchmarks.pictures import NAMES
from benchmarks.table import Measure
from imgflow.images.formats.decoding import Limits
from imgflow.images.outputs import process_photo
from imgflow.images.photo import fit
from imgflow.images.photo_recipe import PhotoRecipe

BOX = (256, 256)
QUALITY = 85
THUMBNAIL_QUALITY = 95
PHOTOS = 6
ROUNDS = 5
Outputs = dict[str, bytes]


@dataclass
class Sample:
    """A photograph: the file, its pixels, and the wanted results."""

    data: bytes
    pixels: Image.Image
    small: tuple[int, int]
    thumbnail: np.ndarray
    luma: np.ndarray


@dataclass
class Way:
    """One way to make outputs, with its times, sizes and likeness (SSIM) to the wanted pixels."""

    name: str
    work: Callable[[Sample], Outputs]
    times: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    likeness: list[float] = field(default_factory=list)


def photographs() -> list[bytes]:
    """Return JPEGs of 1.6 to 3.4 megapixels, like those of cameras."""
    corpus = Path(os.environ.get("IMGFLOW_TEST_CORPUS", "../shared/fixtures")) / "photos"
    files = sorted(corpus.glob("clic-*.jpg"))[:PHOTOS]
    if files:
        return [file.read_bytes() for file in files]
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is not installed")
    found = []
    for name in NAMES:
        with Image.open(Path(spec.origin).parent / "data" / name) as image:
            found.append(saved(image.convert("RGB").resize((2048, 1536)), "JPEG", quality=88))
    return found


def sample(data: bytes) -> Sample:
    pixels = Image.open(io.BytesIO(data)).convert("RGB")
    small = fit(pixels.size, BOX)
    thumbnail = np.asarray(pixels.resize(small, Image.Resampling.LANCZOS))
    return Sample(data, pixels, small, thumbnail, np.asarray(pixels.convert("L")))


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format_name, **options)
    return out.getvalue()


@cache
def package(name: str) -> Any:
    """Return an optional package, or None if it is not installed."""
    try:
        return import_module(name)
    except (ImportError, OSError):
        return None


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def thumbnail(image: Image.Image, size: tuple[int, int], **options: Any) -> bytes:
    options = {"resample": Image.Resampling.LANCZOS, "reducing_gap": 2.0, **options}
    small = image.resize(size, **options)
    return saved(small, "JPEG", quality=THUMBNAIL_QUALITY, subsampling=0)


def both_outputs() -> Iterator[Way]:
    """Yield ways from a JPEG to its grayscale and its thumbnail, from bytes to bytes."""
    recipe, limits = PhotoRecipe(), Limits()

    def ours(photo: Sample) -> Outputs:
        made = process_photo(photo.data, recipe, limits, ("grayscale", "thumbnail")).outputs
        return {name: output.data for name, output in made.items()}

    def twice(photo: Sample) -> Outputs:
        gray = saved(opened(photo.data).convert("L"), "JPEG", quality=QUALITY)
        image = opened(photo.data)
        image.draft("RGB", (2 * photo.small[0], 2 * photo.small[1]))
        return {"grayscale": gray, "thumbnail": thumbnail(image, photo.small)}

    def stored_luma(photo: Sample) -> Outputs:
        gray, image = opened(photo.data), opened(photo.data)
        gray.draft("L", gray.size)
        image.draft("RGB", (2 * photo.small[0], 2 * photo.small[1]))
        return {
            "grayscale": saved(gray, "JPEG", quality=QUALITY),
            "thumbnail": thumbnail(image, photo.small),
        }

    yield Way("imgflow: one decode, reduced", ours)
    yield Way("Pillow: second decode with draft", twice)
    yield Way("Pillow: stored Y, and draft", stored_luma)
    if cv2 := package("cv2"):

        def opencv(photo: Sample) -> Outputs:
            cv2.setNumThreads(1)
            image = cv2.imdecode(np.frombuffer(photo.data, np.uint8), cv2.IMREAD_COLOR)
            quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
            best = [
                *(cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY),
                *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
            ]
            small = cv2.resize(image, photo.small, interpolation=cv2.INTER_AREA)
            return {
                "grayscale": cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), quality)[
                    1
                ].tobytes(),
                "thumbnail": cv2.imencode(".jpg", small, best)[1].tobytes(),
            }

        yield Way("OpenCV: INTER_AREA", opencv)
    if pyvips := package("pyvips"):
        os.environ.setdefault("VIPS_CONCURRENCY", "1")

        def vips(photo: Sample) -> Outputs:
            image = pyvips.Image.new_from_buffer(photo.data, "")
            small = pyvips.Image.thumbnail_buffer(photo.data, photo.small[0])
            return {
                "grayscale": image.colourspace("b-w").jpegsave_buffer(Q=QUALITY),
                "thumbnail": small.jpegsave_buffer(Q=THUMBNAIL_QUALITY),
            }

        yield Way("libvips: thumbnail (shrink on load)", vips)
    if simplejpeg := package("simplejpeg"):

        def turbo(photo: Sample) -> Outputs:
            image = Image.fromarray(simplejpeg.decode_jpeg(photo.data))
            gray = np.asarray(image.convert("L"))[..., None]
            return {
                "grayscale": simplejpeg.encode_jpeg(
                    np.ascontiguousarray(gray), QUALITY, "GRAY", "Gray"
                ),
                "thumbnail": thumbnail(image, photo.small),
            }

        yield Way("simplejpeg (libjpeg-turbo), Pillow's resize", turbo)


def resizing() -> Iterator[Way]:
    """Yield ways from the decoded photograph to the thumbnail's pixels."""

    def way(name: str, **options: Any) -> Way:
        def work(photo: Sample) -> Outputs:
            return {"thumbnail": photo.pixels.resize(photo.small, **options).tobytes()}

        return Way(name, work)

    lanczos = Image.Resampling.LANCZOS
    yield way("Lanczos, reducing_gap 2 (imgflow)", resample=lanczos, reducing_gap=2.0)
    yield way("Lanczos, whole (the reference)", resample=lanczos)
    for gap in (1.1, 1.5, 3.0):
        yield way(f"Lanczos, reducing_gap {gap}", resample=lanczos, reducing_gap=gap)
    yield way("bicubic, reducing_gap 2", resample=Image.Resampling.BICUBIC, reducing_gap=2.0)
    yield way("Hamming, reducing_gap 2", resample=Image.Resampling.HAMMING, reducing_gap=2.0)
    yield way("box", resample=Image.Resampling.BOX)
    if cv2 := package("cv2"):
        for name in ("INTER_AREA", "INTER_LANCZOS4"):
            yield Way(f"OpenCV, {name}", _opencv_resize(cv2, name))


def _opencv_resize(cv2: Any, name: str) -> Callable[[Sample], Outputs]:
    def work(photo: Sample) -> Outputs:
        cv2.setNumThreads(1)
        small = cv2.resize(np.asarray(photo.pixels), photo.small, interpolation=getattr(cv2, name))
        return {"thumbnail": small.tobytes()}

    return work


def thumbnail_files() -> Iterator[Way]:
    """Yield ways from the thumbnail's pixels to its file."""

    def way(name: str, format_name: str, **options: Any) -> Way:
        def work(photo: Sample) -> Outputs:
            return {"thumbnail": saved(Image.fromarray(photo.thumbnail), format_name, **options)}

        return Way(name, work)

    best = {"quality": THUMBNAIL_QUALITY, "subsampling": 0}
    yield way("JPEG 95, 4:4:4 (imgflow)", "JPEG", **best)
    yield way("JPEG 95, 4:4:4, optimized", "JPEG", **best, optimize=True)
    yield way("JPEG 95, 4:4:4, progressive", "JPEG", **best, progressive=True)
    yield way("JPEG 95, 4:2:0", "JPEG", quality=95)
    yield way("JPEG 90, 4:4:4", "JPEG", quality=90, subsampling=0)
    yield way("JPEG 85, 4:2:0", "JPEG", quality=85)
    for quality, method in ((80, 4), (95, 0), (95, 4)):
        yield way(f"WebP {quality}, method {method}", "WEBP", quality=quality, method=method)
    for quality, speed in ((70, 10), (90, 10), (90, 6)):
        name = f"AVIF {quality}, speed {speed}"
        yield way(name, "AVIF", quality=quality, speed=speed, max_threads=1)
    yield way("PNG, level 1", "PNG", compress_level=1)


def grayscale_files() -> Iterator[Way]:
    """Yield ways from the grayscale's pixels to its file: a JPEG, as for photographs."""

    def way(name: str, **options: Any) -> Way:
        def work(photo: Sample) -> Outputs:
            return {"grayscale": saved(Image.fromarray(photo.luma), "JPEG", **options)}

        return Way(name, work)

    yield way("JPEG 85 (imgflow)", quality=QUALITY)
    yield way("JPEG 85, optimized", quality=QUALITY, optimize=True)
    yield way("JPEG 85, progressive", quality=QUALITY, progressive=True)
    yield way("JPEG 75", quality=75)


def pngs() -> Iterator[Way]:
    """Yield ways from the grayscale's pixels to a PNG, as for lossless uploads."""

    def way(name: str, **options: Any) -> Way:
        def work(photo: Sample) -> Outputs:
            return {"grayscale": saved(Image.fromarray(photo.luma), "PNG", **options)}

        return Way(name, work)

    yield way("level 1, Z_RLE (imgflow, photographs)", compress_level=1, compress_type=3)
    yield way("level 1 (imgflow, drawings)", compress_level=1)
    for level in (0, 3, 4, 6):
        yield way(f"level {level}", compress_level=level)
    yield way("level 1, Z_FILTERED", compress_level=1, compress_type=1)
    if cv2 := package("cv2"):
        options = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        yield Way(
            "OpenCV, level 1",
            lambda photo: {"grayscale": cv2.imencode(".png", photo.luma, options)[1].tobytes()},
        )
    if imagecodecs := package("imagecodecs"):
        yield Way(
            "imagecodecs (libpng), level 1",
            lambda photo: {"grayscale": imagecodecs.png_encode(photo.luma, level=1)},
        )


def wide_decoding() -> Iterator[Way]:
    """Yield ways from a 16-bit colour PNG to its 16-bit luma, as pixels."""
    from imgflow.images import wide
    from imgflow_tests.images.wide_pictures import png16

    files: dict[int, bytes] = {}

    def file(photo: Sample) -> bytes:
        if id(photo) not in files:
            noise = np.random.default_rng(1).integers(0, 256, photo.thumbnail.shape)
            files[id(photo)] = png16(
                photo.thumbnail.astype(np.uint16) << 8 | noise.astype(np.uint16)
            )
        return files[id(photo)]

    def luma(pixels: np.ndarray) -> Outputs:
        red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
        made = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
        return {"wide": made.astype(np.uint16).tobytes()}

    def ours(photo: Sample) -> Outputs:
        high, low = opened(file(photo)), opened(file(photo))
        high.load()
        gray, _ = wide.luma_of_colour(high, wide.low_bytes(low), None, b"")
        return {"wide": gray.tobytes()}

    yield Way("Pillow, both bytes (imgflow)", ours)
    if cv2 := package("cv2"):
        yield Way(
            "OpenCV",
            lambda photo: luma(
                cv2.imdecode(np.frombuffer(file(photo), np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]
            ),
        )
    if imagecodecs := package("imagecodecs"):
        yield Way("imagecodecs (libpng)", lambda photo: luma(imagecodecs.png_decode(file(photo))))


GROUPS: Mapping[str, Callable[[], Iterator[Way]]] = {
    "outputs": both_outputs,
    "resizing": resizing,
    "thumbnail-files": thumbnail_files,
    "grayscale-files": grayscale_files,
    "png": pngs,
    "wide": wide_decoding,
}


def likeness(photo: Sample, name: str, made: bytes) -> float:
    """Return the SSIM of the luma and the reference at equal size; 1 if it is not compared."""
    if name == "wide":
        return 1.0
    reference = photo.thumbnail if name == "thumbnail" else photo.luma
    if len(made) == reference.size and made[:2] not in (b"\xff\xd8", b"\x89P"):
        pixels = np.frombuffer(made, np.uint8).reshape(reference.shape)
    else:
        pixels = np.asarray(opened(made).convert("RGB" if reference.ndim > 2 else "L"))
    if pixels.shape != reference.shape:
        return float("nan")
    lumas = (np.asarray(Image.fromarray(part).convert("L")) for part in (reference, pixels))
    return float(structural_similarity(*lumas))


def run(group: str, rounds: int = ROUNDS) -> list[Way]:
    """Time all ways of a group in turn, and rate what they make."""
    ways = list(GROUPS[group]())
    for data in photographs():
        photo = sample(data)
        best = dict.fromkeys(range(len(ways)), float("inf"))
        for number in range(rounds):
            for index, way in enumerate(ways):
                began = time.perf_counter()
                made = way.work(photo)
                best[index] = min(best[index], time.perf_counter() - began)
                if number == 0:
                    way.sizes.append(sum(len(body) for body in made.values()))
                    way.likeness.append(
                        min(likeness(photo, name, body) for name, body in made.items())
                    )
        for index, way in enumerate(ways):
            way.times.append(best[index])
    return ways


def ratio(ways: list[Way], way: Way) -> float:
    """Return a way's time as a share of the first way's."""
    return median(one / first for one, first in zip(way.times, ways[0].times, strict=True))


def show_group(group: str) -> None:
    ways = run(group)
    table = Table("way", "time", "ms", "bytes", "least SSIM", "mean SSIM", title=group)
    for way in ways:
        size = sum(way.sizes) / sum(ways[0].sizes)
        table.add_row(
            way.name,
            f"{ratio(ways, way):.2f}",
            f"{median(way.times) * 1000:.1f}",
            f"{size:.2f}",
            f"{min(way.likeness):.4f}",
            f"{np.mean(way.likeness):.4f}",
        )
    Console(width=110).print(table)


def measure() -> list[Measure]:
    """Measure both outputs of a JPEG beside a plain Pillow loop with two decodes."""
    ways = run("outputs")
    ours, plain = ways[0], ways[1]
    return [
        Measure(
            "grayscale and thumbnail of a JPEG of 2.5 megapixels, ms",
            median(ours.times) * 1000,
            "Pillow, a second decode with draft",
            median(plain.times) * 1000,
            ratio(ways, plain),
            ">= 1",
        )
    ]


if __name__ == "__main__":
    optional = ("cv2", "pyvips", "imagecodecs", "simplejpeg")
    if missing := [name for name in optional if package(name) is None]:
        print(f"Skipped, since they are not installed: {', '.join(missing)}.")
    for name in sys.argv[1:] or GROUPS:
        show_group(name)
