"""What is set: names that nobody reads, and processes that were started with other values."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from dotenv import dotenv_values

from imgflow.doctor.findings import Finding, notice, ok, wrong
from imgflow.service.up_lock import changed_since_start, running_process
from imgflow.settings.variables import PREFIX, Settings

# Of the project's own tests.
NOT_SETTINGS = f"{PREFIX}TEST_"

# Dagster sends events one by one below this, and an image then costs 20 times as long.
BATCH_VARIABLE, LEAST_BATCH = "DAGSTER_EVENT_BATCH_SIZE", 100


def check_names(environment: Mapping[str, str], env_file: Path) -> Iterator[Finding]:
    """Whether every `IMGFLOW_…` variable is one that exists."""
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
    """Whether Dagster's commands and the running `imgflow up` see what this shell sees."""
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
    """Where settings come from."""
    return os.environ, Path(".env")
