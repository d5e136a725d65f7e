"""moto as Amazon, with stacks of the template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from moto.cloudformation import parsing

from imgflow_tests.deploy.stack import Stack, resolve
from imgflow_tests.orchestration.conftest import moto

__all__ = ["moto"]


@pytest.fixture
def make_stack(
    moto: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Stack]:
    monkeypatch.setattr(parsing, "clean_json", resolve)

    def make(**parameters: Any) -> Stack:
        return Stack(moto, {name: str(value) for name, value in parameters.items()})

    return make
