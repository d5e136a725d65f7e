"""Commands about images in the catalogue: status, show, frame, retry, backfill, delete.

Uploading is in `upload_commands`; processing, with `imgflow ingest`, in `service_commands`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from imgflow.cli.common import (
    AsJson,
    answer,
    find_image,
    open_catalog,
    put,
    say,
)
from imgflow.errors import SettingsError, Trouble

if TYPE_CHECKING:
    from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
    from imgflow.catalog.records import Image
    from imgflow.orchestration.dagster_storage.history import Event
    from imgflow.settings.variables import Settings


def status(as_json: AsJson = False) -> None:
    """Count images by kind and state, and say how long the oldest has waited."""
    with open_catalog() as (settings, catalog):
        from imgflow.catalog.postgres.sensing import sensor_names
        from imgflow.status import read_status

        found = read_status(catalog, sensor_names(settings))
    if as_json:
        print(json.dumps(found.as_json()))
        return
    table = Table("kind", "ready", "pending", "rejected", "deleted")
    for kind in ("photo", "depth"):
        states = ("ready", "pending", "rejected", "deleted")
        table.add_row(kind, *(str(found.number(kind, state)) for state in states))
    put(f"Source {found.source}")
    answer.print(table)
    if found.backlog_seconds is not None:
        put(f"The oldest pending image has waited {found.backlog_seconds:.0f} s.")
    for line in found.failing_lines():
        put(line)
    if found.retry_seconds is not None:
        put(f"The first of these is tried again in {found.retry_seconds:.0f} s.")
    for line in found.pulse_lines():
        put(line)
    if found.reasons:
        counted = ", ".join(f"{count} {code}" for code, count in found.reasons.items())
        put(f"Rejected or kept waiting: {counted}; `imgflow show KEY` says why.")
    if found.unreadable:
        put(
            f"Messages of the queue that could not be read: {found.unreadable}; the newest: "
            f"{found.newest_unreadable}. They are in the table unreadable_messages."
        )


def show(
    key: Annotated[str, typer.Argument(help="Object key below the source's prefix, or an id.")],
    as_json: AsJson = False,
) -> None:
    """Show one image: its row, outputs, history, and why it was rejected."""
    with open_catalog() as (settings, catalog):
        from imgflow.status import describe

        image = find_image(catalog, key)
        found = describe(image)
        events = _history(settings, catalog, image)
    if as_json:
        print(json.dumps({**found, "history": [event.as_json() for event in events]}))
        return
    for name, value in found.items():
        if name not in ("outputs", "facts") and value is not None:
            put(f"{name:>12}  {value}")
    for part in ("outputs", "facts"):
        for name, value in found[part].items():
            put(f"{part:>12}  {name}: {_short(value)}")
    for event in events:
        put(f"{'history':>12}  {event.line()}")


def frame(
    key: Annotated[str, typer.Argument(help="Object key of a depth image, or its id.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    depth_min: Annotated[float | None, typer.Option(help="First depth, included.")] = None,
    depth_max: Annotated[float | None, typer.Option(help="Last depth, included.")] = None,
    colormap: Annotated[str, typer.Option(help="Name of a colour map, or JSON.")] = "",
) -> None:
    """Write the colour-mapped rows between two depths to a file: .jpg, .png, .webp or .npy."""
    with open_catalog() as (_settings, catalog):
        from imgflow.catalog.postgres.depth_arrays import DepthArrays
        from imgflow.depth.colormap_data import DEFAULT_COLORMAP
        from imgflow.depth.frames import FRAME_FORMATS, render_frame

        image = find_image(catalog, key)
        if image.kind != "depth" or image.state != "ready":
            raise Trouble(f"{image.key!r} is a {image.kind} in state {image.state}: no frames.")
        suffix = output.suffix.lower().lstrip(".").replace("jpg", "jpeg")
        formats = {name: name for name in FRAME_FORMATS}
        if suffix not in formats:
            raise SettingsError(f"{output}: the name must end in .jpg, .png, .webp or .npy.")
        rows = DepthArrays(catalog.engine).read(image.id, depth_min, depth_max)
        if not len(rows.depths):
            facts = image.facts
            raise SettingsError(
                f"{image.key!r} has no rows between these depths; it reaches from "
                f"{facts['depth_min']} to {facts['depth_max']}."
            )
        low, high = image.facts["value_range"]
        made = render_frame(rows.pixels, colormap or DEFAULT_COLORMAP, (low, high), formats[suffix])
        output.write_bytes(made.data)
    say(f"{output}: {made.width}x{made.height} pixels, {rows.depths[0]} to {rows.depths[-1]}")


def retry(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Object keys; none: all that were rejected.")
    ] = None,
) -> None:
    """Retry rejected images; the sensor or `imgflow ingest` processes them."""
    with open_catalog() as (_settings, catalog):
        images = (
            [find_image(catalog, key) for key in keys]
            if keys
            else catalog.page(limit=1_000_000, state="rejected")
        )
        catalog.reopen([image.id for image in images])
    say(f"{len(images)} images are queued again.")


def backfill(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Object keys; none: all of the selection.")
    ] = None,
    *,
    prefix: Annotated[str, typer.Option(help="Only keys that start with this.")] = "",
    kind: Annotated[str, typer.Option(help="Only photo or depth.")] = "",
    rejected: Annotated[bool, typer.Option("--rejected", help="The rejected ones too.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also what is not stale; all outputs are rebuilt.")
    ] = False,
    is_all: Annotated[
        bool, typer.Option("--all", help="Confirms --force without any selection.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Queue stale images (missing an output, or built with old settings) for reprocessing.

    The sensor or `imgflow ingest` processes them, in few runs wherever they lie.
    """
    if kind not in ("", "photo", "depth"):
        raise SettingsError(f"--kind takes photo or depth, not {kind!r}.")
    if force and not (is_all or keys or prefix or kind):
        raise SettingsError("--force rebuilds every output: name keys, --prefix, --kind or --all.")
    with open_catalog() as (settings, catalog):
        from imgflow.assembly import build_families
        from imgflow.orchestration.upkeep.reconcile import Selection, backfill_stale

        found = [find_image(catalog, key).key for key in keys] if keys else None
        wanted = Selection(prefix, found, kind, rejected=rejected, force=force)
        counts = backfill_stale(build_families(settings), catalog, wanted)
    say(f"{sum(counts.values())} images are queued now.")
    if as_json:
        print(json.dumps({"pending": sum(counts.values()), **counts}))


def delete(
    keys: Annotated[list[str], typer.Argument(help="Object keys.")],
    source: Annotated[
        bool, typer.Option("--source", help="Delete the uploaded objects too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
) -> None:
    """Delete images: outputs, row (a tombstone stays) and partition.

    The uploaded object stays unless --source is given; the image comes back when it is overwritten.
    """
    with open_catalog() as (settings, catalog):
        from imgflow.catalog.lifecycle import delete_images

        stores = settings.stores
        done = delete_images(
            catalog,
            stores.open_outputs(),
            [find_image(catalog, key) for key in keys],
            source=stores.open_source() if source else None,
            dry_run=dry_run,
        )
    verb = "would be deleted" if dry_run else "deleted"
    say(f"{done.images} images, {done.outputs} outputs and {done.objects} uploads {verb}.")


def _history(settings: Settings, catalog: PostgresCatalog, image: Image) -> list[Event]:
    """Return an image's events in Dagster; empty before Dagster has a home or tables."""
    from imgflow.assembly import build_families
    from imgflow.orchestration.dagster_storage.history import history
    from imgflow.orchestration.dagster_storage.instance import has_instance, open_instance

    if not has_instance(settings, catalog.engine):
        return []
    (family,) = (family for family in build_families(settings) if family.kind == image.kind)
    with open_instance(settings, catalog.engine.url.render_as_string(False)) as instance:
        return history(instance, family, image)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:159]}…"  # noqa: PLR2004 - fits a terminal
