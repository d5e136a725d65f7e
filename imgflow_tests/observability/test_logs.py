"""JSON logs of a real `imgflow up`: every line is an object, and one id leads through all files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import httpx
import pytest

from imgflow.observability.trace_records import root_span_id, trace_id
from imgflow.service.supervision.processes import as_json, copy_lines
from imgflow.settings.tokens import own_token
from imgflow.settings.variables import Settings
from imgflow_tests.api.library import bearer
from imgflow_tests.ceph import free_port
from imgflow_tests.observability.followed import Followed
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import wait_until


def test_an_id_of_an_upload_is_that_of_no_other() -> None:
    ids = {
        trace_id(*parts)
        for parts in (("s3://b/", "k", "i"), ("s3://b/", "ki", ""), ("s3://b/k", "", "i"))
    }
    assert len(ids) == 3
    for found in ids:
        assert int(found, 16) > 0
        assert len(found) == 32
        assert len(root_span_id(found)) == 16


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (b"Fatal Python error\n", "Fatal Python error"),
        (b'{"half a line": \n', '{"half a line":'),
        (b"[1, 2]\n", "[1, 2]"),
        (b"\x1b[32mgreen\x1b[0m and \xff\n", "green and �"),
    ],
)
def test_what_is_no_json_is_put_into_some(printed: bytes, said: str) -> None:
    line = json.loads(as_json(printed, "daemon"))
    assert (line["event"], line["logger"]) == (said, "output.daemon")


def test_a_line_of_json_stays_as_it_is() -> None:
    assert as_json(b'{"event": "x"}\n', "api") == b'{"event": "x"}\n'


@contextmanager
def api_alone(settings: Settings, folder: Path) -> Iterator[Path]:
    """The API by its own command, which answers; yields its log, whole after the block."""
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "imgflow.api"], cwd=folder, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: process.poll() is not None or answers(f"{settings.api_url}/health/"))
        yield log
    finally:
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_api_alone_writes_nothing_but_json(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(log_format="json", api_port=free_port())
    (settings.home / "source").mkdir(parents=True)
    with api_alone(settings, tmp_path) as log:
        token = bearer(own_token(settings.home))
        httpx.get(f"{settings.api_url}/images", params={"token": "secret"}, headers=token)
    assert own_token(settings.home) not in log.read_text(), "a terminal alone is shown it"
    parsed = [json.loads(line) for line in log.read_text().splitlines()]
    (request,) = (line for line in parsed if line.get("path", "").startswith("/images"))
    assert (request["status"], request["path"]) == (200, "/images?token=***")
    assert len(request["request_id"]) == 32
    assert "trace_id" not in request


def test_what_the_api_was_handed_by_url_has_the_id_of_its_request_and_its_trace(
    make_settings: Callable[..., Settings], bucket: str, s3: Any, tmp_path: Path
) -> None:
    settings = make_settings(
        log_format="json",
        api_port=free_port(),
        source_url=f"s3://{bucket}/in",
        output_url=f"s3://{bucket}/out",
        api_token="the-token",  # noqa: S106
    )
    s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg(60, 40))
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "in/a.jpg"})
    with api_alone(settings, tmp_path) as log:
        answer = httpx.post(
            f"{settings.api_url}/process",
            json={"url": url},
            headers={"Authorization": "Bearer the-token", "X-Request-ID": "r-7"},
            timeout=PATIENCE_SECONDS,
        )
        assert answer.status_code == 200, answer.text
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    trace = answer.headers["X-Imgflow-Trace"]
    said = [(line["event"], line["request_id"]) for line in lines if line.get("trace_id") == trace]
    assert said == [("upload seen", "r-7"), ("upload processed", "r-7"), ("request", "r-7")]
    assert [line["seen_by"] for line in lines if line["event"] == "upload seen"] == ["api"]


TALKING = """
import logging, sys, warnings
from imgflow.observability.context import bound
from imgflow.observability.logs import configure_logs
configure_logs("json", "info")
configure_logs("json", "info")
log = logging.getLogger("imgflow.somewhere")
with bound(request_id="r1"):
    log.info("shown %d", 1, extra={"key": "ü\\n.jpg", "at": object})
    log.debug("hidden")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
logging.getLogger("botocore").info("hidden")
warnings.warn("careful", stacklevel=1)
raise RuntimeError("the end")
"""


def test_arguments_errors_warnings_and_the_end_of_a_process_are_lines_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TALKING], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["info", "error", "warning", "critical"]
    assert (lines[0]["event"], lines[0]["key"]) == ("shown 1", "ü\n.jpg")
    assert [line.get("request_id") for line in lines] == ["r1", None, None, None]
    assert "ZeroDivisionError" in lines[1]["exception"]
    assert "careful" in lines[2]["event"]
    assert "the end" in lines[3]["exception"]


def test_logs_for_people_are_left_as_they_are_and_no_library_is_loaded_for_traces() -> None:
    code = (
        "import logging, sys\n"
        "before = logging.root.handlers[:], logging.getLoggerClass(), sys.excepthook\n"
        "import imgflow.definitions, imgflow.api.app\n"
        "imgflow.api.app.create_app()\n"
        "assert before == (logging.root.handlers, logging.getLoggerClass(), sys.excepthook)\n"
        "print([name for name in sys.modules"
        " if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.long
def test_every_line_of_every_log_is_an_object_that_says_what_when_and_how_grave(
    followed: Followed,
) -> None:
    assert set(followed.logs) == {"api", "code-server", "daemon", "webserver"}
    for name, lines in followed.logs.items():
        assert lines, name
        for line in lines:
            said = json.loads(line)
            assert {"event", "level", "logger", "timestamp"} <= said.keys(), line
            assert "\x1b" not in said["event"]


@pytest.mark.long
def test_one_id_leads_from_the_message_of_s3_to_the_answer_of_the_api(followed: Followed) -> None:
    image = followed.image
    trace = image["trace_id"]
    assert [headers["X-Imgflow-Trace"] for headers in followed.headers] == [trace, trace]
    (seen,) = followed.lines("code-server", event="upload seen", trace_id=trace)
    assert (seen["key"], seen["seen_by"], seen["image"]) == ("a b.jpg", "notification", image["id"])
    (processed,) = followed.lines("code-server", event="upload processed", trace_id=trace)
    assert processed["run_id"] == image["run_id"]
    assert (processed["outcome"], processed["key"]) == ("ready", "a b.jpg")
    assert processed["worker"] > 0
    assert processed["process_ms"] > 0
    assert seen["timestamp"] < processed["timestamp"]
    shown = followed.lines("api", event="request", trace_id=trace, request_id="r-1")
    assert [(line["method"], line["status"]) for line in shown] == [("GET", 200), ("GET", 200)]
    assert [line["path"].partition("?")[0] for line in shown] == [
        f"/images/{image['id']}",
        f"/images/{image['id']}/thumbnail",
    ]


@pytest.mark.long
def test_a_rejected_upload_says_why_in_the_log_and_dagster_says_which_run(
    followed: Followed,
) -> None:
    (line,) = followed.lines(
        "code-server", event="upload processed", trace_id=followed.rejected["trace_id"]
    )
    assert (line["outcome"], line["reason"]) == ("rejected", followed.rejected["reason"])
    failures = followed.lines("code-server", dagster_event="STEP_FAILURE", run_id=line["run_id"])
    assert [failure["job"] for failure in failures] == ["process_photos"]


def test_a_process_goes_on_when_its_log_cannot_be_written(tmp_path: Path) -> None:
    """A disk that is full has room again later; what prints meanwhile must not end for it."""
    log = tmp_path / "x.log"
    log.symlink_to("/dev/full")
    code = "import time\nfor n in range(20): print(n, flush=True); time.sleep(0.05)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    copying = copy_lines(cast(BinaryIO, process.stdout), log, "x")
    assert process.wait(60) == 0
    copying.join(60)
