"""The contents of `imgflow status` and `imgflow show`, read from the catalogue.

The commands themselves are in `imgflow.cli.image_commands`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imgflow.advice import advice
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import (
    Pulse,
    SensorState,
    UnreadableMessages,
    in_words,
    read_pulse,
)
from imgflow.catalog.records import Count, Failing, Image


@dataclass(frozen=True)
class Status:
    """Counts by kind and state, and how long (in seconds) the oldest pending image has waited."""

    source: str
    counts: list[Count]
    backlog_seconds: float | None
    unreadable: int = 0
    newest_unreadable: str | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    failing: list[Failing] = field(default_factory=list)
    pulse: Pulse = field(default_factory=Pulse)

    @property
    def failed(self) -> int:
        """Number of images that wait because their last attempt failed."""
        return sum(kind.count for kind in self.failing)

    @property
    def retry_seconds(self) -> float | None:
        """Seconds until the first failed image is retried; None if none failed."""
        if not self.failing:
            return None
        now = datetime.now(UTC)
        due = min(kind.retry_at or now for kind in self.failing)
        return round(max(0.0, (due - now).total_seconds()), 1)

    def failing_lines(self) -> list[str]:
        """Return one line for each kind of trouble that keeps images waiting."""
        return [
            f"{kind.count} failed and wait ({kind.code}), such as {kind.key!r}: {kind.reason}"
            for kind in self.failing
        ]

    def number(self, kind: str, state: str) -> int:
        """Return how many images of a kind are in a state."""
        return sum(c.count for c in self.counts if (c.kind, c.state) == (kind, state))

    def line(self) -> str:
        """Return a line of counts for people, and lines below it with what keeps images waiting."""
        counts = " · ".join(
            f"{name}: "
            + ", ".join(
                f"{self.number(kind, state)} {state}"
                for state in ("ready", "pending", "rejected", "deleted")
                if self.number(kind, state) or state == "ready"
            )
            for kind, name in (("photo", "photos"), ("depth", "depth images"))
        )
        return "\n  ".join([counts, *self.failing_lines()])

    def pulse_lines(self) -> list[str]:
        """Return in words whether uploads are noticed and processed; empty if Dagster never ran."""
        said = []
        for sensor in self.pulse.sensors:
            if not sensor.is_on:
                said.append(f"Somebody stopped the sensor {sensor.name}: its uploads wait.")
            elif sensor.is_silent:
                said.append(f"New uploads are not seen. {sensor.words()}")
            elif sensor.good_seconds is not None:
                said.append(sensor.words())
        if self.pulse.run_seconds is not None:
            ago = in_words(self.pulse.run_seconds)
            said.append(f"The last run that went well ended {ago} ago.")
        return said

    def as_json(self) -> dict[str, Any]:
        """Return the status for programs."""
        return {
            "source": self.source,
            "photo": self._states("photo"),
            "depth": self._states("depth"),
            "backlog_seconds": self.backlog_seconds,
            "unreadable_messages": self.unreadable,
            "reasons": dict(self.reasons),
            "failed": self.failed,
            "retry_seconds": self.retry_seconds,
            "last_tick_seconds": _rounded(self.pulse.tick_seconds),
            "last_run_seconds": _rounded(self.pulse.run_seconds),
            "sensors": {
                sensor.name: {
                    "state": _state(sensor),
                    "last_tick_seconds": _rounded(sensor.good_seconds),
                    "trouble": sensor.trouble,
                }
                for sensor in self.pulse.sensors
            },
        }

    def _states(self, kind: str) -> dict[str, int]:
        return {
            state: self.number(kind, state) for state in ("pending", "ready", "rejected", "deleted")
        }


def _state(sensor: SensorState) -> str:
    if not sensor.is_on:
        return "stopped"
    return "silent" if sensor.is_silent else "running"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def read_status(catalog: PostgresCatalog, sensors: tuple[str, ...] = ()) -> Status:
    """Read the status from the catalogue, including the health of the named sensors."""
    oldest = catalog.oldest_pending()
    waited = (datetime.now(UTC) - oldest).total_seconds() if oldest else None
    unreadable = UnreadableMessages(catalog.engine, catalog.source)
    newest = unreadable.newest(1)
    return Status(
        catalog.source,
        catalog.counts(),
        _rounded(waited),
        unreadable.count(),
        newest[0].reason if newest else None,
        catalog.reasons(),
        catalog.failing(),
        read_pulse(catalog.engine, catalog.source, sensors),
    )


def describe(image: Image) -> Mapping[str, Any]:
    """Return a row for `imgflow show`, ready for JSON."""
    return {
        "id": image.id,
        "key": image.key,
        "kind": image.kind,
        "state": image.state,
        "reason": image.reason,
        "reason_code": image.reason_code,
        "advice": advice(image.reason_code) if image.reason_code else None,
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "bytes": image.size,
        "media_type": image.media_type,
        "sha256": image.sha256,
        "recipe": image.recipe,
        "run_id": image.run_id,
        "trace_id": image.trace_id,
        "attempts": image.attempts if image.state == "pending" else None,
        "next_attempt": image.not_before.isoformat()
        if image.state == "pending" and image.not_before
        else None,
        "created_at": image.created_at.isoformat(),
        "updated_at": image.updated_at.isoformat(),
        "outputs": {
            name: {key: value for key, value in record.items() if key not in ("facts", "picture")}
            for name, record in image.outputs.items()
        },
        "facts": dict(image.facts),
    }
