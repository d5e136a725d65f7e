"""What `imgflow up` knows of the work itself: the counts, whether uploads are seen, room on disks.

It asks in a thread of its own: a database that is away is waited for there, while processes are
still looked after.
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

# A database that only says that it is not ready answers; one that says nothing for so long hangs.
DATABASE_SILENT_SECONDS = 30.0

# An answer that takes longer than this is none: somebody may have locked a table.
STATEMENT_SECONDS = 30.0

# Three ticks, of which Dagster gives each a minute: none of them ended, not even badly.
TICKS_HANG_SECONDS = 180.0

# A restart for that which is so long ago says nothing of the machine any more.
REMEMBERED_SECONDS = 86_400.0


class Watch:
    """Looks at database, sensors and disks each second.

    Attributes:
        is_hard: the database is away, or a disk is full.
        do_ticks_hang: no tick ended for minutes, so that those who make them are to be restarted.
    """

    def __init__(
        self,
        catalog: PostgresCatalog,
        sensors: tuple[str, ...],
        folders: Mapping[str, Path],
        embedded: EmbeddedPostgres | None,
        alarm: Alarm,
    ) -> None:
        """Take what to look at.

        Args:
            catalog: the counts' and the ticks'.
            sensors: that are to have ticks.
            folders: that need room.
            embedded: the database, if it is to be started again when it ends.
            alarm: is told what is wrong.
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
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, once the present look is over."""
        self._stop.set()

    def news(self) -> list[str]:
        """Lines that are to be said."""
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def ticks_were_restarted(self) -> None:
        """Give them twice the time, so that ticks which are merely slow are not ended for ever."""
        self.do_ticks_hang = False
        self._ticked = time.monotonic()
        self._restarted = self._ticked
        self._hang_seconds *= 2

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except Exception as error:  # whatever it is: the next look may go well, and must come
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
            # Nothing is known of the sensors; what was wrong with them is not well by that.
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
        """Say how things stand, unless that is what was said last."""
        if line != self._line:
            self._news.put(line)
            self._line = line

    def _ask(self) -> None:
        """Ask the database once; all else asks again and again before it gives up."""
        engine = self._catalog.engine
        with outages_in_words(engine), engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
        self._answered = time.monotonic()

    def _revive(self, silent_seconds: float) -> None:
        """Start the embedded database again; it may take a minute, or not start without room."""
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
        """Notice when no tick ends any more, although nobody stopped the sensors."""
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
        """Say what went wrong, and what is well again, once each."""
        for part in wrong.keys() - self._wrong.keys():
            if wrong[part] != self._line:
                self._news.put(wrong[part])
        for part in self._wrong.keys() - wrong.keys():
            self._news.put(f"The {part} is well again.")
        self._wrong = dict(wrong)
        self._alarm.update(wrong)
