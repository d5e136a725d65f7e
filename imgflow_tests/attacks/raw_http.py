"""The API in a process of its own, and clients that misbehave on its sockets."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from imgflow.settings.tokens import own_token
from imgflow.settings.variables import Settings
from imgflow_tests.ceph import free_port
from imgflow_tests.patience import PATIENCE_SECONDS

MIB = 2**20
# As `python -m imgflow.api`, with bounds of a test's own.
SERVER = """
import sys
from imgflow.api.app import create_app
from imgflow.web.client_bounds import Bounds
from imgflow.web.server import serve
from imgflow.settings.variables import load_settings
settings = load_settings()
serve(
    create_app(settings), host=settings.api_host, port=settings.api_port,
    log_level="warning", bounds=Bounds({bounds}),
)
"""


@dataclass(frozen=True)
class Attacked:
    """A running API."""

    port: int
    process: psutil.Process
    token: str

    @property
    def memory(self) -> int:
        """Bytes of the process."""
        rss: int = self.process.memory_info().rss
        return rss

    @property
    def authorization(self) -> str:
        return f"Authorization: Bearer {self.token}\r\n"

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """A connection, with a small window if wanted."""
        attacker = socket.socket()
        if receive_bytes is not None:
            attacker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        attacker.settimeout(PATIENCE_SECONDS)
        attacker.connect(("127.0.0.1", self.port))
        return attacker

    def get(self, path: str) -> httpx.Response:
        """What somebody else is answered, on a connection of their own."""
        return httpx.get(
            f"http://127.0.0.1:{self.port}{path}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=PATIENCE_SECONDS,
        )

    def slowest(self, path: str, meanwhile: Callable[[], object], count: int = 10) -> float:
        """Ask as another client while something happens; seconds of the slowest answer."""
        slowest = 0.0
        for _ in range(count):
            meanwhile()
            began = time.perf_counter()
            assert self.get(path).status_code == 200
            slowest = max(slowest, time.perf_counter() - began)
        return slowest


@contextmanager
def attacked(
    settings: Settings, *, files: int | None = None, bounds: str = ""
) -> Iterator[Attacked]:
    """Run the API.

    Args:
        settings: With a database that is there.
        files: Descriptors that it may have, instead of as many as the test.
        bounds: Arguments of `Bounds`; by default it runs as `python -m imgflow.api`.
    """
    port = free_port()
    folder = settings.home.parent
    temporary = folder / "temporary"
    temporary.mkdir(parents=True, exist_ok=True)
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMGFLOW_")},
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "IMGFLOW_HOME": str(settings.home),
        "IMGFLOW_DATABASE_URL": settings.database_url,
        "IMGFLOW_API_PORT": str(port),
        "TMPDIR": str(temporary),
        "MALLOC_ARENA_MAX": "2",  # as `imgflow up` and containers have it
    }
    command = ["-c", SERVER.format(bounds=bounds)] if bounds else ["-m", "imgflow.api"]
    limit = (files, files) if files else resource.getrlimit(resource.RLIMIT_NOFILE)
    log = folder / f"api-{port}.log"
    with log.open("wb") as opened, ExitStack() as ends:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=variables,
            stdout=opened,
            stderr=opened,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),  # noqa: PLW1509
        )
        ends.callback(process.wait)
        ends.callback(process.kill)
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up
            time.sleep(0.05)
        yield Attacked(port, psutil.Process(process.pid), own_token(settings.home))


def is_ended(attacker: socket.socket) -> bool:
    """Whether the server ends a connection, which is waited for; what it says is read."""
    try:
        while attacker.recv(65_536):
            pass
    except (ConnectionResetError, BrokenPipeError):
        return True
    except TimeoutError:
        return False
    return True


def flood(attacker: socket.socket, piece: bytes, most: int) -> int:
    """Send a piece again and again until the server ends the connection; bytes that it took."""
    taken = 0
    try:
        while taken < most:
            taken += attacker.send(piece)
    except (ConnectionResetError, BrokenPipeError):
        pass
    return taken


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/").status_code == 200
    except httpx.TransportError:
        return False
