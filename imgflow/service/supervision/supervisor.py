"""Restarts what ended, what a signal has stopped, and what answers nobody although it runs."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import psutil

from imgflow.errors import SettingsError
from imgflow.service.supervision.probes import Probe
from imgflow.service.supervision.processes import Service, is_stopped

Say = Callable[[str], None]

# For so long a process may be stopped, by somebody who looks at it: nothing else continues one, and
# no machine is too busy for it.
STOPPED_SECONDS = 2.0

# The supervisor itself looks each second. Where it could not, nobody else could answer either: the
# machine slept, or has more work than it can do.
STARVED_SECONDS = 5.0

# While the database is away or a disk is full, a service that cannot start is tried this often.
AGAIN_SECONDS = 10.0


class Supervisor:
    """Looks after services, and after all that they started."""

    def __init__(
        self,
        services: Collection[Service],
        probes: Mapping[str, Probe],
        others: Callable[[], Iterable[psutil.Process]],
        say: Say,
    ) -> None:
        """Take what to look after.

        Args:
            services: that were started.
            probes: by the name of the service that they ask.
            others: processes that no service started, the database's.
            say: shows one line to a person.
        """
        self._services = services
        self._probes = probes
        self._others = others
        self._say = say
        self._stopped_since: dict[int, float] = {}
        self._looked = time.monotonic()

    def look(self, *, is_hard: bool) -> None:
        """Restart what does not do its work; never waits for long.

        Args:
            is_hard: the database is away, or a disk is full, so that it is no fault of a service
                that it ends again and again.

        Raises:
            SettingsError: a service ended too often, for no reason outside.
        """
        now = time.monotonic()
        if now - self._looked > STARVED_SECONDS:
            for probe in self._probes.values():
                probe.forgive()
        self._looked = now
        stopped = self._stay_stopped(self._processes())
        for service in self._services:
            code = service.has_ended()
            probe = self._probes[service.name]
            if code is not None:
                self._start_again(service, f"ended with {code}", is_hard=is_hard)
            elif service.process is not None and service.process.pid in stopped:
                self.restart(service.name, "was stopped by a signal")
            elif probe.is_silent():
                probe.silent_seconds *= 2
                self.restart(service.name, f"does not answer ({probe.trouble})")
        self._continue(stopped)

    def restart(self, name: str, why: str) -> None:
        """Start a service again that runs, and leave alone what it started."""
        service = next(one for one in self._services if one.name == name)
        service.kill()
        self._say(f"The {name} {why} and is started again.")
        self._start(service)

    def _start_again(self, service: Service, why: str, *, is_hard: bool) -> None:
        if service.is_hopeless():
            if not is_hard:
                raise SettingsError(ended(service))
            if time.monotonic() - service.starts[-1] < AGAIN_SECONDS:
                return
        self._say(f"The {service.name} {why} and is started again.")
        self._start(service)

    def _start(self, service: Service) -> None:
        service.start()
        self._probes[service.name].start()

    def _processes(self) -> dict[int, psutil.Process]:
        """All there are, services among them."""
        found = set(self._others())
        for service in self._services:
            found |= service.family()
            if service.process is not None and service.has_ended() is None:
                with suppress(psutil.NoSuchProcess):
                    found.add(psutil.Process(service.process.pid))
        return {process.pid: process for process in found}

    def _stay_stopped(self, processes: Mapping[int, psutil.Process]) -> dict[int, psutil.Process]:
        """Those of the processes that have been stopped for some time."""
        now = time.monotonic()
        stopped = {pid: one for pid, one in processes.items() if is_stopped(pid)}
        self._stopped_since = {pid: self._stopped_since.get(pid, now) for pid in stopped}
        return {
            pid: one
            for pid, one in stopped.items()
            if now - self._stopped_since[pid] >= STOPPED_SECONDS
        }

    def _continue(self, stopped: Mapping[int, psutil.Process]) -> None:
        """Let those go on that are no services: a run, one of its workers, a part of the database.

        Nothing is lost by that, as it would be by ending them.
        """
        for pid, process in stopped.items():
            with suppress(psutil.NoSuchProcess):
                name = process.name()
                process.send_signal(signal.SIGCONT)
                self._say(f"The process {pid} ({name}) was stopped by a signal and goes on.")


def ended(service: Service) -> str:
    """That a service ended, with what it said last."""
    return (
        f"The {service.name} ended with {service.has_ended()}; its log, {service.log}, ends:\n"
        f"{service.tail()}"
    )
