"""Dagster's storages of runs and ticks, changed in one thing each; that of events is `event_log`.

The storages of runs and events ask PostgreSQL only once which columns their tables have. Dagster
1.13.27 asks before each event of a run and of an asset, since a migration may be missing, and opens
an instance with new engines for each tick and each run. SQLAlchemy caches what such a query needs,
including the engine's dialect, for the last 128 engines of a process: some 25 MiB that accumulate
within an hour, in the code server and in each worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from dagster_postgres import PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.utils import pg_url_from_config

_present: set[tuple[str, str]] = set()


def is_present(url: str, what: str, look: Callable[[], bool]) -> bool:
    """Whether a database has something that one migration adds and none removes.

    Args:
        url: URL of the database, by which the answer is remembered.
        what: Any name that is unique to the thing.
        look: Asks the database; called until it has returned True once.
    """
    if (url, what) in _present:
        return True
    if found := look():
        _present.add((url, what))
    return found


class ReflectOnceRunStorage(PostgresRunStorage):
    """Dagster's storage of runs in PostgreSQL. Named in `dagster.yaml` under `run_storage`."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Any:
        """Make the storage that `dagster.yaml` names; the parent's method would make a parent."""
        return cls(
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )

    def has_run_stats_index_cols(self) -> bool:
        """Whether the table of runs has columns for start and end."""
        look = super().has_run_stats_index_cols
        return is_present(self.postgres_url, "times of runs", look)

    def has_backfill_id_column(self) -> bool:
        """Whether the table of runs has a column for the backfill."""
        look = super().has_backfill_id_column
        return is_present(self.postgres_url, "backfills of runs", look)

    def has_bulk_actions_selector_cols(self) -> bool:
        """Whether the table of backfills has columns for what they select."""
        look = super().has_bulk_actions_selector_cols
        return is_present(self.postgres_url, "selectors of backfills", look)


# Sensors continue after the clock was set back.
#
# Dagster 1.13.27 starts a tick when the last one started long enough ago. A start in the future is
# never long ago: with the clock set back by an hour, no sensor would tick for an hour.


class SteadyScheduleStorage(PostgresScheduleStorage):
    """Dagster's storage of ticks, without times of last ticks that lie in the future."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Any:
        """Make the storage that `dagster.yaml` names; the parent's method would make a parent."""
        return cls(
            postgres_url=config_value["postgres_url"],
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )

    def all_instigator_state(self, *arguments: Any, **named: Any) -> Any:
        """The states of sensors and schedules, without future ticks."""
        return [_of_the_past(state) for state in super().all_instigator_state(*arguments, **named)]

    def get_instigator_state(self, origin_id: str, selector_id: str) -> Any:
        """The state of one sensor or schedule, without future ticks."""
        state = super().get_instigator_state(origin_id, selector_id)
        return state and _of_the_past(state)


def _of_the_past(state: Any) -> Any:
    """A state without tick times that lie in the future."""
    data = state.sensor_instigator_data
    if data is None:
        return state
    now = time.time()
    names = ("last_tick_timestamp", "last_tick_start_timestamp")
    future = {name: None for name in names if (getattr(data, name) or 0) > now}
    return state.with_data(data._replace(**future)) if future else state
