"""What `imgflow status` and `imgflow show` say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from imgflow.catalog.postgres import PostgresCatalog
from imgflow.catalog.rows import Count, Failing, Image
from imgflow.catalog.unreadable import UnreadableMessages
from imgflow.mends import mend


@dataclass(frozen=True)
class Status:
    """Counts by kind and state, and how long the oldest pending image has waited."""

    source: str
    counts: list[Count]
    backlog_seconds: float | None
    unreadable: int = 0
    newest_unreadable: str | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    failing: list[Failing] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many images wait because the last attempt failed."""
        return sum(kind.count for kind in self.failing)

    @property
    def retry_seconds(self) -> float | None:
        """When the first of these is due again; None without any."""
        if not self.failing:
            return None
        now = datetime.now(timezone.utc)
        due = min(kind.retry_at or now for kind in self.failing)
        return round(max(0.0, (due - now).total_seconds()), 1)

    def failing_lines(self) -> list[str]:
        """What keeps images waiting, a line for each kind of trouble."""
        return [
            f"{kind.count} failed and wait ({kind.code}), such as {kind.key!r}: {kind.reason}"
            for kind in self.failing
        ]

    def number(self, kind: str, state: str) -> int:
        """How many images of a kind are in a state."""
        return sum(c.count for c in self.counts if (c.kind, c.state) == (kind, state))

    def line(self) -> str:
        """The counts in one line for people, and what keeps images waiting in those below it."""
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

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "source": self.source,
            "photo": self._states("photo"),
            "depth": self._states("depth"),
            "backlog_seconds": self.backlog_seconds,
            "unreadable_messages": self.unreadable,
            "reasons": dict(self.reasons),
            "failed": self.failed,
            "retry_seconds": self.retry_seconds,
        }

    def _states(self, kind: str) -> dict[str, int]:
        return {
            state: self.number(kind, state) for state in ("pending", "ready", "rejected", "deleted")
        }


def read_status(catalog: PostgresCatalog) -> Status:
    """Ask the catalogue."""
    oldest = catalog.oldest_pending()
    waited = (datetime.now(timezone.utc) - oldest).total_seconds() if oldest else None
    unreadable = UnreadableMessages(catalog.engine, catalog.source)
    newest = unreadable.newest(1)
    return Status(
        catalog.source,
        catalog.counts(),
        None if waited is None else round(waited, 1),
        unreadable.count(),
        newest[0].reason if newest else None,
        catalog.reasons(),
        catalog.failing(),
    )


def describe(image: Image) -> Mapping[str, Any]:
    """A row for `imgflow show`; JSON-ready."""
    return {
        "id": image.id,
        "key": image.key,
        "kind": image.kind,
        "state": image.state,
        "reason": image.reason,
        "reason_code": image.reason_code,
        "mend": mend(image.reason_code) if image.reason_code else None,
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
