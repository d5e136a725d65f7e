"""A process that waits until nobody uses the embedded PostgreSQL any more, and then stops it.

Users hold a lock on a file, which the operating system drops however a process ends. After SIGKILL,
or a SIGTERM that ends a process immediately as uvicorn's does, no code of imgflow runs there.

Starting the server and holding the lock is in `embedded_postgres`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO

import psutil

# The programs that starting a server runs. They continue if the process that started them dies.
PROGRAMS = ("initdb", "pg_ctl", "sh", "postgres")
START_SECONDS = 60.0

# A server that does not stop within this time gets a harder signal.
FAST_SECONDS, IMMEDIATE_SECONDS = 60.0, 10.0


def running_server(folder: Path) -> psutil.Process | None:
    """The PostgreSQL server that runs on a folder."""
    try:
        pid = int((folder / "postmaster.pid").read_text().split()[0])
        process = psutil.Process(pid)
        # A leftover file may name a process id that another process has by now.
        is_ours = str(folder.resolve()) in process.cmdline()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return process if is_ours and process.status() != psutil.STATUS_ZOMBIE else None


def stop_server(folder: Path) -> None:
    """Stop the server of a folder, whoever started it; sessions end, but no data is lost."""
    server = running_server(folder)
    if server is None:
        return
    for number, seconds in (
        (signal.SIGINT, FAST_SECONDS),
        (signal.SIGQUIT, IMMEDIATE_SECONDS),
        (signal.SIGKILL, IMMEDIATE_SECONDS),
    ):
        try:
            server.send_signal(number)
            server.send_signal(signal.SIGCONT)  # a suspended server would not get the signal
            server.wait(seconds)
        except psutil.TimeoutExpired:
            continue
        except psutil.NoSuchProcess:
            pass
        return


def stop_all(folder: Path) -> None:
    """Stop the server of a folder, even one that is just starting and has no pid file yet."""
    give_up = time.monotonic() + START_SECONDS
    while True:
        stop_server(folder)
        if not _is_in_use(folder) or time.monotonic() > give_up:
            return
        time.sleep(0.05)


def _is_in_use(folder: Path) -> bool:
    for process in psutil.process_iter():
        try:
            if process.name() in PROGRAMS:
                said = " ".join(process.cmdline()).replace('"', "")  # `sh` has it as one argument
                if f" -D {folder.resolve()} " in f"{said} ":
                    return True
        except psutil.Error:
            continue
    return False


def main(folder: Path, users: Path, guard: Path) -> None:
    """Wait in the background, unless another guard does."""
    if os.fork():
        os._exit(0)
    os.setsid()  # not to get signals that are meant for a terminal or a group
    with guard.open("a+") as place:
        if not _is_first(place):
            return
        place.truncate(0)
        place.write(f"{os.getpid()}\n")
        place.flush()
        with users.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stop_all(folder)
            # While there can be no new user: the next one starts its own guard.
            fcntl.flock(place, fcntl.LOCK_UN)


def _is_first(place: IO[str]) -> bool:
    for _ in range(20):
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)  # checking whether there is a guard also takes the lock for a moment
        else:
            return True
    return False


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
