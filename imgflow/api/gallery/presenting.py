"""Filters of the gallery, and rows of the table `images` in the form that its templates take.

The same rows as JSON are in `imgflow.api.routes.representations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query

from imgflow.advice import advice
from imgflow.api.gallery.wording import KIND_WORDS, STATE_WORDS, parts_of, shown, size_of, time_of
from imgflow.api.http.serving import version_of
from imgflow.api.routes.pictures import OPAQUE
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image, Kind, State

# Filters, and how links carry them.


KINDS: dict[str, Kind] = {"photo": "photo", "depth": "depth"}
STATES: dict[str, State] = {"ready": "ready", "pending": "pending", "rejected": "rejected"}
LONGEST_SEARCH = 1_024


@dataclass(frozen=True)
class Filters:
    """Which images are shown; unknown values filter nothing, since people edit addresses."""

    kind: Kind | None = None
    state: State | None = None
    containing: str = ""

    def query(self, **changed: object) -> str:
        """Return these filters as the query of a link, with its `?`; empty if there are none.

        `changed` replaces `kind`, `state` and `q`, and adds any other parameters.
        """
        values = {"kind": self.kind, "state": self.state, "q": self.containing, **changed}
        text = urlencode({name: value for name, value in values.items() if value})
        return f"?{text}" if text else ""

    def browse(self, catalog: PostgresCatalog, **options: Any) -> list[Image]:
        """Return the rows that match these filters; see `PostgresCatalog.browse`."""
        return catalog.browse(
            kind=self.kind, state=self.state, containing=self.containing, **options
        )


async def _filters(
    kind: str = "",
    state: str = "",
    q: Annotated[str, Query(max_length=LONGEST_SEARCH)] = "",
) -> Filters:
    return Filters(KINDS.get(kind), STATES.get(state), q.strip())


FiltersInQuery = Annotated[Filters, Depends(_filters)]


# Media types of uploads that browsers can show.
BROWSERS_SHOW = frozenset(
    {"image/jpeg", "image/png", "image/gif", "image/webp", "image/bmp", "image/avif"}
)
# Larger pictures are only linked to.
MOST_SHOWN_BYTES = 25_000_000
TIMES = "\N{MULTIPLICATION SIGN}"
# Facts that the viewer of depth images needs at its start.
VIEWED = ("rows", "depth_min", "depth_max", "step_median", "largest_step", "duplicates")
ORDER = ("original", "grayscale", "thumbnail", "proof", "preview")


@dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Attributes:
        name: Name as in its route.
        url: Path relative to the API's root.
        is_showable: Whether browsers can show its format.
    """

    name: str
    url: str
    width: int | None
    height: int | None
    size: int
    media_type: str
    is_showable: bool

    @property
    def is_shown(self) -> bool:
        """Whether the page shows it; otherwise it only links to it."""
        return self.is_showable and self.size <= MOST_SHOWN_BYTES

    @property
    def caption(self) -> str:
        """Format, width and height, and size in bytes."""
        kind = "" if self.media_type == OPAQUE else self.media_type.partition("/")[2].upper()
        pixels = f"{self.width} {TIMES} {self.height}" if self.width and self.height else ""
        return " · ".join(part for part in (kind, pixels, size_of(self.size)) if part)


@dataclass(frozen=True)
class Card:
    """An image in the grid."""

    id: int
    href: str
    name: str
    folder: str
    kind: str
    kind_word: str
    state: str
    state_word: str
    reason: str
    advice: str
    pixels: str
    picture: Picture | None


def card_of(image: Image, filters: Filters) -> Card:
    """Make a row's card in the grid; its link keeps the filters."""
    folder, name = parts_of(image.key)
    record = image.outputs.get("thumbnail") or image.outputs.get("preview")
    return Card(
        id=image.id,
        href=f"/gallery/{image.id}{filters.query()}",
        name=name,
        folder=folder,
        kind=image.kind,
        kind_word=KIND_WORDS[image.kind],
        state=image.state,
        state_word=STATE_WORDS.get(image.state, image.state),
        reason=shown(image.reason or ""),
        advice=advice(image.reason_code) if image.reason_code else "",
        pixels=_pixels(image),
        picture=None
        if record is None
        else _output(image, "thumbnail" if image.kind == "photo" else "preview", record),
    )


def pictures_of(image: Image) -> list[Picture]:
    """Return the upload and all outputs of an image that are pictures."""
    outputs = [
        _output(image, name, record) for name, record in image.outputs.items() if name != "resized"
    ]
    found = [_original(image), *outputs]
    return sorted(found, key=lambda p: ORDER.index(p.name) if p.name in ORDER else len(ORDER))


def metadata_of(image: Image) -> Iterator[tuple[str, str]]:
    """Yield what is known about an image, as pairs of a name and a text."""
    facts = image.facts
    yield "Key", shown(image.key)
    yield "Kind", KIND_WORDS[image.kind]
    if image.kind == "photo":
        yield "Pixels", _pixels(image)
        yield "Format", " · ".join(filter(None, (str(facts.get("format", "")), image.mode)))
        if facts.get("frames", 1) != 1:
            yield "Frames", str(facts["frames"])
        if facts.get("orientation", 1) != 1:
            yield "Orientation", f"{facts['orientation']} (EXIF), shown upright"
    elif "depth_min" in facts:
        yield from _depth_facts(facts)
    yield "Media type", image.media_type or ""
    yield "Size", f"{image.announced_size:,} bytes"
    yield "SHA-256", image.sha256 or ""
    yield "Recipe", image.recipe or ""
    yield "First seen", time_of(image.created_at)
    yield "Last change", time_of(image.updated_at)
    for note in facts.get("notes") or ():
        yield "Note", shown(str(note))
    if facts.get("suffix_mismatch"):
        yield "Note", shown(str(facts["suffix_mismatch"]))


def _depth_facts(facts: Any) -> Iterator[tuple[str, str]]:
    yield "Depths", f"{_number(facts, 'depth_min', '')} to {_number(facts, 'depth_max', '')}"
    yield "Step", _number(facts, "step_median", ".6g")
    yield "Rows", _number(facts, "rows", ",")
    yield (
        "Columns",
        f"{_number(facts, 'columns', ',')}, resized to {_number(facts, 'width', '')}",
    )
    yield "Values", f"{_number(facts, 'value_min', '.9g')} to {_number(facts, 'value_max', '.9g')}"
    for name, text in (("gaps", "Gaps"), ("duplicates", "Duplicate depths")):
        if facts.get(name):
            yield text, _number(facts, name, ",")


def viewable(image: Image) -> Any | None:
    """Return the facts of a depth image if the viewer can show its rows; otherwise None."""
    facts = image.facts
    ends = facts.get("value_range") or (None, None)
    numbers = (*(facts.get(name) for name in VIEWED), *ends)
    is_known = all(isinstance(number, (int, float)) for number in numbers)
    return facts if image.kind == "depth" and "resized" in image.outputs and is_known else None


def _number(facts: Any, name: str, format_spec: str) -> str:
    """Format a number of the facts; a row may hold anything, and its page must still be shown."""
    value = facts.get(name)
    return format(value, format_spec) if isinstance(value, (int, float)) else "unknown"


def _pixels(image: Image) -> str:
    return f"{image.width} {TIMES} {image.height}" if image.width and image.height else ""


def _output(image: Image, name: str, record: Any) -> Picture:
    return Picture(
        name=name,
        url=f"/images/{image.id}/{name}?v={version_of(str(record.get('sha256')))}",
        width=record.get("width"),
        height=record.get("height"),
        size=record.get("size") or 0,
        media_type=str(record.get("media_type")),
        is_showable=record.get("media_type") in BROWSERS_SHOW,
    )


def _original(image: Image) -> Picture:
    # The row describes the content of the upload that was processed last.
    is_known = image.processed == image.announced and image.state == "ready"
    version = f"?v={version_of(image.sha256)}" if is_known and image.sha256 else ""
    media_type = (image.media_type if is_known else None) or OPAQUE
    return Picture(
        name="original",
        url=f"/images/{image.id}/original{version}",
        width=image.width if is_known and image.kind == "photo" else None,
        height=image.height if is_known and image.kind == "photo" else None,
        size=image.announced_size,
        media_type=media_type,
        is_showable=media_type in BROWSERS_SHOW,
    )
