"""A process that uses the embedded PostgreSQL ends in a way that runs nothing of ours any more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow_tests.ceph import free_port
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.running import start, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

API = ["-m", "uvicorn", "--factory", "imgflow.api.app:create_app", "--port"]
RUNS = """
import time
from imgflow.cli.common import open_catalog
with open_catalog():
    time.sleep(600)
"""

# Ends as soon as it has begun a program, in the middle of the start of the database.
DIES = """
import os, signal, subprocess, sys
from pathlib import Path
from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
begin = subprocess.Popen.__init__
def begin_and_die(process, command, *arguments, **options):
    begin(process, command, *arguments, **options)
    if Path(command[0]).name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
subprocess.Popen.__init__ = begin_and_die
EmbeddedPostgres(Path(sys.argv[1]))
"""


def database(home: Path) -> psutil.Process | None:
    try:
        pid = int((home / "postgres" / "postmaster.pid").read_text().split()[0])
        return psutil.Process(pid)
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return None


def left(home: Path) -> list[str]:
    """Processes that have the home in their command line: the database's, and its guard."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(home) in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize("what", ["api", "command"])
def test_postgresql_ends_with_its_last_user_however_that_ends(
    tmp_path: Path, what: str, number: signal.Signals
) -> None:
    home = tmp_path / "home"
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMGFLOW_")},
        "IMGFLOW_HOME": str(home),
    }
    arguments = [*API, str(free_port())] if what == "api" else ["-c", RUNS]
    user = subprocess.Popen(
        [sys.executable, *arguments], env=variables, cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        server = wait_until(lambda: database(home), PATIENCE_SECONDS)
        wait_until((home / "postgres.guard").exists, PATIENCE_SECONDS)
    finally:
        user.send_signal(number)
        user.wait(PATIENCE_SECONDS)
    wait_until(lambda: not server.is_running(), PATIENCE_SECONDS)
    wait_until(lambda: left(home) == [], PATIENCE_SECONDS)


@pytest.mark.parametrize("program", ["initdb", "pg_ctl"])
def test_a_start_whose_user_is_killed_is_ended_too(tmp_path: Path, program: str) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-c", DIES, str(home), program]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    wait_until(lambda: left(home) == [], PATIENCE_SECONDS)
    assert database(home) is None

    server = EmbeddedPostgres(home)
    assert server.processes()
    server.close()


def test_a_killed_imgflow_up_leaves_nothing_behind(tmp_path: Path) -> None:
    started = start(tmp_path)
    wait_until(
        lambda: "Ready." in started.output() or started.process.poll() is not None,
        PATIENCE_SECONDS,
    )
    assert len(started.leftovers()) >= 5
    started.process.kill()
    started.process.wait()
    wait_until(lambda: started.leftovers() == [], PATIENCE_SECONDS)
