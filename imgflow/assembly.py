"""Builds everything that Dagster loads, from settings and parts; nothing else assembles it.

Other projects call `build_definitions` with their own settings or resources. Importing this module
has no side effects, and building definitions opens no connections. The `defs` that `dagster dev`
loads are in `imgflow.definitions`; the API is assembled in `imgflow.api.app`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from imgflow.orchestration.alerts.failure_sensor import failures_sensor
from imgflow.orchestration.assets.asset_definitions import family_assets, family_job, source_spec
from imgflow.orchestration.checks.asset_checks import audit, family_checks
from imgflow.orchestration.families import Family, Links, depth_family, photo_family
from imgflow.orchestration.resources import (
    CatalogResource,
    QueueResource,
    StoresResource,
    WorkersResource,
    bound,
    with_own_defaults,
)
from imgflow.orchestration.runs.requests import Batching
from imgflow.orchestration.sensing.listing import arrivals_sensor
from imgflow.orchestration.sensing.notifications import notifications_sensor
from imgflow.orchestration.upkeep.schedules import maintenance
from imgflow.settings.variables import Settings, load_settings

# Resources that say where data lives.
PLACES = ("catalog", "stores", "queue")


def build_resources(settings: Settings) -> dict[str, Any]:
    """Build the resources from the settings, before any run configures them."""
    resources: dict[str, Any] = {
        "catalog": CatalogResource(),
        "stores": StoresResource(
            source_url=settings.source_url,
            output_url=settings.output_url,
            s3_checksums=settings.s3_checksums,
            home=str(settings.home),
            follow_links=settings.follow_links,
        ),
        "queue": QueueResource(url=settings.sqs_queue_url),
        "workers": with_own_defaults(
            WorkersResource(
                count=settings.worker_count,
                decode_seconds=settings.decode_seconds,
                depth_seconds=settings.depth_seconds,
                depth_max_rows=settings.depth_max_rows,
                max_bytes=settings.max_bytes,
                max_pixels=settings.max_pixels,
                max_side=settings.max_side,
                max_frames=settings.max_frames,
                formats=list(settings.formats),
                memory_mib=settings.worker_memory,
            )
        ),
    }
    return resources


def build_families(settings: Settings) -> list[Family]:
    """Build both families with the recipes from the settings."""
    links = Links(settings.links_url)
    return [photo_family(settings.photo_recipe, links), depth_family(settings.depth_recipe, links)]


def build_batching(settings: Settings) -> Batching:
    """Return how many images a run takes, from the settings."""
    return Batching(
        images=settings.batch_size,
        seconds=settings.batch_seconds,
        runs=settings.runs,
        hot=settings.hot_partitions,
        is_spread=bool(settings.broker_url),
    )


def build_definitions(
    settings: Settings | None = None,
    *,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """Assemble the project.

    Args:
        settings: Read from the environment when omitted.
        resources: Replacements for the resources of the same name. Run config cannot change
            `catalog`, `stores` or `queue`, unless you pass the result of `configure_at_launch()`.
        executor: Runs launched by selecting assets use it. Pass None when merging into definitions
            that already have an executor. The jobs always run in one process.
    """
    settings = settings or load_settings()
    families = build_families(settings)
    assets = [
        family_assets(
            family,
            settings.photo_recipe,
            settings.depth_recipe,
            settings.output_url,
            freshness_hours=settings.freshness_hours,
        )
        for family in families
    ]
    jobs = [
        family_job(family, definition) for family, definition in zip(families, assets, strict=True)
    ]
    parts = {**build_resources(settings), **(resources or {})}
    for name in PLACES:
        if isinstance(parts[name], dg.ConfigurableResource):
            parts[name] = bound(parts[name])
    upkeep, schedules = maintenance(
        families,
        on_delete=settings.on_delete,
        seal_days=settings.seal_days,
        keep_events_days=settings.keep_events_days,
    )
    checks = [family_checks(family, settings.photo_recipe) for family in families]
    audit_job, nightly_audit = audit(checks)
    return dg.Definitions(
        asset_checks=checks,
        assets=[*(source_spec(family, settings.source_url) for family in families), *assets],
        jobs=[*jobs, *upkeep, audit_job],
        schedules=[*schedules, nightly_audit],
        sensors=[
            *_queue_sensors(settings, families, jobs),
            arrivals_sensor(
                families,
                jobs,
                interval_seconds=settings.sensor_seconds,
                pages=settings.tick_pages,
                batching=build_batching(settings),
                on_delete=settings.on_delete,
            ),
            failures_sensor(
                families,
                [job.name for job in (*jobs, *upkeep, audit_job)],
                channels=settings.alert_urls,
                minutes=settings.alert_minutes,
                dagster_url=settings.dagster_page,
                gallery_url=settings.links_url,
            ),
        ],
        resources=parts,
        executor=executor,
    )


def _queue_sensors(
    settings: Settings, families: Sequence[Family], jobs: Sequence[Any]
) -> list[dg.SensorDefinition]:
    """Return the sensor that reads the queue, if a queue is configured."""
    if not settings.sqs_queue_url:
        return []
    batching = build_batching(settings)
    return [notifications_sensor(families, jobs, batching=batching, on_delete=settings.on_delete)]
