"""What answers nobody is restarted, what is merely slow is not; real processes, without Dagster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from imgflow.errors import SettingsError
from imgflow.service.supervision import probes
from imgflow.service.supervision import supervisor as supervision
from imgflow.service.supervision.probes import Probe, ask_page
from imgflow.service.supervision.processes import Service, end_all, is_stopped
from imgflow.service.supervision.supervisor import Supervisor
from imgflow_tests.ceph import free_port
from imgflow_tests.running import wait_until

# A page that answers until the file is there; then it accepts connections and says nothing. It has
# a child, as the code server has its runs.
SERVER = """
import http.server, pathlib, subprocess, sys, time
port, hung, child = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
child.write_text(str(run.pid))
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while hung.exists():
            time.sleep(0.1)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", port), Page).serve_forever()
"""


class Page:
    """A service, its probe, and its supervisor."""

    def __init__(self, folder: Path) -> None:
        self.hung, self.child = folder / "hung", folder / "child"
        port = free_port()
        command = [sys.executable, "-c", SERVER, str(port), str(self.hung), str(self.child)]
        self.service = Service("page", command, os.environ, folder / "page.log")
        self.said: list[str] = []
        self.url = f"http://127.0.0.1:{port}"
        question = partial(ask_page, self.url)
        self.probe = Probe(question, silent_seconds=2)
        self.supervisor = Supervisor([self.service], {"page": self.probe}, tuple, self.said.append)
        self.service.start()
        self.probe.start()
        wait_until(lambda: not self.probe.is_starting)

    @property
    def pid(self) -> int:
        assert self.service.process is not None
        return self.service.process.pid

    def look_until(self, happened: Callable[[], object], seconds: float = 60) -> None:
        give_up = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < give_up, self.said
            self.supervisor.look(is_hard=False)
            time.sleep(0.1)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(probes, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(probes, "ANSWER_SECONDS", 0.5)
    found = Page(tmp_path)
    yield found
    found.probe.stop()
    end_all([found.service])


def test_a_service_that_hangs_is_started_again_and_its_runs_go_on_until_the_end(
    page: Page,
) -> None:
    before = page.pid
    run = psutil.Process(int(page.child.read_text()))
    page.hung.touch()
    page.look_until(lambda: page.said)
    assert page.said[0].startswith("The page does not answer (")
    assert page.said[0].endswith(") and is started again.")
    page.hung.unlink()
    assert page.pid != before
    assert run.is_running()
    page.look_until(lambda: not page.probe.trouble)
    end_all([page.service])
    assert not run.is_running()


def test_a_service_that_a_signal_stopped_is_started_again(page: Page) -> None:
    before = page.pid
    page.probe.silent_seconds = 600
    os.kill(before, signal.SIGSTOP)
    page.look_until(lambda: page.said)
    assert page.said == ["The page was stopped by a signal and is started again."]
    assert page.pid != before


def test_what_a_service_started_goes_on_after_a_signal_stopped_it(page: Page) -> None:
    run = psutil.Process(int(page.child.read_text()))
    run.send_signal(signal.SIGSTOP)
    wait_until(lambda: is_stopped(run.pid))
    page.look_until(lambda: not is_stopped(run.pid))
    assert str(run.pid) in page.said[0]
    assert "goes on" in page.said[0]


def test_nobody_is_restarted_because_the_whole_machine_stood_still(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = page.pid
    page.supervisor.look(is_hard=False)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3_600)
    assert page.probe.is_silent()
    page.supervisor.look(is_hard=False)
    assert (page.pid, page.said) == (before, [])


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "imgflow.service.probe"),
        (
            "-c",
            "import sys; from imgflow.service.supervision import probes;"
            "probes.ask_page(sys.argv[1])",
        ),
    ],
)
def test_own_pages_are_not_asked_for_through_a_proxy(page: Page, command: tuple[str, str]) -> None:
    """A machine behind one has it in its environment, and often without exceptions."""
    variables = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    variables["http_proxy"] = f"http://127.0.0.1:{free_port()}"
    asked = subprocess.run(
        [sys.executable, *command, page.url],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr


def test_each_restart_of_what_does_not_answer_gives_it_twice_the_time(page: Page) -> None:
    page.hung.touch()
    page.look_until(lambda: page.said)
    assert page.probe.silent_seconds == 4


def test_after_a_day_without_such_a_restart_it_has_the_first_time_again(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.hung.touch()
    page.look_until(lambda: page.said)
    page.hung.unlink()
    page.look_until(lambda: not page.probe.is_starting)
    assert page.probe.silent_seconds == 4
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 90_000)
    wait_until(lambda: page.probe.silent_seconds == 2, 10)


def test_a_service_that_starts_may_take_longer_to_answer(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.hung.touch()
    page.probe.start()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + probes.START_SECONDS - 10)
    assert not page.probe.is_silent()
    monkeypatch.setattr(time, "monotonic", lambda: now + probes.START_SECONDS + 10)
    assert page.probe.is_silent()


def test_a_service_that_ends_again_and_again_ends_all_unless_something_outside_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "AGAIN_SECONDS", 0.2)
    service = Service(
        "short", [sys.executable, "-c", "raise SystemExit(3)"], os.environ, tmp_path / "x"
    )
    said: list[str] = []
    probe = Probe(lambda: None)
    supervisor = Supervisor([service], {"short": probe}, tuple, said.append)
    service.start()
    give_up = time.monotonic() + 60
    while len(service.starts) < 8:
        assert time.monotonic() < give_up
        supervisor.look(is_hard=True)
        time.sleep(0.05)
    wait_until(lambda: service.has_ended() is not None)
    with pytest.raises(SettingsError, match="The short ended with 3"):
        supervisor.look(is_hard=False)
    probe.stop()


def test_services_hear_signals_that_whoever_started_them_ignores(tmp_path: Path) -> None:
    """As `imgflow up &` in a script does; Dagster does at SIGTERM what it does at SIGINT."""
    asks = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    service = Service("asks", [sys.executable, "-c", asks], os.environ, tmp_path / "log")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        service.start()
    finally:
        signal.signal(signal.SIGINT, before)
    assert service.process is not None
    service.process.wait()
    assert "False" in service.log.read_text()
