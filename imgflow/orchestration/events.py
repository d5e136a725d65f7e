"""Rows to materialisations: which assets an image has made, with which version and metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.rows import Image
from imgflow.orchestration.batch import Finished
from imgflow.orchestration.families import METADATA_VERSION, Family
from imgflow.orchestration.image_events import ImageEvent
from imgflow.store.objects import SourceObject

ARRAY_FACTS = (
    *("columns", "depth_min", "depth_max", "value_min", "value_max", "step_median"),
    *("gaps", "largest_step", "duplicates", "was_sorted", "empty_rows_dropped", "first_lines"),
    *("missing_pixels", "rows_with_missing"),
)


def finished_events(
    family: Family, selected: Iterable[str], finished: Iterable[Finished]
) -> Iterator[ImageEvent]:
    """Events of images that were processed: of what was selected and of all that was made.

    An upload that is new brings an event of the source asset too.
    """
    selected = set(selected)
    for done in finished:
        verdict = done.outcome.verdict
        if verdict is None or verdict.state != "ready":
            continue
        identity = verdict.upload.identity
        if done.image.processed != identity or done.image.unreported:
            yield _source_event(family, verdict.upload, verdict.sha256, verdict.media_type)
        yield from _image_events(
            family,
            done.image.key,
            identity,
            outputs=verdict.outputs,
            row={
                "width": verdict.width,
                "height": verdict.height,
                "mode": verdict.mode,
                "sha256": verdict.sha256,
            },
            names=selected | set(done.outcome.made) | _unsaid(done.image) | {"metadata"},
            made=set(done.outcome.made) | {"metadata"},
            image_id=done.image.id,
            times=done.outcome.milliseconds,
        )


def unchanged_events(
    family: Family, selected: Iterable[str], images: Iterable[Image]
) -> Iterator[ImageEvent]:
    """Events that say `noop`, of images on which nothing had to be done.

    Dagster may not know of the uploads of those that a run left behind when it died.
    """
    names = set(selected)
    for image in images:
        if image.unreported:
            yield _source_event(family, image.newest_upload, image.sha256, image.media_type)
        yield from _image_events(
            family,
            image.key,
            image.announced,
            outputs=image.outputs,
            row={
                "width": image.width,
                "height": image.height,
                "mode": image.mode,
                "sha256": image.sha256,
            },
            names=names | _unsaid(image),
            made=set(),
            image_id=image.id,
            times={},
        )


def _unsaid(image: Image) -> set[str]:
    """Names of events that may be missing, whatever is selected in this run."""
    return {*image.outputs, "metadata"} if image.unreported else set()


def _source_event(
    family: Family, upload: SourceObject, sha256: str | None, media_type: str | None
) -> ImageEvent:
    return ImageEvent(
        family.source,
        partition_key(upload.key),
        data_version=upload.identity,
        metadata={
            "bytes": upload.size,
            "sha256": sha256 or "",
            "media_type": media_type or "",
        },
    )


def _image_events(
    family: Family,
    key: str,
    identity: str,
    *,
    outputs: Mapping[str, Mapping[str, Any]],
    row: Mapping[str, Any],
    names: set[str],
    made: set[str],
    image_id: int,
    times: Mapping[str, float],
) -> Iterator[ImageEvent]:
    partition = partition_key(key)
    versions = {name: str(record["sha256"])[:32] for name, record in outputs.items()}
    for name, record in outputs.items():
        if name in names:
            yield ImageEvent(
                family.output(name),
                partition,
                data_version=versions[name],
                code_version=record["fingerprint"],
                inputs={family.source: identity},
                metadata={
                    **_picture(record),
                    **record.get("metadata", {}),
                    "width": record["width"],
                    "height": record["height"],
                    "bytes": record["size"],
                    "object": record["name"],
                    "noop": name not in made,
                    **_array_facts(record),
                    **{f"{step} ms": value for step, value in times.items() if name in made},
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
                "id": image_id,
                **{name: value for name, value in row.items() if value is not None},
                "noop": "metadata" not in made,
            },
        )


def _picture(record: Mapping[str, Any]) -> dict[str, Any]:
    """A small copy of an output where its record has one, as the UI shows pictures."""
    if "picture" not in record:
        return {}
    return {"picture": dg.MetadataValue.md(f"![{record['name']}]({record['picture']})")}


def _array_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a depth array and of how regular its file was; nothing of pictures."""
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
    """The last parts of asset keys: names of outputs, and `metadata`."""
    return frozenset(key.path[-1] for key in selected)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
