"""A project over local folders, whose catalogue is brought back to earlier schemas."""

from imgflow_tests.orchestration.conftest import gate, make_project, project

__all__ = ["gate", "make_project", "project"]
