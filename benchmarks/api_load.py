"""The API under 200 clients at once: list, picture and frame, against a bare static file server.

The peer serves the same thumbnails from a folder, with the same server (uvicorn, Starlette's
`StaticFiles`) in its own process. The difference is what imgflow does for a picture: look up its
row, check who may see it, and read it from the store.

    python -m benchmarks.api_load 60        # for a minute, with the times of each route
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks.table import Measure, show
from imgflow.catalog.database.embedded_postgres import embedded_postgres
from imgflow_tests.api.library import Library
from imgflow_tests.pictures import depth_csv, jpeg

CLIENTS = 200
SECONDS = 10.0
PHOTOS = 100
OK = 200

STATIC = "from starlette.staticfiles import StaticFiles; app = StaticFiles(directory={folder!r})"


@dataclass
class Load:
    """What clients measured.

    Attributes:
        seconds: Duration of every answer, by kind of request.
        errors: Answers other than 200, and broken connections.
        megabytes: The server's memory, sampled all the time.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def answers(self) -> int:
        """Return the number of answers."""
        return sum(map(len, self.seconds.values()))

    def quantile(self, share: float, kind: str | None = None) -> float:
        """Return the milliseconds within which this share of the answers came."""
        taken = sorted(
            second
            for name, seconds in self.seconds.items()
            for second in seconds
            if kind is None or name == kind
        )
        return 1_000 * taken[min(len(taken) - 1, int(share * len(taken)))]

    def growth(self) -> float:
        """Return the ratio of the memory in the last quarter of the time to the second quarter."""
        quarter = len(self.megabytes) // 4
        second, last = self.megabytes[quarter : 2 * quarter], self.megabytes[3 * quarter :]
        return (sum(last) / len(last)) / (sum(second) / len(second))


async def load(
    address: str,
    paths: dict[str, Sequence[str]],
    *,
    clients: int,
    seconds: float,
    pid: int,
    token: str,
) -> Load:
    """Request paths of each kind in turn, with one open connection for each of the clients."""
    seen = Load({kind: [] for kind in paths})
    process = psutil.Process(pid)
    end = time.monotonic() + seconds

    async def watch() -> None:
        while time.monotonic() < end:
            seen.megabytes.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(seconds / 200)

    host = urlsplit(address)
    kinds = list(paths)

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host.hostname, host.port, limit=2**20)
        asked = number
        try:
            while time.monotonic() < end:
                kind = kinds[asked % len(kinds)]
                path = paths[kind][asked // len(kinds) % len(paths[kind])]
                asked += 1
                began = time.perf_counter()
                status = await ask(reader, writer, host.netloc, path, token)
                if status != OK:
                    seen.errors.append(f"{status} {path}")
                seen.seconds[kind].append(time.perf_counter() - began)
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.errors.append(repr(error))
        finally:
            writer.close()

    await asyncio.gather(watch(), *(client(number) for number in range(clients)))
    return seen


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str, token: str
) -> int:
    """Send one request and read the complete answer, with a client as cheap as possible."""
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(head.encode())
    answered = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = answered.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(answered[9:12])


@contextlib.contextmanager
def serving(code: str, variables: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run uvicorn in a separate process; yields its address and process id."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    run = f"{code}\nimport uvicorn\nuvicorn.run(app, port={port}, log_level='error')"
    process = subprocess.Popen([sys.executable, "-c", run], env={**os.environ, **variables})
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def serving_library(library: Library) -> Iterator[tuple[str, int]]:
    """Serve a library by the API."""
    variables = {
        "IMGFLOW_HOME": str(library.settings.home),
        "IMGFLOW_DATABASE_URL": library.settings.database_url,
    }
    code = "from imgflow.api.app import create_app; app = create_app()"
    with serving(code, variables) as server:
        yield server


def fill(library: Library, photos: int) -> dict[str, Sequence[str]]:
    """Put images in, and return the paths that show them, by kind."""
    for number in range(photos):
        library.put(f"{number:04d}.jpg", jpeg(640, 480, seed=number))
    library.put("well.csv", depth_csv(rows=5_000, first=1_000.0))
    library.announce()
    library.process()
    ids = [library.image(f"{number:04d}.jpg").id for number in range(photos)]
    depth = library.image("well.csv").id
    return {
        "list": [f"/images?limit=20&kind={kind}" for kind in ("photo", "depth")],
        "picture": [f"/images/{image}/thumbnail" for image in ids],
        "frame": [
            f"/image/{depth}?depth_min={1_000 + start}&depth_max={1_020 + start}"
            for start in range(0, 480, 7)
        ],
    }


def measure(seconds: float = SECONDS, clients: int = CLIENTS) -> list[Measure]:
    """Measure pictures alone beside the peer, then everything together."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        library = Library(home / "home", embedded_postgres(home / "pg").url)
        paths = fill(library, PHOTOS)
        static = home / "static"
        static.mkdir()
        for number in range(PHOTOS):
            record = library.image(f"{number:04d}.jpg").outputs["thumbnail"]
            body = library.worker.outputs.get(record["name"])
            (static / f"{number}.jpg").write_bytes(body or b"")

        def run(server: tuple[str, int], asked: dict[str, Sequence[str]]) -> Load:
            address, pid = server
            seen = asyncio.run(
                load(
                    address,
                    asked,
                    clients=clients,
                    seconds=seconds,
                    pid=pid,
                    token=library.token,
                )
            )
            if seen.errors:
                raise RuntimeError(f"{len(seen.errors)} errors, such as {seen.errors[0]}")
            return seen

        files = {"picture": [f"/{number}.jpg" for number in range(PHOTOS)]}
        with serving(STATIC.format(folder=str(static)), {}) as server:
            peer = run(server, files)
        with serving_library(library) as server:
            run(server, paths)  # warm
            pictures = run(server, {"picture": paths["picture"]})
            mixed = run(server, paths)
        library.engine.dispose()
    ours, theirs = pictures.answers() / seconds, peer.answers() / seconds
    for kind in paths:
        print(
            f"{kind}: {len(mixed.seconds[kind]) / seconds:.0f}/s, "
            f"p50 {mixed.quantile(0.5, kind):.0f} ms, p99 {mixed.quantile(0.99, kind):.0f} ms"
        )
    return [
        Measure(
            f"pictures a second, {clients} clients",
            ours,
            "bare static file server (uvicorn, StaticFiles)",
            theirs,
            ours / theirs,
            "stated",
        ),
        Measure(
            f"p99 of pictures, {clients} clients, ms",
            pictures.quantile(0.99),
            "the same server",
            peer.quantile(0.99),
            pictures.quantile(0.99) / peer.quantile(0.99),
            "stated",
        ),
        Measure(
            f"list, picture and frame, {clients} clients: p99, ms",
            mixed.quantile(0.99),
            "pictures alone",
            pictures.quantile(0.99),
            mixed.quantile(0.99) / pictures.quantile(0.99),
            "no error",
        ),
        Measure(
            "memory of the API at the end, MB",
            mixed.megabytes[-1],
            "in the second quarter",
            mixed.megabytes[len(mixed.megabytes) // 4],
            mixed.growth(),
            "<= 1.05",
        ),
    ]


if __name__ == "__main__":
    show(measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
