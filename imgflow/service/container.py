"""The entry point of the image: `python -m imgflow.service.container COMMAND …`.

It writes Dagster's home from the settings, so that all containers of a cluster have the same one
without sharing a volume. Then it becomes the command, which gets the container's signals.
"""

from __future__ import annotations

import os
import sys

from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.instance import environment
from imgflow.settings.variables import load_settings


def main() -> None:
    """Write Dagster's home, and become the command.

    Raises:
        SettingsError: No database is set; the embedded one is only for a single machine.
    """
    settings = load_settings()
    if not settings.database_url:
        raise SettingsError("Set IMGFLOW_DATABASE_URL: containers share a PostgreSQL server.")
    variables = {**os.environ, **environment(settings, settings.database_url)}
    os.execvpe(sys.argv[1], sys.argv[1:], variables)  # noqa: S606 - the container's own command


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        sys.exit(f"imgflow: {error}")
