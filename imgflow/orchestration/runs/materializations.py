"""From rows to materialisations: which assets an image has, with which versions and metadata.

They are reported by `image_events` and stored by `dagster_storage.event_log`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import dagster as dg

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.records import Image
from imgflow.observability.trace_records import trace_id
from imgflow.orchestration.dagster_storage.event_log import ImageEvent
from imgflow.orchestration.dagster_storage.event_rows import Markdown, Url
from imgflow.orchestration.families import METADATA_VERSION, Family
from imgflow.store.objects import SourceObject
from imgflow.work.tasks import Finished

ARRAY_FACTS = (
    *("columns", "depth_min", "depth_max", "value_min", "value_max", "step_median"),
    *("gaps", "largest_step", "duplicates", "was_sorted", "empty_rows_dropped", "first_lines"),
    *("missing_pixels", "rows_with_missing"),
)


def finished_events(
    family: Family, selected: Iterable[str], finished: Iterable[Finished]
) -> Iterator[ImageEvent]:
    """Events of processed images, for the selected assets and for everything that was made.

    A new upload also gets an event of the source asset.
    """
    selected = set(selected)
    for done in finished:
        verdict = done.outcome.verdict
        if verdict is None or verdict.state != "ready":
            continue
        pictures = done.outcome.pictures
        if done.image.processed != verdict.upload.identity or done.image.unreported:
            yield _source_event(
                family,
                done.image.id,
                verdict.upload,
                verdict.sha256,
                verdict.media_type,
                picture=_markdown(family, done.image.id, pictures.get("metadata", ""), "source"),
            )
        yield from _image_events(
            family,
            _Shown(
                upload=verdict.upload,
                image_id=done.image.id,
                recipe=verdict.recipe or "",
                outputs=verdict.outputs,
                row={
                    "key": done.image.key,
                    "state": verdict.state,
                    "media_type": verdict.media_type,
                    "width": verdict.width,
                    "height": verdict.height,
                    "mode": verdict.mode,
                    "sha256": verdict.sha256,
                    "trace_id": trace_id(
                        done.image.source, done.image.key, verdict.upload.identity
                    ),
                },
                made={*done.outcome.made, "metadata"},
                times=done.outcome.milliseconds,
                pictures=pictures,
            ),
            names=selected | set(done.outcome.made) | _unsaid(done.image) | {"metadata"},
        )


def unchanged_events(
    family: Family, selected: Iterable[str], images: Iterable[Image]
) -> Iterator[ImageEvent]:
    """Events marked `noop`, for images that needed nothing.

    Unreported images also get an event of the source asset: the run that processed them died, so
    Dagster may not know their uploads.
    """
    names = set(selected)
    for image in images:
        if image.unreported:
            yield _source_event(
                family, image.id, image.newest_upload, image.sha256, image.media_type
            )
        yield from _image_events(
            family,
            _Shown(
                upload=image.newest_upload,
                image_id=image.id,
                recipe=image.recipe or "",
                outputs=image.outputs,
                row={
                    "key": image.key,
                    "state": image.state,
                    "media_type": image.media_type,
                    "width": image.width,
                    "height": image.height,
                    "mode": image.mode,
                    "sha256": image.sha256,
                    "trace_id": image.trace_id,
                },
            ),
            names=names | _unsaid(image),
        )


def _unsaid(image: Image) -> set[str]:
    """Names of assets whose events may be missing, whatever is selected in this run."""
    return {*image.outputs, "metadata"} if image.unreported else set()


@dataclass(frozen=True)
class _Shown:
    """What the events of one image are made from.

    Attributes:
        row: Columns that the event of the metadata asset shows.
        made: Names of the assets made in this run; events of the others are no-ops.
        times: Milliseconds by step.
        pictures: Small copies of what was made as data URIs, by output.
    """

    upload: SourceObject
    image_id: int
    recipe: str
    outputs: Mapping[str, Mapping[str, Any]]
    row: Mapping[str, Any]
    made: set[str] = field(default_factory=set)
    times: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


def _source_event(
    family: Family,
    image_id: int,
    upload: SourceObject,
    sha256: str | None,
    media_type: str | None,
    *,
    picture: Mapping[str, Any] = MappingProxyType({}),
) -> ImageEvent:
    return ImageEvent(
        family.source,
        partition_key(upload.key),
        data_version=upload.identity,
        metadata={
            **picture,
            "bytes": upload.size,
            "sha256": sha256 or "",
            "media_type": media_type or "",
            "gallery": Url(family.links.gallery(image_id)),
        },
    )


def _image_events(family: Family, shown: _Shown, names: set[str]) -> Iterator[ImageEvent]:
    partition = partition_key(shown.upload.key)
    identity = shown.upload.identity
    versions = {name: str(record["sha256"])[:32] for name, record in shown.outputs.items()}
    times = {f"{step} ms": value for step, value in shown.times.items()}
    links = _links(family, shown.image_id)
    for name, record in shown.outputs.items():
        if name in names:
            yield ImageEvent(
                family.output(name),
                partition,
                data_version=versions[name],
                code_version=record["fingerprint"],
                inputs={family.source: identity},
                metadata={
                    **_picture(family, shown, name),
                    **record.get("metadata", {}),
                    "width": record["width"],
                    "height": record["height"],
                    **_sizes(shown, record["size"]),
                    "object": record["name"],
                    "upload": identity,
                    "recipe": record["fingerprint"],
                    "noop": name not in shown.made,
                    **_array_facts(record),
                    **(times if name in shown.made else {}),
                    **links,
                },
            )
    if "metadata" in names:
        yield ImageEvent(
            family.metadata,
            partition,
            data_version=_digest(identity, *sorted(versions.values())),
            code_version=METADATA_VERSION,
            inputs={
                family.source: identity,
                **{family.output(name): version for name, version in versions.items()},
            },
            metadata={
                **_picture(family, shown, "metadata"),
                "id": shown.image_id,
                **{name: value for name, value in shown.row.items() if value is not None},
                **_sizes(shown, sum(record["size"] for record in shown.outputs.values())),
                "upload": identity,
                "recipe": shown.recipe,
                "noop": "metadata" not in shown.made,
                **links,
            },
        )


def _picture(family: Family, shown: _Shown, name: str) -> dict[str, Any]:
    """A small picture in Markdown that links to the image's page in the gallery.

    Small copies exist only for what this run made, and most rows do not keep them. Otherwise the
    picture is a link to the API, which shows only where the API can be reached.
    """
    inline = shown.pictures.get(name) or shown.outputs.get(name, {}).get("picture")
    if inline:
        address = inline
    elif picture := _picture_of(shown.outputs, name):
        address = family.links.picture(shown.image_id, picture)
    else:
        return {}
    return _markdown(family, shown.image_id, address, name)


def _markdown(family: Family, image_id: int, address: str, name: str) -> dict[str, Any]:
    """A picture that links to the image's page; empty if the picture has no address."""
    page = family.links.gallery(image_id)
    return {"picture": Markdown(f"[![{name}]({address})]({page})")} if address else {}


def _picture_of(outputs: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """The output that pictures an asset: its own, or else thumbnail or preview."""
    for candidate in (name, "thumbnail", "preview"):
        if str(outputs.get(candidate, {}).get("media_type", "")).startswith("image/"):
            return candidate
    return None


def _sizes(shown: _Shown, size: int) -> dict[str, Any]:
    """Bytes of the output and of the upload, and their ratio."""
    read = shown.upload.size
    return {"bytes": size, "upload bytes": read, "ratio": round(size / read, 4) if read else 0.0}


def _links(family: Family, image_id: int) -> dict[str, Any]:
    return {
        "gallery": Url(family.links.gallery(image_id)),
        "API": Url(family.links.api(image_id)),
    }


def _array_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Facts about a depth array and how regular its file was; empty for pictures."""
    facts = record.get("facts")
    if facts is None:
        return {}
    return {
        "shape": f"{record['height']} x {record['width']}",
        "dtype": "float32",
        **{name: facts[name] for name in ARRAY_FACTS if name in facts},
        "missing_lines": list(facts.get("missing_lines", ())),
        "notes": "\n".join(facts["notes"]),
    }


def selected_names(selected: Iterable[dg.AssetKey]) -> frozenset[str]:
    """The last parts of asset keys: names of outputs, or `metadata`."""
    return frozenset(key.path[-1] for key in selected)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
