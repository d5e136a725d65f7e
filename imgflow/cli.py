"""The command `imgflow`; each subcommand imports what it needs, so that `--help` is quick."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from imgflow.errors import ImgflowError, SettingsError, Trouble

if TYPE_CHECKING:
    from imgflow.catalog.postgres import PostgresCatalog
    from imgflow.catalog.rows import Image
    from imgflow.orchestration.history import Event
    from imgflow.settings import Settings
    from imgflow.store.opening import StoreConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Every image landing in a bucket becomes materialised Dagster assets.",
)
# Progress and errors; what a command was asked for goes to standard output.
people = Console(stderr=True, highlight=False, soft_wrap=True)
answer = Console(highlight=False, soft_wrap=True)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, last, on standard output.")
]


def main() -> NoReturn:
    """Run the command; what went wrong is one sentence, and a traceback only for our own errors."""
    try:
        app(standalone_mode=True)
    except SettingsError as error:
        people.print(f"imgflow: {error}", markup=False)
        sys.exit(2)
    except ImgflowError as error:
        people.print(f"imgflow: {error}", markup=False)
        sys.exit(1)
    sys.exit(0)


@app.command()
def up(
    samples: Annotated[
        bool, typer.Option("--samples", help="Put sample photographs and a depth CSV in.")
    ] = False,
) -> None:
    """Start the database, the Dagster UI, the daemon and the API; Ctrl-C stops them."""
    from imgflow.settings import load_settings
    from imgflow.up import up as start

    start(load_settings(), _say, with_samples=samples)


@app.command()
def migrate(
    make_buckets: Annotated[
        bool, typer.Option("--make-buckets", help="Make the S3 buckets that are missing.")
    ] = False,
) -> None:
    """Bring the tables to this version, before the services of a cluster start."""
    from imgflow.migrating import migrate as bring
    from imgflow.settings import load_settings

    bring(load_settings(), _say, make_buckets=make_buckets)


@app.command()
def ingest(as_json: AsJson = False) -> None:
    """List the source once, process what is new or changed, and exit; needs nothing else running.

    Exit code 0 also when images were rejected; 1 when something failed that a retry could mend.
    """
    with _catalog() as (settings, catalog):
        from imgflow.definitions import build_batching, build_definitions, build_families
        from imgflow.orchestration.ingest import ingest as run
        from imgflow.orchestration.instance import open_instance
        from imgflow.orchestration.pool import prepare_workers
        from imgflow.orchestration.sensors import following
        from imgflow.store.opening import make_default_source

        stores = _stores(settings)
        make_default_source(stores.locations()[0], settings.home)
        with open_instance(settings, catalog.engine.url.render_as_string(False)) as instance:
            source = stores.open_source()
            report = run(
                source,
                catalog,
                instance,
                build_definitions(settings),
                build_families(settings),
                batching=build_batching(settings),
                follow=following(catalog, source, stores.open_outputs, settings.on_delete),
                progress=_say,
                prepare=partial(prepare_workers, stores),
            )
    for key, reason in report.reasons.items():
        _say(f"{key}: {reason}")
    _say(
        f"{report.processed} processed, {report.unchanged} unchanged, {report.rejected} rejected, "
        f"{report.failed} failed in {report.seconds:.1f} s."
    )
    if as_json:
        print(json.dumps(report.as_json()))
    raise typer.Exit(1 if report.failed else 0)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Count images by kind and state, and say how long the oldest has waited."""
    with _catalog() as (_settings, catalog):
        from imgflow.status import read_status

        found = read_status(catalog)
    if as_json:
        print(json.dumps(found.as_json()))
        return
    table = Table("kind", "ready", "pending", "rejected", "deleted")
    for kind in ("photo", "depth"):
        states = ("ready", "pending", "rejected", "deleted")
        table.add_row(kind, *(str(found.number(kind, state)) for state in states))
    answer.print(f"Source {found.source}", markup=False)
    answer.print(table)
    if found.backlog_seconds is not None:
        answer.print(f"The oldest pending image has waited {found.backlog_seconds:.0f} s.")
    if found.reasons:
        counted = ", ".join(f"{count} {code}" for code, count in found.reasons.items())
        answer.print(f"Rejected or kept waiting: {counted}; `imgflow show KEY` says why.")
    if found.unreadable:
        answer.print(
            f"Messages of the queue that could not be read: {found.unreadable}; the newest: "
            f"{found.newest_unreadable}. They are in the table unreadable_messages.",
            markup=False,
        )


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="Object key below the source's prefix, or an id.")],
    as_json: AsJson = False,
) -> None:
    """Show one image: its row, outputs, history, and why it was rejected."""
    with _catalog() as (settings, catalog):
        from imgflow.status import describe

        image = _image(catalog, key)
        found = describe(image)
        events = _history(settings, catalog, image)
    if as_json:
        print(json.dumps({**found, "history": [event.as_json() for event in events]}))
        return
    for name, value in found.items():
        if name not in ("outputs", "facts") and value is not None:
            answer.print(f"{name:>12}  {value}", markup=False)
    for part in ("outputs", "facts"):
        for name, value in found[part].items():
            answer.print(f"{part:>12}  {name}: {_short(value)}", markup=False)
    for event in events:
        answer.print(f"{'history':>12}  {event.line()}", markup=False)


@app.command()
def doctor(
    as_json: AsJson = False,
    selftest: Annotated[
        bool,
        typer.Option("--selftest", help="Only process the golden set, and compare every value."),
    ] = False,
) -> None:
    """Check source, outputs, database, Dagster and settings, and say what to mend.

    Exit code 1 when something must be mended, or a golden value differs.
    """
    from imgflow.doctor import Finding, all_checks, examine
    from imgflow.doctor import as_json as findings_as_json
    from imgflow.settings import load_settings

    findings: list[Finding] = []
    found: Iterable[Finding]
    try:
        if selftest:
            from imgflow.selftest import selftest as golden_set

            found = golden_set()
        else:
            checks = all_checks(load_settings())
            found = chain([Finding("settings", "ok", "they can be read")], examine(checks))
    except SettingsError as error:
        found = chain([Finding("settings", "wrong", str(error))])
    for finding in found:
        findings.append(finding)
        (people if as_json else answer).print(finding.line(), markup=False)
    if as_json:
        print(json.dumps(findings_as_json(findings)))
    raise typer.Exit(1 if any(finding.state == "wrong" for finding in findings) else 0)


@app.command()
def iam(
    upload: Annotated[
        bool, typer.Option("--upload", help="Allow uploads by imgflow into the source too.")
    ] = False,
    delete_source: Annotated[
        bool, typer.Option("--delete-source", help="Allow deleting uploaded objects too.")
    ] = False,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Allow seeing whether the bucket feeds the queue too.")
    ] = False,
    kms_key: Annotated[
        str, typer.Option(help="ARN of the KMS key that encrypts the buckets.")
    ] = "",
) -> None:
    """Print the smallest AWS policy under which imgflow works with these settings, as JSON."""
    import boto3

    from imgflow.iam import Extra, policy
    from imgflow.settings import load_settings

    extra = Extra(upload, delete_source, doctor, kms_key)
    region = boto3.Session().region_name or "us-east-1"
    print(json.dumps(policy(load_settings(), extra, region=region), indent=2))


@app.command()
def upload(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", exists=True)],
    prefix: Annotated[str, typer.Option(help="Put before every key.")] = "",
) -> None:
    """Upload files and folders into the source; those that are there unchanged are skipped."""
    from imgflow.settings import load_settings
    from imgflow.store.uploading import upload_all

    settings = load_settings()
    source = _stores(settings).open_source()
    done = upload_all(source, paths, prefix=prefix, progress=_say)
    _say(f"{done.uploaded} uploaded, {done.skipped} unchanged, to {source.location.url}")


@app.command()
def retry(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Object keys; none: all that were rejected.")
    ] = None,
) -> None:
    """Look at rejected images again; the sensor or `imgflow ingest` processes them."""
    with _catalog() as (_settings, catalog):
        images = (
            [_image(catalog, key) for key in keys]
            if keys
            else catalog.page(limit=1_000_000, state="rejected")
        )
        catalog.reopen([image.id for image in images])
    _say(f"{len(images)} images are pending again.")


@app.command()
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
    with _catalog() as (settings, catalog):
        from imgflow.lifecycle import delete_images

        stores = _stores(settings)
        done = delete_images(
            catalog,
            stores.open_outputs(),
            [_image(catalog, key) for key in keys],
            source=stores.open_source() if source else None,
            dry_run=dry_run,
        )
    verb = "would be deleted" if dry_run else "deleted"
    _say(f"{done.images} images, {done.outputs} outputs and {done.objects} uploads {verb}.")


@app.command()
def presign(
    key: Annotated[str, typer.Argument(help="Object key below the source's prefix.")],
    expires: Annotated[
        int, typer.Option(min=1, max=604_800, help="Seconds for which the URL works.")
    ] = 3_600,
) -> None:
    """Print a URL under which anyone can read an uploaded object for a while."""
    from imgflow.settings import load_settings
    from imgflow.store.s3 import S3Source

    source = _stores(load_settings()).open_source()
    if not isinstance(source, S3Source):
        raise SettingsError(
            f"{source.location.url} is a folder; only objects of a bucket have presigned URLs. "
            "Set IMGFLOW_SOURCE_URL to s3://bucket/prefix."
        )
    print(source.presign(key, expires))


@app.command()
def frame(
    key: Annotated[str, typer.Argument(help="Object key of a depth image, or its id.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    depth_min: Annotated[float | None, typer.Option(help="First depth, included.")] = None,
    depth_max: Annotated[float | None, typer.Option(help="Last depth, included.")] = None,
    colormap: Annotated[str, typer.Option(help="Name of a colour map, or JSON.")] = "",
) -> None:
    """Write the colour-mapped rows between two depths to a file: .jpg, .png, .webp or .npy."""
    with _catalog() as (_settings, catalog):
        from imgflow.catalog.depth_arrays import DepthArrays
        from imgflow.depth.colormap_data import DEFAULT_COLORMAP
        from imgflow.depth.frames import FRAME_FORMATS, render_frame

        image = _image(catalog, key)
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
    _say(f"{output}: {made.width}x{made.height} pixels, {rows.depths[0]} to {rows.depths[-1]}")


@contextmanager
def _catalog() -> Iterator[tuple[Settings, PostgresCatalog]]:
    """The settings and the catalogue, with its schema at this version."""
    from imgflow.catalog.connecting import database_url, make_engine
    from imgflow.catalog.postgres import PostgresCatalog
    from imgflow.settings import load_settings
    from imgflow.store.opening import StoreConfig

    settings = load_settings()
    stores = StoreConfig(settings.source_url, settings.output_url)
    engine = make_engine(database_url(settings))
    try:
        catalog = PostgresCatalog(engine, stores.locations()[0].url)
        catalog.migrate()
        yield settings, catalog
    finally:
        engine.dispose()


def _stores(settings: Settings) -> StoreConfig:
    from imgflow.store.opening import StoreConfig

    return StoreConfig(
        settings.source_url, settings.output_url, settings.s3_checksums, str(settings.home)
    )


def _image(catalog: PostgresCatalog, key: str) -> Image:
    image = catalog.by_keys([key]).get(key)
    if image is None and key.isdecimal():
        image = catalog.by_id(int(key))
    if image is None:
        raise SettingsError(
            f"There is no image {key!r} in {catalog.source}; `imgflow status` counts them."
        )
    return image


def _history(settings: Settings, catalog: PostgresCatalog, image: Image) -> list[Event]:
    """What Dagster knows of an image; nothing before Dagster has a home or tables."""
    from imgflow.definitions import build_families
    from imgflow.orchestration.history import history
    from imgflow.orchestration.instance import has_instance, open_instance

    if not has_instance(settings, catalog.engine):
        return []
    (family,) = (family for family in build_families(settings) if family.kind == image.kind)
    with open_instance(settings, catalog.engine.url.render_as_string(False)) as instance:
        return history(instance, family, image)


def _say(line: str) -> None:
    people.print(line, markup=False)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 160 else f"{text[:159]}…"  # noqa: PLR2004 - a line of a terminal
