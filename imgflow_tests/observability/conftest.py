"""The queue's emulation, and libraries that an API serves."""

from __future__ import annotations

from imgflow_tests.orchestration.conftest import moto

__all__ = ["moto"]
