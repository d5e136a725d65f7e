"""A started `imgflow up`, for tests of what its user sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from imgflow_tests.ceph import free_port
from imgflow_tests.patience import PATIENCE_SECONDS

COMMAND = [sys.executable, "-m", "imgflow"]


def wait_until(condition: Callable[[], object], seconds: float = 60) -> Any:
    """Look again and again; what is waited for happens in other processes."""
    give_up = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.1)


@dataclass
class Running:
    """A started `imgflow up`."""

    process: subprocess.Popen[bytes]
    variables: Mapping[str, str]
    home: Path
    log: Path

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.variables['IMGFLOW_API_PORT']}"

    @property
    def dagster(self) -> str:
        return f"http://127.0.0.1:{self.variables['IMGFLOW_DAGSTER_PORT']}"

    def output(self) -> str:
        return self.log.read_text()

    def read(self, path: str, **parameters: str) -> httpx.Response:
        """Ask the API with the token that is in the home."""
        token = self.variables.get("IMGFLOW_API_TOKEN") or (self.home / "api-token").read_text()
        headers = {"Authorization": f"Bearer {token.strip()}"}
        return httpx.get(f"{self.api}{path}", params=parameters or None, headers=headers)

    def images(self, **filters: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.read("/images", **filters).json()["items"]
        return items

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            env=dict(self.variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.dagster}/graphql", json={"query": query, "variables": variables}, timeout=60
        ).json()
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    def leftovers(self) -> list[str]:
        """Processes that know this home: by their arguments or their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                knows = str(self.home) in " ".join(process.cmdline()) or process.environ().get(
                    "IMGFLOW_HOME"
                ) == str(self.home)
                if knows and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def start(folder: Path, *arguments: str, **variables: str) -> Running:
    home = folder / "home"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMGFLOW_")},
        "IMGFLOW_HOME": str(home),
        "IMGFLOW_DAGSTER_PORT": str(free_port()),
        "IMGFLOW_API_PORT": str(free_port()),
        **variables,
    }
    log = folder / "out.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "up", *arguments], cwd=folder, env=environment, stdout=out, stderr=out
        )
    return Running(process, environment, home, log)


def stop(running: Running, number: signal.Signals) -> int:
    if running.process.poll() is None:
        running.process.send_signal(number)
    return running.process.wait(60)


@contextmanager
def ready(folder: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    """A started `imgflow up` whose pages answer; it is stopped at the end."""
    started = start(folder, *arguments, **variables)
    try:
        wait_until(
            lambda: "Ready." in started.output() or started.process.poll() is not None,
            PATIENCE_SECONDS,
        )
        assert started.process.poll() is None, started.output()
        yield started
    finally:
        stop(started, signal.SIGTERM)
