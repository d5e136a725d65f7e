"""A process of `imgflow up` that it did not start itself is killed, and everything waits for ever.

Dagster's `code-server start` ran the server that evaluates sensors as a child, and did not start it
again: `imgflow up`, `/health/ready` and `imgflow doctor` said nothing, and no upload was processed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from imgflow_tests.ceph import free_port
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, ready, wait_until

NOBODY = 65_534

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
    connect = (
        "import os, socket; os.setuid({}); "
        f"socket.socket(socket.AF_UNIX).connect({str(socket)!r})"
    )
    for folder in (running.home, running.home.parent, running.home.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o011)  # the socket's own folder keeps them out

    def connected_as(user: int) -> str:
        command = [sys.executable, "-c", connect.format(user)]
        return subprocess.run(command, check=False, capture_output=True, text=True).stderr

    assert connected_as(os.geteuid()) == ""
    if os.geteuid() == 0:  # who else may become somebody else
        assert "PermissionError" in connected_as(NOBODY)
    assert socket.parent.stat().st_mode & 0o777 == 0o700


# `imgflow up` of which a part does not start, beside one that does not listen to SIGTERM.
ENDING = """
import os, sys
from pathlib import Path
from imgflow.service import up as module
from imgflow.errors import SettingsError
from imgflow.service.supervision.processes import Service
from imgflow.settings.variables import load_settings

deaf = "import signal, time; signal.signal(15, 1); print('deaf', flush=True); time.sleep(600)"
log = Path(sys.argv[1])
service = Service("deaf", [sys.executable, "-c", deaf], os.environ, log)

def start(*_):
    service.start()
    while "deaf" not in log.read_text():
        pass
    print(service.process.pid, flush=True)
    raise SettingsError("a part does not start")

module._prepare = lambda *_, **__: None
module.database_url = lambda _: ""
module._services = lambda *_: [service]
module._start = start
module.up(load_settings(), print)
"""


def test_a_signal_while_all_is_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    variables = {**os.environ, "IMGFLOW_HOME": str(tmp_path / "home")}
    variables |= {"IMGFLOW_API_PORT": str(free_port()), "IMGFLOW_DAGSTER_PORT": str(free_port())}
    command = [sys.executable, "-c", ENDING, str(tmp_path / "log")]
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout is not None
        deaf = psutil.Process(int(up.stdout.readline()))
        try:
            wait_until(lambda: len(psutil.Process(up.pid).children()) == 1)
            time.sleep(1)
            up.send_signal(signal.SIGTERM)
            up.wait(60)
            assert not deaf.is_running()
        finally:
            with suppress(psutil.NoSuchProcess):
                deaf.kill()
