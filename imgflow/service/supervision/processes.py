"""Starts and ends the processes of `imgflow up`, each with a log file.

Whatever a process has started ends with it: the entire process group gets the signal. On Linux, it
also ends when the supervisor is killed. Logs may be JSON whatever a process prints. When to restart
a process is decided in `supervisor`.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

import psutil

from imgflow.foreign_text import json_line
from imgflow.home import make_folder

# Log files as lines of JSON, whatever a process prints.
#
# imgflow, Dagster and uvicorn write JSON themselves if configured. The rest cannot be configured: C
# libraries, a dying interpreter, a library that prints.


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def copy_lines(pipe: BinaryIO, log: Path, name: str) -> threading.Thread:
    """Append the lines of a process's pipe to a log file, wrapping those that are not JSON.

    Returns:
        The thread that copies until the pipe ends.
    """

    def copy() -> None:
        with pipe, log.open("ab", buffering=0) as file:
            for line in pipe:
                if line.strip():
                    # If the disk is full, lose lines, but keep reading: otherwise the process would
                    # end because of it.
                    with suppress(OSError):
                        file.write(as_json(line, name))

    thread = threading.Thread(target=copy, name=f"log-{name}", daemon=True)
    thread.start()
    return thread


def as_json(line: bytes, name: str) -> bytes:
    """Return a line unchanged if it is a JSON object; otherwise wrap it in one."""
    if line.startswith(b"{") and line.endswith(b"\n"):
        try:
            json.loads(line)
        except ValueError:
            pass
        else:
            return line
    said = {
        "event": COLOUR.sub("", line.decode(errors="replace")).rstrip(),
        "level": "info",
        "logger": f"output.{name}",
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    return json_line(said).encode(errors="replace") + b"\n"


PR_SET_PDEATHSIG = 1

# Opened here, since between fork and exec a process with threads must not take any lock, not even
# the loader's.
_libc = ctypes.CDLL(None)

# Dagster's code server waits for runs in progress; they are interrupted too, and need a moment to
# report it.
END_SECONDS = 15.0

# A process that ends this often within this time will not do better next time.
MOST_STARTS = 5
WITHIN_SECONDS = 60.0


@dataclass
class Service:
    """One long-running process.

    Attributes:
        name: Shown to people and used for the log file.
        command: Program and arguments, run without a shell.
        environment: Complete environment; nothing is inherited.
        log: File to which its output is appended.
        is_json: Whether each line of the log must be JSON.
        starts: Times of all starts, as `time.monotonic` gives them.
        orphans: Processes that an earlier process of this service left running.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    is_json: bool = False
    starts: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    orphans: set[psutil.Process] = field(default_factory=set, repr=False)

    def start(self) -> None:
        """Start or restart it; what an earlier process started, such as runs, continues."""
        if self.process is not None:
            self.orphans |= _of_session(self.process.pid)
        make_folder(self.log.parent)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                list(self.command),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.is_json else log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_begin if sys.platform == "linux" else None,  # noqa: PLW1509 - two system calls, without a lock
            )
        if self.process.stdout is not None:
            copy_lines(cast(BinaryIO, self.process.stdout), self.log, self.name)
        self.starts.append(time.monotonic())

    def kill(self) -> None:
        """Kill the process itself, which does not answer, but nothing that it started."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def is_stopped(self) -> bool:
        """Return whether a signal has stopped it, so that it cannot answer."""
        return self.process is not None and is_stopped(self.process.pid)

    def family(self) -> set[psutil.Process]:
        """Return everything started by this process and by earlier processes of the service."""
        found = _descendants(self.process.pid) if self.process is not None else set()
        self.orphans = {orphan for orphan in self.orphans if orphan.is_running()}
        return found.union(self.orphans, *(_descendants(one.pid) for one in self.orphans))

    def has_ended(self) -> int | None:
        """Return the exit code; None while it runs."""
        return self.process.poll() if self.process else None

    def is_hopeless(self) -> bool:
        """Return whether it was started too often in a short time."""
        recent = [start for start in self.starts if time.monotonic() - start < WITHIN_SECONDS]
        return len(recent) >= MOST_STARTS

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def end_all(services: Sequence[Service]) -> None:
    """End processes and everything they started; those that ignore SIGTERM are killed."""
    family: set[psutil.Process] = set()
    for service in services:
        if service.process is None:
            continue
        family |= service.family()
        # A stopped process ends only once it continues.
        for number in (signal.SIGTERM, signal.SIGCONT):
            _signal_group(service.process.pid, number)
            for orphan in service.orphans:
                with suppress(psutil.NoSuchProcess):
                    orphan.send_signal(number)
    deadline = time.monotonic() + END_SECONDS
    for service in services:
        if service.process is not None:
            try:
                service.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(service.process.pid, signal.SIGKILL)
                service.process.wait()
            _signal_group(service.process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=max(0.1, deadline - time.monotonic()))
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped a process; being traced by a debugger does not count."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def _descendants(pid: int) -> set[psutil.Process]:
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


def _of_session(pid: int) -> set[psutil.Process]:
    """Return the processes still running in the session of a process that has just ended."""
    found = set()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == pid:
                found.add(process)
    return found


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _begin() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # Ignored in the background of a script, and Dagster does at SIGTERM what it does at SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
