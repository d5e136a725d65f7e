"""`imgflow doctor --selftest`: processes the golden set with this installation.

Pillow, its codecs and the fonts differ between machines; their results here are compared with
values that were computed from the standards (`imgflow/doctor/golden`). It needs and touches no
settings, store or database.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from PIL import Image

from imgflow.doctor.findings import Finding, notice, ok, wrong
from imgflow.errors import ImgflowError, Rejected
from imgflow.images.encoding import Encoded
from imgflow.images.formats.decoding import Limits
from imgflow.images.formats.pillow import MEDIA_TYPES, OPTIONAL_DECODERS, load_decoder
from imgflow.images.formats.sniffing import public_name
from imgflow.images.outputs import ProcessedPhoto, process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.images.wide import as_bytes

if TYPE_CHECKING:
    import numpy as np

OUTPUTS = ("grayscale", "thumbnail", "proof")
RECIPE = PhotoRecipe(
    thumbnail_size=(96, 96),
    thumbnail_format="png",
    grayscale_format="png",
    watermark_text="© imgflow 写真",
)
LEAST_SSIM = 0.98
_VISIBLE_LEVELS = 40
_LEAST_SHARE, _MOST_SHARE = 0.02, 0.5  # shares of pixels that a watermark changes
_SECONDS = 120

Case = Mapping[str, Any]


def selftest() -> Iterator[Finding]:
    """Run every case, and compare the set's outputs with those of another process."""
    for case in cases():
        yield _examined(case)
    yield _deterministic()


def cases() -> list[Case]:
    """Return the golden set, in the order of the report."""
    found: list[Case] = json.loads(_data("cases.json"))
    return found


def _data(name: str) -> bytes:
    return files("imgflow.doctor.golden").joinpath(name).read_bytes()


def _examined(case: Case) -> Finding:  # noqa: PLR0911 - a table of cases
    part = case["name"]
    missing = _missing_decoder(case)
    if missing:
        return notice(
            part, f"not looked at: {missing} needs pip install 'imgflow[{missing.lower()}]'"
        )
    try:
        done = process_photo(_data(case["file"]), RECIPE, Limits(), OUTPUTS)
    except Rejected as rejection:
        if rejection.code == case.get("rejected"):
            return ok(part, f"rejected as {rejection.code}")
        return wrong(part, f"it was rejected: {rejection}")
    except ImgflowError as error:
        return wrong(part, str(error))
    except Exception as error:  # any difference on this machine is worth reporting
        return wrong(part, f"it raised {type(error).__name__}: {error}")
    if "rejected" in case:
        return wrong(part, f"it was accepted, and has to be rejected as {case['rejected']}")
    differences = list(_differences(case, done))
    if differences:
        return wrong(part, "; ".join(differences))
    return ok(part, _told(case))


def _missing_decoder(case: Case) -> str:
    name = str(case.get("facts", {}).get("format", ""))
    if name in OPTIONAL_DECODERS and not load_decoder(name):
        return public_name(name)
    return ""


def _told(case: Case) -> str:
    looked = [name for name in ("gray", "colours", "alpha", "similar_to") if name in case]
    words = {
        "gray": "luma",
        "colours": "colours",
        "alpha": "alpha",
        "similar_to": f"SSIM of at least {LEAST_SSIM}",
    }
    told = [words[name] for name in looked] + ["watermark"] * bool(case.get("watermark"))
    return ", ".join(told) or "facts"


def _differences(case: Case, done: ProcessedPhoto) -> Iterator[str]:
    for name, wanted in case["facts"].items():
        found = getattr(done.facts, name)
        if found != wanted:
            yield f"{name} is {found!r} instead of {wanted!r}"
    gray, thumbnail = done.outputs["grayscale"], done.outputs["thumbnail"]
    if "gray_mode" in case and gray.mode != case["gray_mode"]:
        yield f"grayscale has mode {gray.mode} instead of {case['gray_mode']}"
        return
    levels = _pixels(gray)
    luma, alpha = (levels[..., 0], levels[..., 1]) if levels.ndim > 2 else (levels, None)  # noqa: PLR2004 - channels
    yield from _points("luma", luma, case.get("gray", ()), case.get("tolerance", 0))
    if "alpha" in case:
        if alpha is None:
            yield "the alpha is gone"
        else:
            yield from _points("alpha", alpha, case["alpha"], case.get("alpha_tolerance", 0))
    colours = _pixels(thumbnail)
    yield from _points("colour", colours, case.get("colours", ()), case.get("colour_tolerance", 0))
    if "similar_to" in case:
        yield from _unlike(colours, _data(case["similar_to"]))
    if case.get("watermark"):
        yield from _unmarked(done.outputs["proof"], case["watermark"])


def _pixels(output: Encoded) -> np.ndarray[Any, Any]:
    import numpy as np

    if output.mode == "LA;16":
        with Image.open(io.BytesIO(as_bytes(output.data))) as image:
            return np.asarray(image).view(">u2")
    with Image.open(io.BytesIO(output.data)) as image:
        return np.asarray(image)


def _points(what: str, pixels: Any, wanted: Any, tolerance: int) -> Iterator[str]:
    """Yield the differences at single pixels, given as x, y and value."""
    import numpy as np

    for x, y, value in wanted:
        if not (y < pixels.shape[0] and x < pixels.shape[1]):
            yield f"{what}: there is no pixel at {x}, {y}"
            continue
        found = pixels[y, x].tolist()
        if (
            np.shape(found) != np.shape(value)
            or np.abs(np.subtract(found, value)).max() > tolerance
        ):
            yield f"{what} at {x}, {y} is {found} instead of {value} (± {tolerance})"


def _unlike(thumbnail: np.ndarray[Any, Any], reference: bytes) -> Iterator[str]:
    import numpy as np
    from skimage.metrics import structural_similarity

    with Image.open(io.BytesIO(reference)) as image:
        wanted = np.asarray(image)
    if wanted.shape != thumbnail.shape:
        yield f"the thumbnail is {thumbnail.shape[1]} x {thumbnail.shape[0]} pixels"
        return
    found = float(structural_similarity(wanted, thumbnail, channel_axis=-1))  # type: ignore[no-untyped-call]  # scikit-image has no types
    if found < LEAST_SSIM:
        yield f"the thumbnail's SSIM is {found:.3f} instead of at least {LEAST_SSIM}"


def _unmarked(proof: Encoded, level: int) -> Iterator[str]:
    """Yield a difference if a ninth of a plain picture has too little or too much watermark."""
    import numpy as np

    changed = np.abs(_pixels(proof)[..., :3].astype(int) - level).max(axis=-1) > _VISIBLE_LEVELS
    for rows in np.array_split(changed, 3):
        for ninth in np.array_split(rows, 3, axis=1):
            if not _LEAST_SHARE < ninth.mean() < _MOST_SHARE:
                yield f"the watermark covers {ninth.mean():.0%} of a part of the proof"
                return


def _deterministic() -> Finding:
    part = "the same bytes in another process"
    here = digests()
    done = subprocess.run(
        [sys.executable, "-m", "imgflow.doctor.selftest"],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        return wrong(part, f"it ended with {done.returncode}: {done.stderr.strip()[-200:]}")
    there: dict[str, str] = json.loads(done.stdout)
    differing = sorted(name for name in here if here[name] != there.get(name))
    if differing:
        return wrong(part, f"{', '.join(differing)} differ from one process to another")
    return ok(part, f"{len(here)} outputs")


def digests() -> dict[str, str]:
    """Return the SHA-256 of every output of the set, by file and output."""
    found = {}
    for case in cases():
        if "rejected" in case or _missing_decoder(case):
            continue
        try:
            done = process_photo(_data(case["file"]), RECIPE, Limits(), OUTPUTS)
        except ImgflowError as error:
            found[case["file"]] = str(error)
            continue
        for name, output in done.outputs.items():
            found[f"{case['file']}: {name}"] = hashlib.sha256(output.data).hexdigest()
    return found


def covered() -> set[str]:
    """Return the formats of which the set has a picture."""
    return {case["facts"]["format"] for case in cases() if "facts" in case} & set(MEDIA_TYPES)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(digests()))
