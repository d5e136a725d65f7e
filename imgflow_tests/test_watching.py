"""What `imgflow up` looks at while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from imgflow import watching
from imgflow.alarm import Alarm
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.watching import Watch
from imgflow_tests.running import wait_until


def test_a_look_that_fails_is_said_once_and_the_next_one_comes(
    catalog: PostgresCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def disks(_folders: Mapping[str, Path]) -> dict[str, str]:
        nonlocal looks
        looks += 1
        if looks < 4:
            raise PermissionError("nobody may look there")
        return {}

    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(watching, "full_disks", disks)
    watch = Watch(catalog, (), {}, None, Alarm((), 0, lambda _line: None))
    said: list[str] = []
    watch.start()
    try:
        wait_until(lambda: said.extend(watch.news()) or any("photos:" in line for line in said), 30)
    finally:
        watch.stop()
    assert said[0] == "imgflow up could not look: PermissionError: nobody may look there"
    assert sum("could not look" in line for line in said) == 1
