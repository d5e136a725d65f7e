"""Traces as a collector gets them, from the processes of a real `imgflow up`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgflow.observability.trace_records import root_span_id
from imgflow_tests.ceph import free_port
from imgflow_tests.observability.followed import CALLER, Followed
from imgflow_tests.observability.receiver import Receiver

SERVER, CONSUMER = 2, 5


@pytest.mark.long
def test_an_upload_is_one_trace_from_its_announcement_to_its_verdict(followed: Followed) -> None:
    trace = followed.image["trace_id"]
    upload, process = sorted(
        (span for span in followed.spans if span.trace == trace), key=lambda span: span.began
    )
    assert (upload.name, upload.kind, upload.parent) == ("upload", CONSUMER, "")
    assert upload.id == root_span_id(trace)
    assert upload.attributes["imgflow.seen_by"] == "notification"
    assert (process.name, process.parent) == ("process", upload.id)
    assert process.attributes["imgflow.outcome"] == "ready"
    assert process.attributes["imgflow.key"] == upload.attributes["imgflow.key"] == "a b.jpg"
    assert 0 < process.ended - process.began < 60
    assert {span.service for span in followed.spans} == {"imgflow"}


@pytest.mark.long
def test_a_run_is_a_trace_with_the_id_of_the_run_linked_with_its_uploads(
    followed: Followed,
) -> None:
    trace = followed.image["trace_id"]
    (run,) = (
        span for span in followed.spans if span.trace == followed.image["run_id"].replace("-", "")
    )
    assert run.name == "run"
    assert run.attributes["imgflow.run_id"] == followed.image["run_id"]
    assert run.attributes["imgflow.processed"] == 1
    assert (trace, root_span_id(trace)) in run.links
    (process,) = (s for s in followed.spans if s.trace == trace and s.name == "process")
    assert process.links == ((run.trace, run.id),)
    assert run.began <= process.began
    assert process.ended <= run.ended


@pytest.mark.long
def test_a_rejected_upload_is_no_error_of_ours_and_its_run_is_one(followed: Followed) -> None:
    process = next(
        span
        for span in followed.spans
        if span.trace == followed.rejected["trace_id"] and span.name == "process"
    )
    assert process.attributes["imgflow.outcome"] == "rejected"
    assert process.attributes["imgflow.reason"] == followed.rejected["reason"]
    assert not process.is_error


@pytest.mark.long
def test_a_request_goes_on_with_the_trace_of_its_caller_and_names_the_upload(
    followed: Followed,
) -> None:
    trace = followed.image["trace_id"]
    requests = [span for span in followed.spans if span.trace == CALLER[3:35]]
    assert sorted(span.name for span in requests) == [
        "GET /images/{image}",
        "GET /images/{image}/thumbnail",
    ]
    for request in requests:
        assert (request.kind, request.parent) == (SERVER, CALLER[36:52])
        assert request.links == ((trace, root_span_id(trace)),)
        assert request.attributes["imgflow.trace_id"] == trace
        assert request.attributes["http.response.status_code"] == 200


@pytest.mark.long
def test_a_tick_that_received_messages_says_what_they_led_to(followed: Followed) -> None:
    ticks = [span for span in followed.spans if span.name == "tick"]
    assert {tick.attributes["imgflow.sensor"] for tick in ticks} >= {"notifications"}
    assert sum(tick.attributes["imgflow.pending"] for tick in ticks) == 2
    assert sum(tick.attributes["imgflow.runs"] for tick in ticks) >= 1
    for tick in ticks:
        assert 0 < tick.ended - tick.began < 60


def run_code(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )


MANY = """
import hashlib
from imgflow.observability import traces
traces.configure_traces(True)
for number in range(2000):
    trace = hashlib.sha256(str(number).encode()).hexdigest()[:32]
    if %r == "seen":
        traces.seen(trace, {})
    else:
        traces.worked(traces.Work(trace, 1000.0, 0.5))
"""


def test_a_ratio_takes_the_same_uploads_in_every_process(
    receiver: Receiver, tmp_path: Path
) -> None:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
        "OTEL_SERVICE_NAME": "depot",
    }
    for what in ("seen", "worked"):
        run_code(MANY % what, tmp_path, **variables)
    traces = {
        name: {span.trace for span in receiver.spans if span.name == name}
        for name in ("upload", "process")
    }
    assert traces["upload"] == traces["process"]
    assert 120 < len(traces["upload"]) < 280
    assert {span.service for span in receiver.spans} == {"depot"}
    assert {(span.began, span.ended) for span in receiver.spans if span.name == "process"} == {
        (1000.0, 1000.5)
    }


AWAY = """
import time, uuid
from imgflow.observability import traces
traces.configure_traces(True)
began = time.monotonic()
with traces.run(str(uuid.uuid4()), {}):
    traces.worked(traces.Work("ab" * 16, time.time(), 0.1))
print(time.monotonic() - began)
"""


def test_a_collector_that_is_away_keeps_no_run_from_its_end(tmp_path: Path) -> None:
    done = run_code(AWAY, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert float(done.stdout) < 4


def test_without_the_packages_the_setting_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None  # as if it were not there\n"
        "from imgflow.errors import SettingsError\n"
        "from imgflow.observability.traces import configure_traces\n"
        "try: configure_traces(True)\n"
        "except SettingsError as error: print(error)\n"
    )
    assert "pip install 'imgflow[traces]'" in run_code(code, tmp_path).stdout
