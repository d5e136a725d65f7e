"""Checks of the machine and its settings: disk space, open files, ports, access, recipe, variables.

Stores are checked in `store_checks`, and the database in `database_checks`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values

from imgflow.doctor.findings import Finding, notice, ok, wrong
from imgflow.home import who_looks_in
from imgflow.observability.traces import check_traces
from imgflow.service.probe import DIRECT
from imgflow.service.up_lock import changed_since_start, running_process
from imgflow.settings.channels import check_channel, scheme_of
from imgflow.settings.variables import PREFIX, Settings

LOOPBACK = "127.0.0.1"

LEAST_FREE_BYTES = 1_000_000_000

# Workers, connections and files being read take about 200 in each process.
LEAST_FILES = 1_024


def check_home(home: Path) -> Iterator[Finding]:
    """Check that the home can be written to or made, has room, and is closed to other users."""
    folder = home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        yield wrong("home", f"{folder} is not a folder; set IMGFLOW_HOME to another place")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield wrong("home", f"{folder} cannot be written to; allow it, or set IMGFLOW_HOME")
        return
    room, is_enough = room_in(folder)
    if not is_enough:
        yield wrong("home", f"{home}: only {room}; make room, or set IMGFLOW_HOME to another disk")
        return
    if home == folder and (who := who_looks_in(home)):
        yield wrong(
            "home",
            f"{home} can be looked into by {who}: its logs, uploads and outputs are no secret; "
            f"`chmod 700 {home}`, which the next start of imgflow does for a home of its own user",
        )
        return
    yield ok("home", f"{home} is writable, {room}" if home == folder else f"{home} can be made")


def room_in(folder: Path) -> tuple[str, bool]:
    """Return how much is free on a folder's disk, in words, and whether that is enough."""
    free = shutil.disk_usage(folder).free
    return f"{free / 1e9:,.1f} GB are free", free >= LEAST_FREE_BYTES


def check_recipe(settings: Settings) -> Iterator[Finding]:
    """Check that all outputs of photographs can be made: packages, parameters, letters, font."""
    from imgflow.images.outputs import enabled_outputs

    yield ok(
        "recipe", f"outputs of a photograph: {', '.join(enabled_outputs(settings.photo_recipe))}"
    )


def check_open_files() -> Iterator[Finding]:
    """Check that processes may open enough files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < LEAST_FILES:
        yield wrong(
            "open files", f"a process may open {limit} only; allow {LEAST_FILES} (`ulimit -n`)"
        )
        return
    yield ok("open files", f"a process may open {limit if limit >= 0 else 'any number'}")


def check_access(settings: Settings) -> Iterator[Finding]:
    """Check who may read, by the settings and by asking without a token.

    Raises:
        SettingsError: The API would not start with these settings.
    """
    settings.check_api_access()
    part, page = "access", f"{settings.links_url}/images?limit=1"
    is_open = _shows_images(page)
    if settings.open_reading:
        yield notice(part, "anyone who reaches the API reads: IMGFLOW_OPEN_READING is set")
    elif is_open:
        yield wrong(
            part,
            f"anyone reads: {page} answers without a token; restart the API if it runs with "
            "IMGFLOW_OPEN_READING, and see whether a proxy in front adds a token to each request",
        )
    else:
        yield ok(part, f"the API listens on {settings.api_host} and asks everyone for a token")


def check_alerts(settings: Settings) -> Iterator[Finding]:
    """Check that alerts could be sent, without sending any.

    Raises:
        SettingsError: The URL of a channel is invalid.
    """
    for url in settings.alert_urls:
        check_channel(url)
    if not settings.alert_urls:
        yield ok("alerts", "failures are only logged; IMGFLOW_ALERT_URLS tells people of them")
        return
    schemes = ", ".join(map(scheme_of, settings.alert_urls))
    yield ok("alerts", f"failures are told by {schemes}; `imgflow alert` sends a test message")


def look_at_traces(settings: Settings) -> Iterator[Finding]:
    """Check that traces can be sent if they are on.

    Raises:
        SettingsError: The packages are not installed.
    """
    check_traces(settings.traces)
    yield ok("traces", "they are sent" if settings.traces else "off")


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Check that the ports are free or used by imgflow itself."""
    process = running_process(settings.home)
    dagster = f"http://{LOOPBACK}:{settings.dagster_port}"
    for host, port, setting, page in (
        (LOOPBACK, settings.dagster_port, "IMGFLOW_DAGSTER_PORT", f"{dagster}/server_info"),
        (settings.api_host, settings.api_port, "IMGFLOW_API_PORT", f"{settings.api_url}/health/"),
    ):
        part = f"port {port}"
        if _is_free(host, port):
            if process:
                yield wrong(
                    part,
                    f"`imgflow up` runs (process {process}) and does not listen; see "
                    f"{settings.home / 'logs'}",
                )
            else:
                yield ok(part, "it is free")
        elif process and _answers(page):
            yield ok(part, f"`imgflow up` (process {process}) answers")
        elif process:
            yield wrong(
                part,
                f"`imgflow up` runs (process {process}) and does not answer; see "
                f"{settings.home / 'logs'}",
            )
        else:
            yield wrong(part, f"something else uses it; end that, or set {setting}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _shows_images(page: str) -> bool:
    """Return whether a page lists images without a token; a proxy's own page does not count."""
    try:
        with urllib.request.urlopen(page, timeout=3) as answer:  # noqa: S310 - our own pages
            return "items" in json.load(answer)
    except (OSError, ValueError, TypeError):
        return False


def _answers(url: str) -> bool:
    try:
        with DIRECT.open(url, timeout=3):
            return True
    except OSError:
        return False


# Variables: names that nobody reads, and processes that were started with other values.


# Variables of the project's own tests.
NOT_SETTINGS = f"{PREFIX}TEST_"

# With less than this, Dagster stores events one by one, and an image takes 20 times as long.
BATCH_VARIABLE, LEAST_BATCH = "DAGSTER_EVENT_BATCH_SIZE", 100


def check_names(environment: Mapping[str, str], env_file: Path) -> Iterator[Finding]:
    """Check that every `IMGFLOW_…` variable is a setting."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = dict.fromkeys(environment, "the environment")
    if env_file.is_file():
        given |= {name: str(env_file) for name in dotenv_values(env_file)}
    count = 0
    for name, place in sorted(given.items()):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper.startswith(NOT_SETTINGS):
            continue
        count += 1
        if upper in known:
            continue
        close = get_close_matches(upper, known, n=1, cutoff=0.8)
        if close:
            yield wrong(
                "variables",
                f"{name} in {place} is no setting, so it does nothing; rename it to {close[0]}",
            )
        else:
            yield notice(
                "variables",
                f"{name} in {place} is no setting, so it does nothing here; remove it, or see the "
                "table in the README",
            )
        count -= 1
    yield ok("variables", f"{count} settings are set")


def check_processes(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check that Dagster's commands and the running `imgflow up` have the values of this shell."""
    home = environment.get("DAGSTER_HOME")
    own = settings.home / "dagster"
    if home and Path(home).absolute() != own:
        yield notice(
            "DAGSTER_HOME",
            f"it is {home}, another instance than imgflow's: `dg` and `dagster` started here do "
            f"not see its runs; set DAGSTER_HOME={own}, or unset it",
        )
    batch = environment.get(BATCH_VARIABLE)
    if batch is not None and not (batch.isdecimal() and int(batch) >= LEAST_BATCH):
        yield wrong(
            BATCH_VARIABLE,
            f"it is {batch!r}, so Dagster stores events one by one and an image costs 20 times as "
            "long; unset it wherever runs are started: imgflow sets it",
        )
    process = running_process(settings.home)
    if process and (changed := changed_since_start(settings)):
        yield wrong(
            "processes",
            f"`imgflow up` (process {process}) was started with other values of "
            f"{', '.join(changed)} than are set here; start it again, or set them as they were",
        )
    elif process:
        yield ok("processes", f"`imgflow up` (process {process}) has the settings of this shell")


def environment_and_file() -> tuple[Mapping[str, str], Path]:
    """Return the environment and the path of `.env`, where settings come from."""
    return os.environ, Path(".env")
