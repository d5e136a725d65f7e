"""The entry point of the image: `python -m imgflow.service.container COMMAND …`.

Writes Dagster's home by the settings, so that every container of a cluster has the same one without
sharing a volume, and becomes the command, which then gets the container's signals.
"""

from __future__ import annotations

import os
import sys

from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.instance import environment
from imgflow.settings.variables import load_settings


def main() -> None:
    """Become the command.

    Raises:
        SettingsError: there is no database in the settings; the embedded one is of one machine.
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
