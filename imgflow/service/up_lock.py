"""The lock of the `imgflow up` that runs in a home, with its settings, and its handling of signals.

The services that it starts are in `up`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from imgflow.errors import SettingsError
from imgflow.home import make_home
from imgflow.settings.variables import PREFIX, Settings

LOCK = "up.lock"

# Retry, since checking whether one runs also holds the lock for a moment.
TRIES, BETWEEN_SECONDS = 40, 0.02


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the home's lock until the end of the block.

    Raises:
        SettingsError: `imgflow up` runs in this home already; the text has its process id.
    """
    make_home(settings.home)
    with (settings.home / LOCK).open("a+") as lock:
        (settings.home / LOCK).chmod(0o600)
        if not _take(lock):
            raise SettingsError(
                f"imgflow already runs in {settings.home} (process {_process(lock)}): see "
                f"http://127.0.0.1:{settings.dagster_port}. Nothing was started. For a second "
                "one, set IMGFLOW_HOME, IMGFLOW_DAGSTER_PORT and IMGFLOW_API_PORT."
            )
        salt = secrets.token_hex(16)
        lock.truncate(0)
        lock.write(
            f"{os.getpid()}\n{json.dumps({'salt': salt, 'values': _digests(settings, salt)})}\n"
        )
        lock.flush()
        yield


def running_process(home: Path) -> str | None:
    """Return the process id of `imgflow up` in a home; None if it does not run."""
    try:
        with (home / LOCK).open() as lock:
            return _process(lock) if _is_held(lock) else None
    except OSError:
        return None


def changed_since_start(settings: Settings) -> list[str]:
    """Return the variables whose value has changed since the running `imgflow up` was started."""
    try:
        with (settings.home / LOCK).open() as lock:
            if not _is_held(lock):
                return []
            started = json.loads((lock.read().splitlines() or [""])[1])
            then: Mapping[str, str] = started["values"]
            now = _digests(settings, started["salt"])
    except (OSError, ValueError, LookupError):  # written by an earlier imgflow
        return []
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


def _take(lock: IO[str]) -> bool:
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(BETWEEN_SECONDS)
        else:
            return True
    return False


def _is_held(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _process(lock: IO[str]) -> str:
    lock.seek(0)
    process = (lock.read().splitlines() or [""])[0].strip()
    lock.seek(0)
    return process or "unknown"


def _digests(settings: Settings, salt: str) -> dict[str, str]:
    """Return salted hashes of all values, which may be secrets: enough to detect changes."""
    values = {f"{PREFIX}{name.upper()}": value for name, value in settings}
    values |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return {
        name: hashlib.sha256(f"{salt}{name}={value}".encode()).hexdigest()
        for name, value in values.items()
    }


# Signals: Ctrl-C and SIGTERM become an exception.


_interrupted: list[bool] = []
"""Not empty once a signal has arrived."""


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived."""


def interrupted() -> bool:
    """Return whether a signal has arrived."""
    return bool(_interrupted)


def ignore_further() -> None:
    """Ignore signals from now on, so that none interrupts the shutdown."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`, and ignore further ones."""

    def interrupt(_number: int, _frame: object) -> None:
        _interrupted.append(True)
        ignore_further()
        raise Interrupted

    _interrupted.clear()
    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
