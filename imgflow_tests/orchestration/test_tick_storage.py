"""Sensors go on after a clock was set back; fails by name when Dagster changes what is used.

The private names are the point: states as the daemon alone stores them, with the time of a tick.
"""

from __future__ import annotations

import time

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)

from imgflow.orchestration.dagster_storage.storages import SteadyScheduleStorage

ORIGIN = RemoteInstigatorOrigin(
    RemoteRepositoryOrigin(
        GrpcServerCodeLocationOrigin("code-server", 4000, location_name="imgflow"), "__repository__"
    ),
    "arrivals",
)


def stored(instance: dg.DagsterInstance, began: float) -> SensorInstigatorData:
    """What the daemon reads of a sensor whose last tick began then."""
    data = SensorInstigatorData(
        last_tick_timestamp=began, last_tick_start_timestamp=began, min_interval=1, cursor="mine"
    )
    state = InstigatorState(ORIGIN, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    instance.add_instigator_state(state)
    (found,) = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
    one = instance.get_instigator_state(ORIGIN.get_id(), ORIGIN.get_selector().get_id())
    assert one == found
    assert isinstance(found.instigator_data, SensorInstigatorData)
    assert found.instigator_data.cursor == "mine"
    return found.instigator_data


def test_the_storage_is_that_of_the_instance(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.schedule_storage, SteadyScheduleStorage)


def test_a_last_tick_in_the_future_is_none(instance: dg.DagsterInstance) -> None:
    data = stored(instance, time.time() + 3_600)
    assert data.last_tick_timestamp is data.last_tick_start_timestamp is None


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3_600.0])
def test_a_last_tick_in_the_past_is_as_it_was(instance: dg.DagsterInstance, seconds: float) -> None:
    began = time.time() - seconds
    data = stored(instance, began)
    assert data.last_tick_timestamp == data.last_tick_start_timestamp == began
