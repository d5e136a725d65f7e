"""The `defs` that `dagster dev`, `dg` and `workspace.yaml` load, from the environment's settings.

Only imgflow's own processes import this module, since it sets up logs and traces. Other projects
import `build_definitions` from `imgflow.assembly`, which has no side effects.
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
    """Set up logs and traces for this process, then build its definitions."""
    settings = load_settings()
    configure_logs(settings.log_format, settings.log_level)
    configure_traces(settings.traces)
    # Only here: other projects may have their own `io_manager`.
    return build_definitions(settings, resources={"io_manager": nothing_kept()})


defs = _load()

# Dagster and its libraries hold 200,000 objects that live as long as the process; each full garbage
# collection would spend 60 ms on them.
gc.freeze()
