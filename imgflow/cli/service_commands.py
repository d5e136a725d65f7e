"""Commands about imgflow as a whole: start it, process everything once, check that all is well.

What they start is in `imgflow.service`, and the checks are in `imgflow.doctor`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Annotated

import typer

from imgflow.cli.common import (
    AsJson,
    answer,
    open_catalog,
    people,
    put,
    read_settings,
    say,
)
from imgflow.errors import SettingsError, Trouble


def up(
    samples: Annotated[
        bool, typer.Option("--samples", help="Put sample photographs and a depth CSV in.")
    ] = False,
) -> None:
    """Start the database, the Dagster UI, the daemon and the API; Ctrl-C stops them."""
    from imgflow.service.up import up as start

    start(read_settings(), say, with_samples=samples)


def sign_in() -> None:
    """Print a link that signs a browser in to the gallery, once and within 15 minutes."""
    from imgflow.api.backend.signatures import sign_in_link

    print(sign_in_link(read_settings()))


def migrate(
    make_buckets: Annotated[
        bool, typer.Option("--make-buckets", help="Make the S3 buckets that are missing.")
    ] = False,
) -> None:
    """Bring the tables to this version, before the services of a cluster start."""
    from imgflow.service.migrate import migrate as bring

    bring(read_settings(), say, make_buckets=make_buckets)


def ingest(as_json: AsJson = False) -> None:
    """List the source once, process what is new or changed, and exit; needs nothing else running.

    Exit code 0 also when images were rejected; 1 when something failed that a retry could fix.
    """
    with open_catalog() as (settings, catalog):
        from imgflow.assembly import build_batching, build_definitions, build_families
        from imgflow.catalog.postgres.ownership import claim
        from imgflow.orchestration.dagster_storage.instance import open_instance
        from imgflow.orchestration.sensing.listing import following
        from imgflow.service.ingest import ingest as run
        from imgflow.work.pool import prepare_workers

        stores = settings.stores
        stores.make_default_source()
        with suppress(Trouble):  # if the store is down, the report counts the images as failed
            claim(catalog, stores.open_outputs())
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
                progress=partial(put, console=people),
                prepare=partial(prepare_workers, stores),
            )
    for key, reason in report.reasons.items():
        put(f"{key}: {reason}", people)
    say(
        f"{report.processed} processed, {report.unchanged} unchanged, {report.rejected} rejected, "
        f"{report.failed} failed in {report.seconds:.1f} s."
    )
    if report.retry_seconds is not None:
        say(
            "The sensor or another `imgflow ingest` tries the failed ones again, the first in "
            f"{report.retry_seconds:.0f} s."
        )
    if as_json:
        print(json.dumps(report.as_json()))
    raise typer.Exit(1 if report.failed else 0)


def doctor(
    as_json: AsJson = False,
    selftest: Annotated[
        bool,
        typer.Option("--selftest", help="Only process the golden set, and compare every value."),
    ] = False,
) -> None:
    """Check source, outputs, database, Dagster and settings, and say what to fix.

    Exit code 1 when something must be fixed, or a golden value differs.
    """
    from imgflow.doctor.all_checks import all_checks
    from imgflow.doctor.findings import Finding, examine
    from imgflow.doctor.findings import as_json as findings_as_json

    findings: list[Finding] = []
    found: Iterable[Finding]
    try:
        if selftest:
            from imgflow.doctor.selftest import selftest as golden_set

            found = golden_set()
        else:
            checks = all_checks(read_settings())
            found = chain([Finding("settings", "ok", "they can be read")], examine(checks))
    except SettingsError as error:
        found = chain([Finding("settings", "wrong", str(error))])
    for finding in found:
        findings.append(finding)
        put(finding.line(), people if as_json else answer)
    if as_json:
        print(json.dumps(findings_as_json(findings)))
    raise typer.Exit(1 if any(finding.state == "wrong" for finding in findings) else 0)


def alert() -> None:
    """Send a test message on every channel of IMGFLOW_ALERT_URLS.

    Exit code 1 when one did not take it.
    """
    from imgflow.settings.channels import scheme_of, send

    settings = read_settings()
    if not settings.alert_urls:
        raise SettingsError("No channel is set: IMGFLOW_ALERT_URLS takes URLs of Apprise.")
    message = (
        "imgflow: a test message",
        f"Failed runs are told of here, with their images. Dagster UI: {settings.dagster_page}",
    )
    outcomes = send(dict.fromkeys(settings.alert_urls, message))
    for number, (url, refusal) in enumerate(outcomes.items(), 1):
        said = "took the message" if refusal is None else f"did not take it: {refusal}"
        say(f"Channel {number} ({scheme_of(url)}) {said}")
    raise typer.Exit(1 if any(outcomes.values()) else 0)


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

    from imgflow.cli.iam import Extra, policy

    extra = Extra(upload, delete_source, doctor, kms_key)
    region = boto3.Session().region_name or "us-east-1"
    print(json.dumps(policy(read_settings(), extra, region=region), indent=2))
