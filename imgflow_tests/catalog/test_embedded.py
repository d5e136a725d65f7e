from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from imgflow.catalog.database.embedded_postgres import (
    EmbeddedPostgres,
    close_embedded_postgres,
    embedded_postgres,
)
from imgflow.errors import SettingsError
from imgflow_tests.patience import PATIENCE_SECONDS

HOLD = """
import sys
from pathlib import Path
from imgflow.catalog.database.embedded_postgres import embedded_postgres
server = embedded_postgres(Path(sys.argv[1]))
print(server.url, flush=True)
sys.stdin.readline()
"""
FORK = """
import os, sys
from pathlib import Path
import psycopg2
from imgflow.catalog.database.embedded_postgres import embedded_postgres
server = embedded_postgres(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
psycopg2.connect(server.url).close()
print("still there")
"""


class Holder:
    """Another process that uses the server of a home."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate("\n", timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=PATIENCE_SECONDS)


def _pid(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split()[0])


def answers(url: str) -> bool:
    try:
        psycopg2.connect(url).close()
    except psycopg2.OperationalError:
        return False
    return True


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    """A home whose server does not outlive the test."""
    home = tmp_path / "home"
    yield home
    pid_file = home / "postgres" / "postmaster.pid"
    if pid_file.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)


def test_processes_share_a_server_and_the_last_to_end_stops_it(own_home: Path) -> None:
    holders = [Holder(own_home) for _ in range(3)]  # all at once, on a home that is not there yet
    urls = {holder.url() for holder in holders}
    assert len(urls) == 1
    (url,) = urls
    for holder in holders[:-1]:
        holder.end()
        assert answers(url)
    holders[-1].end()
    assert not answers(url)
    assert not (own_home / "postgres" / "postmaster.pid").exists()


def test_processes_that_end_at_once_leave_no_server(own_home: Path) -> None:
    holders = [Holder(own_home) for _ in range(3)]
    (url,) = {holder.url() for holder in holders}
    for holder in holders:
        assert holder.process.stdin
        holder.process.stdin.write("\n")
        holder.process.stdin.flush()
    for holder in holders:
        holder.process.communicate(timeout=PATIENCE_SECONDS)
        assert holder.process.returncode == 0
    assert not answers(url)


def test_a_killed_process_does_not_count_as_a_user(own_home: Path) -> None:
    killed, other = Holder(own_home), Holder(own_home)
    url = killed.url()
    assert other.url() == url
    killed.kill()
    assert answers(url)
    other.end()
    assert not answers(url)


def test_a_server_that_all_users_left_by_kill_is_stopped_without_anybody_coming(
    own_home: Path,
) -> None:
    holder = Holder(own_home)
    url = holder.url()
    server = psutil.Process(_pid(own_home))
    holder.kill()
    server.wait(PATIENCE_SECONDS)
    assert not answers(url)
    assert not (own_home / "postgres" / "postmaster.pid").exists()


def test_who_comes_while_the_server_of_killed_users_is_stopped_has_one(own_home: Path) -> None:
    holder = Holder(own_home)
    url = holder.url()
    holder.kill()
    server = EmbeddedPostgres(own_home)
    assert server.url == url
    assert answers(url)
    server.close()
    assert not answers(url)


@pytest.mark.parametrize("wait_seconds", [0, 10], ids=["at-once", "gone"])
def test_a_killed_server_starts_again(own_home: Path, wait_seconds: int) -> None:
    server = EmbeddedPostgres(own_home)
    with psycopg2.connect(server.url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 1")
    connection.close()
    killed = psutil.Process(server._server.get_pid())
    killed.kill()
    psutil.wait_procs([killed], timeout=wait_seconds)
    server.close()
    again = EmbeddedPostgres(own_home)
    with psycopg2.connect(again.url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM kept")
        assert cursor.fetchone() == (1,)
    connection.close()
    again.close()


def test_the_last_user_stops_also_a_server_that_another_one_started_again(own_home: Path) -> None:
    first = EmbeddedPostgres(own_home)
    os.kill(first._server.get_pid(), signal.SIGKILL)
    time.sleep(0.1)
    other = EmbeddedPostgres(own_home)
    assert other.url == first.url
    other.close()
    assert answers(first.url)
    first.close()
    assert not answers(first.url)


def test_one_process_may_close_and_open_it_again(own_home: Path) -> None:
    for _ in range(2):
        server = embedded_postgres(own_home)
        assert embedded_postgres(own_home) is server
        assert answers(server.url)
        close_embedded_postgres(own_home)
        assert server.is_closed
        assert not answers(server.url)
    server.close()
    close_embedded_postgres(own_home / "other")


def test_two_handles_of_one_process_share_it(own_home: Path) -> None:
    first, second = EmbeddedPostgres(own_home), EmbeddedPostgres(own_home)
    first.close()
    assert answers(second.url)
    second.close()
    assert not answers(second.url)


def test_a_forked_child_that_ends_does_not_stop_its_parents_server(own_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(own_home)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.stdout == "still there\n", done.stderr
    assert not (own_home / "postgres" / "postmaster.pid").exists()


def test_a_home_with_a_long_and_odd_path_works(own_home: Path) -> None:
    home = own_home / ("long " * 12) / ("ü" * 60)
    server = EmbeddedPostgres(home)
    try:
        assert answers(server.url)
    finally:
        server.close()
    assert not answers(server.url)


def test_a_home_that_cannot_be_written_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for home in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/imgflow")):
        with pytest.raises(SettingsError, match=r"IMGFLOW_HOME=.*cannot be written to"):
            EmbeddedPostgres(home)


def test_a_folder_that_is_no_database_is_a_settings_error_with_the_log(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("18\n")
    with pytest.raises(SettingsError, match=r"did not start.*log.*IMGFLOW_DATABASE_URL"):
        EmbeddedPostgres(tmp_path)
