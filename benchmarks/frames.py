"""Depth frames of 500 rows: read and drawn by imgflow, against drawing the same rows from memory.

A frame from the database is measured for a short and for a tall image, since it must not depend on
the height; over HTTP on a connection that stays open, with one request at a time.
"""

import http.client
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import sqlalchemy as sa
import uvicorn

from benchmarks.table import Measure, show
from imgflow.api.app import create_app
from imgflow.catalog.connecting import make_engine
from imgflow.catalog.depth_arrays import DepthArrays
from imgflow.catalog.embedded import embedded_postgres
from imgflow.depth.frames import render_frame
from imgflow.depth.ordering import ResizedChunk
from imgflow.depth.recipe import CHUNK_ROWS
from imgflow.depth.resampling import resize_width
from imgflow.depth.samples import sample_block
from imgflow_tests.api.library import Library

FRAME_ROWS = 500
WIDTH = 150
FRAMES = 200
SMALL = 20_000


def chunks(rows: int) -> Iterator[ResizedChunk]:
    """A picture over and over; row number n is at depth n."""
    block = resize_width(sample_block().astype(np.float32), WIDTH)
    for start in range(0, rows, CHUNK_ROWS):
        numbers = np.arange(start, min(start + CHUNK_ROWS, rows))
        pixels = block[numbers % len(block)]
        yield ResizedChunk(start // CHUNK_ROWS, start, numbers.astype(np.float64), pixels)


def store(library: Library, key: str, rows: int) -> int:
    """Put an array of so many rows into the place of a small one, and return the image's id."""
    image = library.add(key, b"depth,a\n0,0\n1,255\n")
    DepthArrays(library.engine).store(image.id, image.outputs["resized"]["name"], chunks(rows))
    statement = sa.text(
        "UPDATE images SET outputs = jsonb_set(outputs, '{resized,facts,depth_max}', "
        "to_jsonb(CAST(:last AS float8))) WHERE id = :id"
    )
    with library.engine.begin() as connection:
        connection.execute(statement, {"last": rows - 1, "id": image.id})
    return image.id


def p50(work: Callable[[int], object], rows: int) -> float:
    """Milliseconds of frames that begin anywhere."""
    starts = np.random.default_rng(0).integers(0, rows - FRAME_ROWS, FRAMES).tolist()
    seconds = []
    for start in starts:
        began = time.perf_counter()
        work(start)
        seconds.append(time.perf_counter() - began)
    return 1_000 * median(seconds)


def over_http(library: Library, image_id: int, rows: int) -> float:
    """The same from a server of its own, on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(create_app(library.settings), log_level="error", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        connection = http.client.HTTPConnection(*listening.getsockname(), timeout=30)

        def frame(start: int) -> None:
            path = f"/image/{image_id}?depth_min={start}&depth_max={start + FRAME_ROWS - 1}"
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise RuntimeError(f"{path}: {answer.status}")

        try:
            return p50(frame, rows)
        finally:
            connection.close()
            server.should_exit = True
            thread.join()


def measure(rows: int = 1_000_000) -> list[Measure]:
    """Each beside colour map and JPEG of 500 rows that are in memory already."""
    block = next(chunks(SMALL)).pixels[:FRAME_ROWS]
    measures = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        database = embedded_postgres(home)
        library = Library(home, database.url)
        engine = make_engine(database.url)
        arrays = DepthArrays(engine)
        images = {height: store(library, f"{height}.csv", height) for height in (SMALL, rows)}
        bare = p50(lambda _: render_frame(block, "strata", (0, 255)), SMALL)

        def add(name: str, ours: float) -> None:
            peer = "colour map and JPEG of the rows alone"
            measures.append(Measure(name, ours, peer, bare, ours / bare, "<= 1.3"))

        for height, image_id in images.items():

            def frame(start: int, image_id: int = image_id) -> None:
                interval = arrays.read(image_id, start, start + FRAME_ROWS - 1)
                render_frame(interval.pixels, "strata", (0, 255))

            add(f"frame of 500 rows of {height:,}, ms", p50(frame, height))
        add(f"the same over HTTP, of {rows:,}, ms", over_http(library, images[rows], rows))
        engine.dispose()
        library.engine.dispose()
        database.close()
    return measures


if __name__ == "__main__":
    show(measure())
