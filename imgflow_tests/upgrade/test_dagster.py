"""Dagster's tables as an earlier Dagster left them: said by the doctor, and brought forward."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from imgflow.doctor.all_checks import all_checks
from imgflow.doctor.findings import Finding, examine
from imgflow.errors import SettingsError
from imgflow.service.up import _prepare
from imgflow_tests.orchestration.project import PHOTO_ASSETS, Project
from imgflow_tests.pictures import jpeg

# Before asset checks, concurrency slots and backfills of runs had their tables and columns; and the
# last one that a single transaction goes back to.
EARLIER = {"701913684cb4": "dagster instance migrate", "16e3655b4d9b": "imgflow migrate"}

COMMANDS = {
    "imgflow migrate": [sys.executable, "-m", "imgflow", "migrate"],
    "dagster instance migrate": [
        str(Path(sysconfig.get_path("scripts")) / "dagster"),
        *("instance", "migrate"),
    ],
}


def bring_back(engine: sa.Engine, revision: str) -> None:
    """Make Dagster's tables those of an earlier version, by Dagster's own migrations."""
    config = Config()
    config.set_main_option("script_location", "dagster:_core/storage/alembic")
    # One of them drops an index concurrently, which no transaction may hold.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def said_by(name: str, folder: Path) -> str:
    """Run a command, which must end well."""
    done = subprocess.run(
        COMMANDS[name], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def findings(project: Project) -> dict[str, Finding]:
    checks = all_checks(project.settings)
    return {finding.part: finding for finding in examine({"dagster": checks["dagster"]})}


def statuses(project: Project) -> dict[str, dict[str, str]]:
    return {asset: dict(project.statuses(f"photo/{asset}")) for asset in PHOTO_ASSETS}


@pytest.mark.parametrize("revision", EARLIER)
def test_dagsters_tables_come_forward_and_nothing_is_done_again(
    revision: str, project: Project, tmp_path: Path
) -> None:
    folder = project.source.location.folder
    for name, body in (("a.jpg", jpeg(seed=1)), ("b.jpg", jpeg(seed=2)), ("bad.jpg", b"none")):
        (folder / name).write_bytes(body)
    assert project.ingest().processed == 2
    rows, stored, colours = project.rows(), project.stored(), statuses(project)
    bring_back(project.catalog.engine, revision)

    found = findings(project)
    assert found["dagster"].state == "wrong"
    assert "`imgflow migrate`" in found["dagster"].text
    with pytest.raises(SettingsError, match="another version of Dagster"):
        _prepare(project.settings, lambda _line: None, with_samples=False)

    said_by(EARLIER[revision], tmp_path)

    assert findings(project)["dagster"].state == "ok"
    with dg.DagsterInstance.get() as instance:
        forward = Project(project.settings, instance)
        assert statuses(forward) == colours
        assert not forward.tick().run_requests
        assert forward.materialize(["a.jpg", "b.jpg"]).success
        assert (forward.rows(), forward.stored()) == (rows, stored)
        (folder / "c.jpg").write_bytes(jpeg(seed=3))
        assert forward.ingest().processed == 1
        assert statuses(forward)["thumbnail"] == {
            **dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), "green"),
            "bad.jpg": "red",
        }


def test_tables_that_are_up_to_date_stay_as_they_are(project: Project, tmp_path: Path) -> None:
    assert "storage is up to date" in said_by("imgflow migrate", tmp_path)
    assert findings(project)["dagster"].state == "ok"
