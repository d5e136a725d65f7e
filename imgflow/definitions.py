"""What `dagster dev`, `dg` and `workspace.yaml` load: `defs`, by the settings of the environment.

For processes of imgflow alone. Another project imports `build_definitions` from `imgflow.assembly`,
which sets up nothing.
"""

from __future__ import annotations

import gc

import dagster as dg

from imgflow.assembly import build_definitions
from imgflow.observability.logs import configure_logs
from imgflow.observability.traces import configure_traces
from imgflow.orchestration.resources import nothing_kept
from imgflow.settings.variables import load_settings


def _load() -> dg.Definitions:
    """What this process loads, with its log and its traces as the settings say."""
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    configure_traces(settings.traces)
    # Not for other projects, which may have an `io_manager` of their own.
    return build_definitions(settings, resources={"io_manager": nothing_kept()})


defs = _load()

# 200,000 objects of Dagster and its libraries, which live as long as the process: 60 ms each time
# that the garbage collector looks through all of them.
gc.freeze()
