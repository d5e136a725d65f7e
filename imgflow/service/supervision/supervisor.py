"""Restarts services that ended, that a signal has stopped, or that run but do not answer.

Probes are in `probes`; the database, sensors and disks are watched in `watching`.
"""

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

# How long a process may stay stopped, such as by somebody who inspects it. Nothing else continues
# it, and no machine is too busy to.
STOPPED_SECONDS = 2.0

# The supervisor looks every second. If it could not, services could not answer either: the machine
# slept, or is overloaded.
STARVED_SECONDS = 5.0

# Pause between starts of a service that cannot start while the database is down or a disk is full.
AGAIN_SECONDS = 10.0


class Supervisor:
    """Supervises services and everything that they started."""

    def __init__(
        self,
        services: Collection[Service],
        probes: Mapping[str, Probe],
        others: Callable[[], Iterable[psutil.Process]],
        say: Say,
    ) -> None:
        """Store what to supervise.

        Args:
            services: Services, already started.
            probes: Probes by the name of the service that they ask.
            others: Returns processes that no service started, such as the database's.
            say: Called with each line to show.
        """
        self._services = services
        self._probes = probes
        self._others = others
        self._say = say
        self._stopped_since: dict[int, float] = {}
        self._looked = time.monotonic()

    def look(self, *, is_hard: bool) -> None:
        """Restart services that do not work; never waits for long.

        Args:
            is_hard: Whether the database is down or a disk is full, so that a service is not to
                blame if it ends again and again.

        Raises:
            SettingsError: A service ended too often, without such an external cause.
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
        """Restart a running service, and leave what it started alone."""
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
        """Return all supervised processes by id, including the services."""
        found = set(self._others())
        for service in self._services:
            found |= service.family()
            if service.process is not None and service.has_ended() is None:
                with suppress(psutil.NoSuchProcess):
                    found.add(psutil.Process(service.process.pid))
        return {process.pid: process for process in found}

    def _stay_stopped(self, processes: Mapping[int, psutil.Process]) -> dict[int, psutil.Process]:
        """Return the processes that have been stopped for `STOPPED_SECONDS`."""
        now = time.monotonic()
        stopped = {pid: one for pid, one in processes.items() if is_stopped(pid)}
        self._stopped_since = {pid: self._stopped_since.get(pid, now) for pid in stopped}
        return {
            pid: one
            for pid, one in stopped.items()
            if now - self._stopped_since[pid] >= STOPPED_SECONDS
        }

    def _continue(self, stopped: Mapping[int, psutil.Process]) -> None:
        """Continue stopped processes that are not services: a run, its workers, the database's.

        Ending them would lose work; continuing them does not.
        """
        for pid, process in stopped.items():
            with suppress(psutil.NoSuchProcess):
                name = process.name()
                process.send_signal(signal.SIGCONT)
                self._say(f"The process {pid} ({name}) was stopped by a signal and goes on.")


def ended(service: Service) -> str:
    """Return a message that a service ended, with the last lines of its log."""
    return (
        f"The {service.name} ended with {service.has_ended()}; its log, {service.log}, ends:\n"
        f"{service.tail()}"
    )
