"""Depth frames of 500 rows: read and drawn by imgflow, against drawing the same rows from memory.

Frames from the database are measured for a short and for a tall image, since the height must not
matter. Frames over HTTP come from a server process, on one open connection, one request at a time.
No interval is requested twice, and only PostgreSQL caches.
"""

import http.client
import io
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import sqlalchemy as sa
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.table import Measure, show
from imgflow.api.app import create_app
from imgflow.catalog.database.embedded_postgres import embedded_postgres
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.depth.colormaps import get_colormap
from imgflow.depth.depth_recipe import CHUNK_ROWS
from imgflow.depth.frames import render_frame
from imgflow.depth.ordering import ResizedChunk
from imgflow.depth.resampling import resize_width
from imgflow.service.samples import sample_block
from imgflow.settings.variables import Settings
from imgflow_tests.api.library import Library

FRAME_ROWS = 500
WIDTH = 150
# Warm up, since the process of a new connection touches each shared buffer for the first time once.
FRAMES, ROUNDS, WARM_UP = 100, 10, 1_600
SMALL = 20_000


COLORS = get_colormap("strata")
BLOCK = resize_width(sample_block().astype(np.float32), WIDTH)[300 : 300 + FRAME_ROWS].copy()


def chunks(rows: int) -> Iterator[ResizedChunk]:
    """Yield a picture over and over; row number n is at depth n."""
    block = resize_width(sample_block().astype(np.float32), WIDTH)
    for start in range(0, rows, CHUNK_ROWS):
        numbers = np.arange(start, min(start + CHUNK_ROWS, rows))
        pixels = block[numbers % len(block)]
        yield ResizedChunk(start // CHUNK_ROWS, start, numbers.astype(np.float64), pixels)


def store(library: Library, key: str, rows: int) -> int:
    """Replace a small array by one with this many rows, and return the image's id."""
    image = library.add(key, b"depth,a\n0,0\n1,255\n")
    DepthArrays(library.engine).store(image.id, image.outputs["resized"]["name"], chunks(rows))
    statement = sa.text(
        "UPDATE images SET outputs = jsonb_set(outputs, '{resized,facts,depth_max}', "
        "to_jsonb(CAST(:last AS float8))) WHERE id = :id"
    )
    with library.engine.begin() as connection:
        connection.execute(statement, {"last": rows - 1, "id": image.id})
    # The database does this itself within minutes; until then, reading a page also writes it.
    with library.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE depth_chunks"))
        connection.execute(sa.text("CHECKPOINT"))
    return image.id


def p50(work: Callable[[int], object], rows: int) -> float:
    """Return the milliseconds of a frame that starts anywhere: the median of the best round.

    The best round counts, since other load only slows rounds down, ours and the peer's.
    """
    starts = np.random.default_rng(0).integers(0, rows - FRAME_ROWS, WARM_UP + ROUNDS * FRAMES)
    for start in starts[:WARM_UP].tolist():
        work(start)
    medians = []
    for begin in range(WARM_UP, len(starts), FRAMES):
        seconds = []
        for start in starts[begin : begin + FRAMES].tolist():
            began = time.perf_counter()
            work(start)
            seconds.append(time.perf_counter() - began)
        medians.append(1_000 * median(seconds))
    return min(medians)


def bare(pixels: NDArray[np.float32]) -> bytes:
    """Apply a colour map and encode a JPEG, in the obvious way with numpy and Pillow."""
    out = io.BytesIO()
    colors = COLORS[np.clip(np.rint(pixels), 0, 255).astype(np.uint8)]
    Image.fromarray(colors).save(out, "JPEG", quality=85)
    return out.getvalue()


async def bare_server(scope: Scope, receive: Receive, send: Send) -> None:
    """Do the same behind uvicorn alone: rows in memory, no routes, no threads, no lookups."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    picture = bare(BLOCK)
    headers = [(b"content-length", b"%d" % len(picture)), (b"content-type", b"image/jpeg")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": picture})


def serve(app: ASGIApp | Settings, listening: socket.socket) -> None:
    """Run a server; called in a separate process."""
    made = create_app(app) if isinstance(app, Settings) else app
    config = uvicorn.Config(made, log_level="error", access_log=False)
    uvicorn.Server(config).run([listening])


def over_http(app: ASGIApp | Settings, image_id: int, rows: int, token: str = "") -> float:
    """Return the milliseconds of a frame as in `p50`, over one open connection to loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = get_context("spawn").Process(target=serve, args=(app, listening), daemon=True)
        server.start()
        connection = http.client.HTTPConnection(*listening.getsockname(), timeout=30)

        def frame(start: int) -> None:
            path = f"/image/{image_id}?depth_min={start}&depth_max={start + FRAME_ROWS - 1}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise RuntimeError(f"{path}: {answer.status}")

        try:
            return p50(frame, rows)
        finally:
            connection.close()
            server.terminate()
            server.join()


def measure(rows: int = 1_000_000) -> list[Measure]:
    """Measure each beside a colour map and JPEG of 500 rows that are in memory already."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        database = embedded_postgres(home)
        library = Library(home, database.url)
        engine = make_engine(database.url, pre_ping=False)
        arrays = DepthArrays(engine)
        images = {height: store(library, f"{height}.csv", height) for height in (SMALL, rows)}
        measures = []

        def add(name: str, ours: float, peer: float, of_peer: str) -> None:
            peer_name = f"colour map and JPEG of rows in memory, {of_peer}"
            measures.append(Measure(name, ours, peer_name, peer, ours / peer, "<= 1.3"))

        by_numpy = p50(lambda _: bare(BLOCK), SMALL)
        add(
            "colour map and JPEG by imgflow, ms",
            p50(lambda _: render_frame(BLOCK, "strata", (0, 255)), SMALL),
            by_numpy,
            "numpy and Pillow",
        )
        for height, image_id in images.items():

            def frame(start: int, image_id: int = image_id) -> None:
                interval = arrays.read(image_id, start, start + FRAME_ROWS - 1)
                render_frame(interval.pixels, "strata", (0, 255))

            name = f"frame of 500 rows of {height:,} from the database, ms"
            add(name, p50(frame, height), by_numpy, "numpy and Pillow")
        ours = over_http(library.settings, images[rows], rows, library.token)
        name = f"frame of 500 rows of {rows:,} over HTTP, ms"
        add(name, ours, over_http(bare_server, 0, rows), "behind uvicorn alone")
        add(name, ours, by_numpy, "without HTTP")
        engine.dispose()
        library.engine.dispose()
        database.close()
    return measures


if __name__ == "__main__":
    show(measure())
