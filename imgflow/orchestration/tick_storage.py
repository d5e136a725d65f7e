"""Dagster's storage of ticks, by which sensors go on after a clock was set back.

Dagster 1.13.27 begins a tick when the last one began long enough ago. One that began later than now
is never long ago: with the clock set back by an hour, no sensor looks for an hour.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dagster_postgres import PostgresScheduleStorage


class SteadyScheduleStorage(PostgresScheduleStorage):
    """Forgets when a sensor's last tick was, once that lies in the future."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Any:
        """Make the storage of a `dagster.yaml`; the parent's method names its own class."""
        return cls(
            postgres_url=config_value["postgres_url"],
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            inst_data=inst_data,
        )

    def all_instigator_state(self, *arguments: Any, **named: Any) -> Any:
        """The states of sensors and schedules."""
        return [_of_the_past(state) for state in super().all_instigator_state(*arguments, **named)]

    def get_instigator_state(self, origin_id: str, selector_id: str) -> Any:
        """The state of one."""
        state = super().get_instigator_state(origin_id, selector_id)
        return state and _of_the_past(state)


def _of_the_past(state: Any) -> Any:
    """A state without times of ticks that lie in the future."""
    data = state.sensor_instigator_data
    if data is None:
        return state
    now = time.time()
    names = ("last_tick_timestamp", "last_tick_start_timestamp")
    future = {name: None for name in names if (getattr(data, name) or 0) > now}
    return state.with_data(data._replace(**future)) if future else state
