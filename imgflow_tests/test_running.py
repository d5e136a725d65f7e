"""The lock of a home's `imgflow up`."""

from __future__ import annotations

import threading
import time

import pytest

from imgflow.errors import SettingsError
from imgflow.service.up_lock import changed_since_start, only_one, running_process
from imgflow.settings.variables import Settings


def test_whoever_looks_whether_it_runs_keeps_nobody_from_starting(settings: Settings) -> None:
    """`imgflow status`, the doctor and the API look, and hold the lock for a moment."""
    with only_one(settings):
        pass
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            running_process(settings.home)
            changed_since_start(settings)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            with only_one(settings):
                assert running_process(settings.home)
    finally:
        is_over.set()
        for looker in lookers:
            looker.join()


def test_a_second_one_is_refused_soon(settings: Settings) -> None:
    with only_one(settings):
        began = time.monotonic()
        with pytest.raises(SettingsError, match="already runs"), only_one(settings):
            pass
    assert time.monotonic() - began < 5
