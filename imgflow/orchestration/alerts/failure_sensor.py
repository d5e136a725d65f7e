"""The sensor that reports failed runs to people: in its log, and on the configured channels.

Which runs are new and what a message says is in `failures`.
"""

import time
from collections.abc import Sequence
from functools import cache

import dagster as dg

from imgflow.orchestration.alerts.failures import (
    Ledger,
    NewFailures,
    failures_after,
    line_of,
    message_of,
    newest_failure,
    title_of,
)
from imgflow.orchestration.families import Family
from imgflow.settings.channels import digest_of, scheme_of, send


def failures_sensor(
    families: Sequence[Family],
    jobs: Sequence[str],
    *,
    channels: Sequence[str],
    minutes: float,
    dagster_url: str,
    gallery_url: str,
) -> dg.SensorDefinition:
    """Define the sensor that reports failed runs.

    It reads the failures from the event log. Dagster's own failure sensors are called for each
    failure, but drop it if their function raises, and cannot pause between messages.

    Args:
        families: Runs that make any of their assets are reported, whatever launched them.
        jobs: Names of all our jobs.
        channels: Apprise URLs; if empty, failures are only logged.
        minutes: Minimum minutes between two messages on a channel; the next message includes what
            failed in between.
        dagster_url: Where people reach the Dagster UI.
        gallery_url: Where people reach the gallery.
    """
    ours = frozenset(jobs)
    assets = frozenset().union(*(family.made for family in families))

    @dg.sensor(
        name="failures",
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of failed runs with their images: in its log, by webhook or e-mail.",
    )
    def failures(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        ledger = Ledger.from_cursor(context.cursor)
        if ledger is None:
            ledger = Ledger(newest_failure(context.instance))
        ledger.follow(channels, ledger.logged)

        @cache
        def since(event: int) -> NewFailures:
            return failures_after(context.instance, event, ours, assets)

        said = []
        new = since(ledger.logged)
        for run in new.runs:
            context.log.error(f"{line_of(run, dagster_url)}\n{run.text}")
        if new.runs:
            said.append(f"{len(new.runs)} failed runs logged")
        ledger.logged = new.last

        now = time.time()
        messages: dict[str, tuple[str, str]] = {}
        for url in channels:
            told = ledger.channels[digest_of(url)]
            untold = since(told.after)
            runs = [run for run in untold.runs if run.is_news]
            if not runs:
                told.after = untold.last
            elif told.is_due(now, minutes):
                text = message_of(runs, dagster_url=dagster_url, gallery_url=gallery_url)
                messages[url] = (title_of(runs), text)
            else:
                said.append(f"{_name(channels, url)} is told later of: {title_of(runs)}")
        for url, refusal in send(messages).items():
            told = ledger.channels[digest_of(url)]
            if refusal is None:
                told.took(since(told.after).last, now)
                said.append(f"{_name(channels, url)} was told")
            else:
                told.refused(now)
                said.append(f"{_name(channels, url)} did not take the message: {refusal}")
                context.log.warning(f"{said[-1]}; it is sent again later")
        reason = "; ".join(said) or "no run has failed since the last tick"
        return dg.SensorResult(skip_reason=f"{reason}.", cursor=ledger.cursor())

    return failures


def _name(channels: Sequence[str], url: str) -> str:
    return f"channel {channels.index(url) + 1} ({scheme_of(url)})"
