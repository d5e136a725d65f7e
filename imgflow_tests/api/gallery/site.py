"""The gallery as people have it: a process of the API over images that were really ingested."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from imgflow.catalog.records import Image
from imgflow_tests.api.library import Library
from imgflow_tests.ceph import free_port
from imgflow_tests.patience import PATIENCE_SECONDS

TOKEN, READER = "the-token", "the-reader"  # of these tests
TOKENS = f"{TOKEN},{READER}:read"
WATERMARK = "© imgflow"


class Site:
    """A home, its images, and the address of its gallery."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.library = Library(home, database_url, api_token=TOKENS, watermark_text=WATERMARK)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("IMGFLOW")},
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "IMGFLOW_HOME": str(home),
            "IMGFLOW_DATABASE_URL": database_url,
            "IMGFLOW_API_TOKEN": TOKENS,
            "IMGFLOW_API_PORT": str(self.port),
            "IMGFLOW_WATERMARK_TEXT": WATERMARK,
            "IMGFLOW_WORKERS": "2",
        }
        self.folder = home.parent

    def image(self, key: str) -> Image:
        return self.library.image(key)

    def page_of(self, key: str) -> str:
        return f"{self.url}/gallery/{self.image(key).id}"

    def ingest(self) -> dict[str, Any]:
        """Process what waits as `imgflow ingest` does: through Dagster."""
        command = [sys.executable, "-m", "imgflow", "ingest", "--json"]
        done = subprocess.run(
            command, env=self.variables, cwd=self.folder, capture_output=True, text=True, check=True
        )
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return report

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the API."""
        with (self.folder / "api.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "imgflow.api"],
                env=self.variables,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        try:
            give_up = time.monotonic() + PATIENCE_SECONDS
            while not self._answers():
                assert process.poll() is None, (self.folder / "api.log").read_text()
                assert time.monotonic() < give_up
                time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/").status_code == 200
        except httpx.TransportError:
            return False
