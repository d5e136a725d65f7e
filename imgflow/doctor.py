"""`imgflow doctor`: looks at every part, and says of each whether it is well and what mends it.

It changes nothing but a probe object that it writes to the outputs and removes, and it makes
nothing that the first start would make. Parts are looked at side by side, each for a few seconds at
most, so one that hangs keeps nothing from being said of the others.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import socket
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from imgflow.errors import ImgflowError
from imgflow.observability.traces import check_traces
from imgflow.settings import Settings
from imgflow.store.location import Location
from imgflow.store.naming import OUTPUT_FOLDERS
from imgflow.store.opening import StoreConfig

LOOPBACK = "127.0.0.1"

# S3 is asked up to four times with pauses between; a healthy one answers the first time.
PART_SECONDS = 15.0

LEAST_FREE_BYTES = 1_000_000_000

# Workers, connections and the files that are read at a time take about 200 in each process.
LEAST_FILES = 1_024


State = Literal["ok", "notice", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Attributes:
        part: what was looked at.
        state: `ok`, `notice` for what a person may want to know, `wrong` for what must be mended.
        text: what was found, and of what is wrong the mend.
    """

    part: str
    state: State
    text: str

    def line(self) -> str:
        """For people."""
        return f"{self.state:>6}  {self.part}: {self.text}"


Check = Callable[[], Iterable[Finding]]
"""Looks at one part; raises `ImgflowError` with the mend in its text when it is wrong."""


def ok(part: str, text: str) -> Finding:
    """A part that is well."""
    return Finding(part, "ok", text)


def wrong(part: str, text: str) -> Finding:
    """A part that must be mended; the text says how."""
    return Finding(part, "wrong", text)


def notice(part: str, text: str) -> Finding:
    """Something that nobody needs to mend."""
    return Finding(part, "notice", text)


def examine(checks: Mapping[str, Check], *, seconds: float = PART_SECONDS) -> Iterator[Finding]:
    """Run checks side by side, and yield what they find in their order.

    Args:
        checks: by the part that they look at.
        seconds: after which every part that has not answered counts as silent.
    """
    until = time.monotonic() + seconds
    running = {part: _start(part, check) for part, check in checks.items()}
    for part, future in running.items():
        try:
            yield from future.result(max(0.0, until - time.monotonic()))
        except NotInTime:
            yield wrong(part, f"it did not answer within {seconds:g} seconds; see whether it hangs")
        except ImgflowError as error:
            yield wrong(part, str(error))
        except Exception as error:  # a defect here says nothing about the other parts
            yield wrong(part, f"it could not be looked at ({type(error).__name__}: {error})")


def local_checks(settings: Settings) -> dict[str, Check]:
    """What can be said without the database."""
    stores = StoreConfig(
        settings.source_url, settings.output_url, settings.s3_checksums, str(settings.home)
    )
    checks: dict[str, Check] = {
        "home": lambda: check_home(settings.home),
        "source": lambda: check_source(stores, settings.home),
        "outputs": lambda: check_outputs(stores, settings.home),
        "recipe": lambda: check_recipe(settings),
        "open files": check_open_files,
        "access": lambda: check_access(settings),
        "traces": lambda: look_at_traces(settings),
        "ports": lambda: check_ports(settings),
    }
    return checks


def all_checks(settings: Settings) -> dict[str, Check]:
    """Everything, in the order in which it is told."""
    from imgflow.orchestration import diagnosis  # takes a second to import

    process = running_process(settings.home)

    def told(lines: Iterable[diagnosis.Line]) -> Iterable[Finding]:
        return (Finding(part, state, text) for part, state, text in lines)

    return {
        **local_checks(settings),
        "database": lambda: told(diagnosis.check_database(settings)),
        "dagster.yaml": lambda: told(diagnosis.check_configuration(settings)),
        "dagster": lambda: told(diagnosis.check_dagster(settings, process)),
        "queue": lambda: told(diagnosis.check_queue(settings)),
    }


def as_json(findings: Iterable[Finding]) -> dict[str, object]:
    """One object for programs."""
    found = [asdict(finding) for finding in findings]
    return {"ok": all(finding["state"] != "wrong" for finding in found), "findings": found}


def check_home(home: Path) -> Iterator[Finding]:
    """Whether the home can be written to, or made, and has room."""
    folder = home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        yield wrong("home", f"{folder} is not a folder; set IMGFLOW_HOME to another place")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield wrong("home", f"{folder} cannot be written to; allow it, or set IMGFLOW_HOME")
        return
    free = shutil.disk_usage(folder).free
    room = f"{free / 1e9:,.1f} GB are free"
    if free < LEAST_FREE_BYTES:
        yield wrong("home", f"{home}: only {room}; make room, or set IMGFLOW_HOME to another disk")
        return
    yield ok("home", f"{home} is writable, {room}" if home == folder else f"{home} can be made")


def check_source(stores: StoreConfig, home: Path) -> Iterator[Finding]:
    """Whether the source can be listed, and its first object read."""
    location, _ = stores.locations()
    if _is_made_at_start(location, home):
        yield ok("source", f"{location.url} is made at the first start")
        return
    source = stores.open_source()
    page = source.list_page(None, 1)
    if not page.objects:
        yield ok("source", f"{location.url} can be listed; it has no object yet to be read")
        return
    upload = page.objects[0]
    try:
        next(iter(source.stream(upload)), b"")
    except ImgflowError as error:
        yield wrong("source", f"{location.url} can be listed, but {upload.key!r} not read: {error}")
        return
    yield ok("source", f"{location.url} can be listed and read")


def check_outputs(stores: StoreConfig, home: Path) -> Iterator[Finding]:
    """Whether outputs can be written, read and deleted."""
    source, location = stores.locations()
    if _is_made_at_start(location, home):
        yield ok("outputs", f"{location.url} is made at the first start")
        return
    outputs = stores.open_outputs()
    # Should it stay behind, the nightly reconciliation removes what no row names.
    name, body = f"{OUTPUT_FOLDERS[0]}imgflow-doctor/@{uuid.uuid4().hex}", b"probe"
    try:
        outputs.put(name, body, "text/plain")
        is_same = outputs.get(name) == body
    finally:
        outputs.delete([name])
    if not is_same:
        yield wrong(
            "outputs",
            f"{location.url} does not give back what was written; see what stands between "
            "imgflow and the store",
        )
        return
    where = ", inside the source, whose listing leaves them out" if location.below(source) else ""
    yield ok("outputs", f"{location.url} can be written, read and deleted from{where}")


def check_recipe(settings: Settings) -> Iterator[Finding]:
    """Whether all outputs of photographs can be made: packages, parameters, letters, font."""
    from imgflow.images.outputs import enabled_outputs

    yield ok(
        "recipe", f"outputs of a photograph: {', '.join(enabled_outputs(settings.photo_recipe))}"
    )


def check_open_files() -> Iterator[Finding]:
    """Whether processes may open enough files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < LEAST_FILES:
        yield wrong(
            "open files", f"a process may open {limit} only; allow {LEAST_FILES} (`ulimit -n`)"
        )
        return
    yield ok("open files", f"a process may open {limit if limit >= 0 else 'any number'}")


def check_access(settings: Settings) -> Iterator[Finding]:
    """Who reaches the API, and whether it asks them for a token; raises when it would not start."""
    settings.check_api_access()
    if settings.is_api_local:
        yield ok("access", "the API is for this machine only, reading is open")
    else:
        yield ok("access", f"the API listens on {settings.api_host} and asks everyone for a token")


def look_at_traces(settings: Settings) -> Iterator[Finding]:
    """Whether traces can be sent where they are asked for; raises when packages are missing."""
    check_traces(settings.traces)
    yield ok("traces", "they are sent" if settings.traces else "off")


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Whether the ports are free, or used by imgflow itself."""
    process = running_process(settings.home)
    dagster = f"http://{LOOPBACK}:{settings.dagster_port}"
    for host, port, setting, page in (
        (LOOPBACK, settings.dagster_port, "IMGFLOW_DAGSTER_PORT", f"{dagster}/server_info"),
        (settings.api_host, settings.api_port, "IMGFLOW_API_PORT", f"{settings.api_url}/health/"),
    ):
        part = f"port {port}"
        if _is_free(host, port):
            if process:
                yield wrong(
                    part,
                    f"`imgflow up` runs (process {process}) and does not listen; see "
                    f"{settings.home / 'logs'}",
                )
            else:
                yield ok(part, "it is free")
        elif process and _answers(page):
            yield ok(part, f"`imgflow up` (process {process}) answers")
        elif process:
            yield wrong(
                part,
                f"`imgflow up` runs (process {process}) and does not answer; see "
                f"{settings.home / 'logs'}",
            )
        else:
            yield wrong(part, f"something else uses it; end that, or set {setting}")


def running_process(home: Path) -> str | None:
    """The process id of `imgflow up` in a home; None when it does not run."""
    try:
        with (home / "up.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read().strip() or "unknown"
    except OSError:
        return None
    return None


def _is_made_at_start(location: Location, home: Path) -> bool:
    return (
        location.scheme == "file"
        and location.folder.is_relative_to(home)
        and not location.folder.exists()
    )


def _start(part: str, check: Check) -> Future[list[Finding]]:
    """Run a check in a thread that keeps nobody from ending the process."""
    future: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            future.set_result(list(check()))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=f"doctor-{part}", daemon=True).start()
    return future


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3):  # noqa: S310 - our own pages
            return True
    except OSError:
        return False
