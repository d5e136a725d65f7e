"""Watches what `imgflow up` processes: counts, whether uploads are noticed, database, disk space.

It has its own thread, which can wait for a database that is down while processes are still
supervised. Services are restarted in `supervisor`, and people alerted by `alarm`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue

import sqlalchemy as sa

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.catalog.database.engine import bounded, outages_in_words
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import Pulse
from imgflow.errors import ImgflowError, Trouble
from imgflow.service.supervision.alarm import Alarm
from imgflow.status import read_status
from imgflow.store.disks import full_disks

LOOK_SECONDS = 1.0

# A database that answers that it is not ready is fine; one that is silent for this long hangs.
DATABASE_SILENT_SECONDS = 30.0

# An answer that takes longer than this counts as none: somebody may have locked a table.
STATEMENT_SECONDS = 30.0

# Three ticks, as Dagster gives each a minute: in this time none has ended, not even with an error.
TICKS_HANG_SECONDS = 180.0

# A restart for hanging ticks longer ago than this says nothing about the machine any more.
REMEMBERED_SECONDS = 86_400.0


class Watch:
    """Checks database, sensors and disks every second.

    Attributes:
        is_hard: Whether the database is down or a disk is full.
        do_ticks_hang: Whether no tick has ended for minutes, so that code server and daemon should
            be restarted.
    """

    def __init__(
        self,
        catalog: PostgresCatalog,
        sensors: tuple[str, ...],
        folders: Mapping[str, Path],
        embedded: EmbeddedPostgres | None,
        alarm: Alarm,
    ) -> None:
        """Store what to watch.

        Args:
            catalog: Catalogue with the counts and ticks.
            sensors: Names of the sensors that should have ticks.
            folders: Folders that need disk space, by what is stored in them.
            embedded: Embedded database to restart when it ends; None if another one is used.
            alarm: Gets everything that is wrong.
        """
        self.is_hard = False
        self.do_ticks_hang = False
        self._catalog = PostgresCatalog(bounded(catalog.engine, STATEMENT_SECONDS), catalog.source)
        self._sensors = sensors
        self._folders = folders
        self._embedded = embedded
        self._alarm = alarm
        self._news: SimpleQueue[str] = SimpleQueue()
        self._line = ""
        self._wrong: dict[str, str] = {}
        self._answered = self._ticked = time.monotonic()
        self._restarted = self._ticked
        self._ends: tuple[float | None, ...] = ()
        self._hang_seconds = TICKS_HANG_SECONDS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching after the current check."""
        self._stop.set()

    def news(self) -> list[str]:
        """Return the lines to show since the last call."""
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def ticks_were_restarted(self) -> None:
        """Double the time limit, so that ticks that are merely slow can end at some point."""
        self.do_ticks_hang = False
        self._ticked = time.monotonic()
        self._restarted = self._ticked
        self._hang_seconds *= 2

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except Exception as error:  # go on whatever it is: the next check may work
                self._show(f"imgflow up could not look: {type(error).__name__}: {error}")
            self._stop.wait(LOOK_SECONDS)

    def _look(self) -> None:
        wrong = {f"disk {part}": words for part, words in full_disks(self._folders).items()}
        began = time.monotonic()
        try:
            self._ask()
            status = read_status(self._catalog, self._sensors)
            pulse, line = status.pulse, status.line()
        except Trouble as trouble:
            line = str(trouble)
            self.is_hard = True
            self._ticked = time.monotonic()
            # Nothing is known about the sensors now, so what was wrong with them stays wrong.
            wrong |= {
                part: words for part, words in self._wrong.items() if part.startswith("sensor ")
            }
            wrong["database"] = line
            self._revive(began - self._answered)
        else:
            self.is_hard = bool(wrong)
            self._look_at_ticks(pulse)
            wrong |= {f"sensor {one.name}": one.words() for one in pulse.silent}
        if self._embedded is not None:
            self._embedded.ensure_guarded()
        self._show(line)
        self._tell(wrong)

    def _show(self, line: str) -> None:
        """Show the current state, unless it is what was shown last."""
        if line != self._line:
            self._news.put(line)
            self._line = line

    def _ask(self) -> None:
        """Ask the database once; everything else retries before it gives up."""
        engine = self._catalog.engine
        with outages_in_words(engine), engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
        self._answered = time.monotonic()

    def _revive(self, silent_seconds: float) -> None:
        """Restart the embedded database; it may take a minute, or fail if the disk is full."""
        if self._embedded is None:
            return
        try:
            if silent_seconds > DATABASE_SILENT_SECONDS:
                self._answered = time.monotonic()
                self._embedded.restart()
            else:
                self._embedded.ensure_running()
        except ImgflowError as error:
            self._news.put(str(error))

    def _look_at_ticks(self, pulse: Pulse) -> None:
        """Detect that ticks no longer end although nobody stopped the sensors."""
        now = time.monotonic()
        ends = tuple(sensor.ended_at for sensor in pulse.sensors)
        if ends != self._ends or not any(sensor.is_on for sensor in pulse.sensors):
            self._ticked = now
            self._ends = ends
            if now - self._restarted > REMEMBERED_SECONDS:
                self._hang_seconds = TICKS_HANG_SECONDS
        slow = max((one.overdue_seconds or 0.0 for one in pulse.silent), default=0.0)
        self.do_ticks_hang = slow > 0 and now - self._ticked > self._hang_seconds

    def _tell(self, wrong: Mapping[str, str]) -> None:
        """Show what went wrong and what is well again, once each, and update the alarm."""
        for part in wrong.keys() - self._wrong.keys():
            if wrong[part] != self._line:
                self._news.put(wrong[part])
        for part in self._wrong.keys() - wrong.keys():
            self._news.put(f"The {part} is well again.")
        self._wrong = dict(wrong)
        self._alarm.update(wrong)
