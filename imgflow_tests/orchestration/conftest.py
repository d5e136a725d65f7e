"""A project over local folders."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from imgflow.settings import Settings
from imgflow_tests.orchestration.project import Project


@pytest.fixture
def project(settings: Settings, instance: dg.DagsterInstance) -> Project:
    return Project(settings, instance)


@pytest.fixture
def make_project(
    make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> Callable[..., Project]:
    return lambda **values: Project(make_settings(**values), instance)
