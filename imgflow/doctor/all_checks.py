"""All checks, in the order of the report; the other modules define them, by the part they check."""

from __future__ import annotations

from collections.abc import Iterable

from imgflow.doctor.findings import Check, Finding
from imgflow.doctor.machine_checks import (
    check_access,
    check_alerts,
    check_home,
    check_names,
    check_open_files,
    check_ports,
    check_processes,
    check_recipe,
    environment_and_file,
    look_at_traces,
)
from imgflow.doctor.store_checks import check_bucket, check_outputs, check_owner, check_source
from imgflow.service.up_lock import running_process
from imgflow.settings.variables import Settings


def local_checks(settings: Settings) -> dict[str, Check]:
    """Return the checks that need no database."""
    stores = settings.stores
    environment, env_file = environment_and_file()
    return {
        "variables": lambda: check_names(environment, env_file),
        "processes": lambda: check_processes(settings, environment),
        "home": lambda: check_home(settings.home),
        "source": lambda: check_source(stores, settings.home),
        "outputs": lambda: check_outputs(stores, settings.home),
        "bucket": lambda: check_bucket(stores),
        "recipe": lambda: check_recipe(settings),
        "open files": check_open_files,
        "access": lambda: check_access(settings),
        "traces": lambda: look_at_traces(settings),
        "alerts": lambda: check_alerts(settings),
        "ports": lambda: check_ports(settings),
    }


def all_checks(settings: Settings) -> dict[str, Check]:
    """Return all checks, in the order of the report."""
    from imgflow.doctor import dagster_checks
    from imgflow.doctor.database_checks import check_database  # importing Dagster takes a second
    from imgflow.doctor.store_checks import check_queue, check_wiring

    process = running_process(settings.home)
    stores = settings.stores

    def told(lines: Iterable[dagster_checks.Line]) -> Iterable[Finding]:
        return (Finding(part, state, text) for part, state, text in lines)

    return {
        **local_checks(settings),
        "database": lambda: check_database(settings),
        "owner": lambda: check_owner(settings, stores),
        "dagster.yaml": lambda: told(dagster_checks.check_configuration(settings)),
        "dagster": lambda: told(dagster_checks.check_dagster(settings, process)),
        "queue": lambda: check_queue(settings),
        "events": lambda: check_wiring(settings),
    }
