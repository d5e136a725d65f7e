"""A process of `imgflow up` that it did not start itself is killed, and everything waits for ever.

Dagster's `code-server start` ran the server that evaluates sensors as a child, and did not start it
again: `imgflow up`, `/health/ready` and `imgflow doctor` said nothing, and no upload was processed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, ready, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ready(tmp_path_factory.mktemp("up")) as started:
        yield started


def servers(running: Running) -> list[psutil.Process]:
    """Those that evaluate sensors: who has the definitions and listens."""
    found = []
    for process in psutil.Process(running.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "imgflow.definitions" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_uploads_are_processed_after_the_innermost_code_server_is_hit(
    running: Running, number: signal.Signals
) -> None:
    innermost = servers(running)[-1]
    innermost.send_signal(number)
    (running.home / "source" / f"after{number}.jpg").write_bytes(jpeg(200, 150))
    wait_until(
        lambda: [one for one in running.images(state="ready") if str(int(number)) in one["key"]],
        PATIENCE_SECONDS,
    )
    assert servers(running)[-1].pid != innermost.pid


def test_nobody_else_on_the_machine_reaches_the_code_server(running: Running) -> None:
    (server,) = servers(running)
    assert not [one for one in server.net_connections() if one.status == psutil.CONN_LISTEN]
    (socket,) = running.home.rglob("*.sock")
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({str(socket)!r})"
    assert subprocess.run([sys.executable, "-c", connect], check=False).returncode == 0
    for folder in (running.home, *running.home.parents):
        folder.chmod(
            folder.stat().st_mode | 0o011
        )  # the socket's own folder is what keeps them out
        if folder == Path(running.home).parents[1]:
            break
    done = subprocess.run(
        [sys.executable, "-c", connect],
        user="nobody",
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert "PermissionError" in done.stderr
