"""The API as it runs: a process of its own, asked over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from imgflow_tests.api.library import Library, bearer, encoded
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import depth_csv, png

KEYS = ["a/b/thumbnail", "100%25.jpg", "a b+c#?.png", "ü/日本.jpg", "q'\"[x],y;z.png", "a...b.jpg"]
BIG = "big file.bin"
BIG_BYTES = 48 * 2**20


@pytest.fixture(scope="module")
def served(library: Library) -> Iterator[Library]:
    served = Library(library.settings.home / "served", library.settings.database_url)
    for number, key in enumerate(KEYS):
        served.put(key, png(20 + number, 10, seed=number))
    served.put("w/1.csv", depth_csv(rows=30))
    served.put(BIG, np.random.default_rng(0).bytes(BIG_BYTES))
    served.announce()
    served.process(*KEYS, "w/1.csv")
    yield served
    served.engine.dispose()


@pytest.fixture(scope="module")
def server_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def server(served: Library, server_log: Path) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("IMGFLOW_")},
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "IMGFLOW_HOME": str(served.settings.home),
        "IMGFLOW_DATABASE_URL": served.settings.database_url,
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "imgflow.api.app:create_app"]
    with server_log.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=server_log.parent,
            env=variables,
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers=bearer(served.token),
            timeout=PATIENCE_SECONDS,
        ) as client:
            for _ in range(200):
                assert process.poll() is None, server_log.read_text()
                try:
                    client.get("/health/")
                    break
                except httpx.ConnectError:
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def test_a_real_server_is_ready(server: httpx.Client) -> None:
    assert server.get("/health/ready").status_code == 200


@pytest.mark.parametrize("key", KEYS)
def test_percent_encoded_keys_arrive_as_they_were_sent(
    server: httpx.Client, served: Library, key: str
) -> None:
    row = server.get(f"/images/{encoded(key)}").json()
    assert row["id"] == served.image(key).id
    original = server.get(f"/images/{encoded(key)}/original")
    assert original.content == (served.folder / key).read_bytes()
    thumbnail = server.get(f"/images/{encoded(key)}/thumbnail")
    assert thumbnail.content == server.get(row["outputs"]["thumbnail"]["url"]).content


def test_heads_ranges_and_conditions_work_over_the_wire(server: httpx.Client) -> None:
    url = f"/images/{encoded(KEYS[0])}/thumbnail"
    whole = server.get(url)
    head = server.head(url)
    assert (head.content, head.headers["Content-Length"]) == (b"", str(len(whole.content)))
    assert server.get(url, headers={"Range": "bytes=2-5"}).content == whole.content[2:6]
    known = server.get(url, headers={"If-None-Match": whole.headers["ETag"]})
    assert (known.status_code, known.content) == (304, b"")
    frame = f"/image/{encoded('w/1.csv')}"
    assert server.head(frame).headers["ETag"] == server.get(frame).headers["ETag"]
    assert server.head("/images").content == b""


def test_a_large_original_streams(server: httpx.Client, served: Library) -> None:
    url = f"/images/{encoded(BIG)}/original"
    body = (served.folder / BIG).read_bytes()
    assert server.get(url).content == body
    last = server.get(url, headers={"Range": "bytes=-1000"})
    assert last.content == body[-1000:]


def test_an_upload_that_changes_while_it_is_sent_is_seen_to_be_cut_short(
    server: httpx.Client, served: Library
) -> None:
    file = served.folder / "growing.bin"
    file.write_bytes(bytes(BIG_BYTES))
    served.announce()
    received = 0

    def receive() -> None:
        nonlocal received
        with server.stream("GET", f"/images/{encoded(file.name)}/original") as answer:
            assert answer.headers["Content-Length"] == str(BIG_BYTES)
            for piece in answer.iter_raw():
                if not received:
                    with file.open("ab") as growing:
                        growing.write(b"more")
                received += len(piece)

    with pytest.raises(httpx.RemoteProtocolError):
        receive()
    assert 0 < received < BIG_BYTES
    assert server.get("/health/").status_code == 200


def test_the_log_of_requests_shows_no_signature(
    server: httpx.Client, served: Library, server_log: Path
) -> None:
    image = served.image(KEYS[0]).id
    secret = "A" * 43
    server.get(f"/images/{image}/thumbnail?expires=17&signature={secret}")
    server.get(f"/images?prefix=x&X-Amz-Signature={secret}&X-Amz-Credential={secret}")
    server.get(f"/images?prefix=https%3A%2F%2Fs3%2Fa%3FX-Amz-Signature%3D{secret}")
    log = server_log.read_text()
    assert f"/images/{image}/thumbnail?expires=17&signature=*** HTTP" in log
    assert log.count("***") >= 4
    assert secret not in log


def test_alone_it_starts_from_its_settings_or_says_why_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imgflow.api"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "IMGFLOW_API_HOST": "0.0.0.0"},  # noqa: S104
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("imgflow: IMGFLOW_API_HOST=0.0.0.0 lets other machines reach")
