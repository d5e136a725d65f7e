"""A page that an operator visits asks Dagster to stop, to start and to tell something.

The page lies at `http://evil.test`, in Chromium, which has that name resolve to this machine. It
knows every id that it needs. Dagster is the webserver of a real `imgflow up`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page

from imgflow_tests.browser import started_chromium
from imgflow_tests.running import Running, ready

NAME = "evil.test"
RULES = f"--host-resolver-rules=MAP {NAME} 127.0.0.1"

SENSORS = """
query { sensorsOrError(repositorySelector: {
  repositoryName: "__repository__", repositoryLocationName: "imgflow"
}) { ... on Sensors { results { name id sensorState { id selectorId status } } } } }
"""
RUNS = "query { runsOrError { ... on Runs { results { runId } } } }"
MADE = """
query { assetOrError(assetKey: {path: ["photo", "thumbnail"]}) {
  ... on Asset { assetMaterializations(limit: 1) { timestamp } }
} }
"""
STOP = "mutation { stopSensor(id: %s) { __typename } }"
START = """
mutation { startSensor(sensorSelector: {
  repositoryName: "__repository__", repositoryLocationName: "imgflow", sensorName: "arrivals"
}) { __typename } }
"""
LAUNCH = """
mutation launch($job: String!) { launchRun(executionParams: {
  mode: "default", runConfigData: {}, selector: {
    jobName: $job, repositoryName: "__repository__", repositoryLocationName: "imgflow"
  }
}) { __typename } }
"""

# Ends when the browser has an answer, whatever it is, or none.
FETCH = """
([url, options]) => fetch(url, options).then(
  async answer => [answer.type, answer.status, await answer.text()], error => [`${error}`]
)
"""
PICTURE = """
url => new Promise(done => {
  const image = new Image();
  image.onload = image.onerror = () => done();
  image.src = url;
})
"""
FORM = """
([url, type, method, fields]) => {
  const form = Object.assign(document.createElement('form'), {action: url, enctype: type, method});
  for (const [name, value] of Object.entries(fields))
    form.append(Object.assign(document.createElement('input'), {name, value}));
  document.body.append(form);
  form.submit();
}
"""
SUBSCRIBE = """
([url, query]) => new Promise(done => {
  const socket = new WebSocket(url, 'graphql-ws'), heard = [];
  socket.onopen = () => {
    socket.send(JSON.stringify({type: 'connection_init', payload: {}}));
    socket.send(JSON.stringify({type: 'start', id: '1', payload: {query}}));
  };
  socket.onmessage = ({data}) => { heard.push(data); socket.close(); };
  socket.onclose = () => done(heard);
})
"""
FRAME = """
url => new Promise(done => {
  const frame = document.createElement('iframe');
  frame.onload = () => done();
  frame.src = url;
  document.body.append(frame);
})
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ready(tmp_path_factory.mktemp("steered")) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_chromium(RULES) as started:
        yield started


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a server whose pages are empty; the tests run the scripts of a page in them."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>cats</title>")

        def log_message(self, *_: object) -> None:
            """Nothing is said of requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{NAME}:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=[NAME, "127.0.0.1"], ids=["foreign", "other port"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    """A page of another site, or of another server of this machine."""
    page = browser.new_page()
    page.goto(address.replace(NAME, request.param))
    yield page
    page.close()


class Dagster:
    """What the attacks are after."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.graphql = f"{running.dagster}/graphql"
        (sensor,) = (found for found in self._sensors() if found["name"] == "arrivals")
        self.stop = STOP % json.dumps(sensor["id"])
        self.runs = self._runs()

    def check_intact(self) -> None:
        """The sensor runs, no run was launched, nothing was reported."""
        states = {found["name"]: found["sensorState"]["status"] for found in self._sensors()}
        assert states["arrivals"] == "RUNNING"
        assert self._runs() == self.runs
        assert self.running.graphql(MADE)["assetOrError"].get("assetMaterializations", []) == []

    def start_sensor(self) -> None:
        """So that what one attack has stopped is not put down to the next."""
        self.running.graphql(START)

    def _sensors(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.running.graphql(SENSORS)["sensorsOrError"]["results"]
        return found

    def _runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.running.graphql(RUNS)["runsOrError"]["results"]
        return found


@pytest.fixture
def dagster(running: Running) -> Iterator[Dagster]:
    attacked = Dagster(running)
    yield attacked
    try:
        attacked.check_intact()
    finally:
        attacked.start_sensor()


def test_a_picture_stops_no_sensor(page: Page, dagster: Dagster) -> None:
    page.evaluate(PICTURE, f"{dagster.graphql}?{urlencode({'query': dagster.stop})}")


def test_a_link_stops_no_sensor(page: Page, dagster: Dagster) -> None:
    page.goto(f"{dagster.graphql}?{urlencode({'query': dagster.stop})}")
    assert "POST with JSON" in page.content()


@pytest.mark.parametrize("place", ["address", "body"])
@pytest.mark.parametrize(
    "content",
    [
        "text/plain",
        "text/plain; application/json",
        "application/x-www-form-urlencoded; charset=application/json",
        "multipart/form-data; boundary=application/json",
        "",
    ],
)
def test_a_simple_post_launches_no_run(
    page: Page, dagster: Dagster, content: str, place: str
) -> None:
    query = {"query": LAUNCH, "variables": json.dumps({"job": "reconcile"})}
    url = dagster.graphql + (f"?{urlencode(query)}" if place == "address" else "")
    body = json.dumps({"query": LAUNCH, "variables": {"job": "reconcile"}})
    headers = {"Content-Type": content} if content else {}
    page.evaluate(
        FETCH, [url, {"method": "POST", "mode": "no-cors", "headers": headers, "body": body}]
    )


@pytest.mark.parametrize("content", ["application/json", "application/graphql"])
def test_a_post_that_asks_first_is_not_let_in(page: Page, dagster: Dagster, content: str) -> None:
    body = dagster.stop
    if content == "application/json":
        body = json.dumps({"query": dagster.stop})
    options = {"method": "POST", "headers": {"Content-Type": content}, "body": body}
    (error,) = page.evaluate(FETCH, [dagster.graphql, options])
    assert "TypeError" in error


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "content", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_form_stops_no_sensor(page: Page, dagster: Dagster, content: str, method: str) -> None:
    url = f"{dagster.graphql}?{urlencode({'query': dagster.stop})}"
    with page.expect_navigation():
        page.evaluate(FORM, [url, content, method, {"query": dagster.stop}])


def test_no_materialisation_is_reported(page: Page, dagster: Dagster) -> None:
    url = f"{dagster.running.dagster}/report_asset_materialization/photo/thumbnail?partition=a.jpg"
    page.evaluate(FETCH, [url, {"method": "POST", "mode": "no-cors"}])
    with page.expect_navigation():
        page.evaluate(FORM, [url, "text/plain", "post", {}])


def test_a_websocket_of_another_page_is_told_nothing(page: Page, dagster: Dagster) -> None:
    url = dagster.graphql.replace("http:", "ws:")
    query = "subscription { locationStateChangeEvents { event { message } } }"
    assert page.evaluate(SUBSCRIBE, [url, query]) == []


def test_a_name_that_leads_here_reads_nothing(browser: Browser, dagster: Dagster) -> None:
    page = browser.new_page()
    here = dagster.running.dagster.replace("127.0.0.1", NAME)
    answer = page.goto(here)
    assert answer is not None
    assert answer.status == 421
    assert "IMGFLOW_DAGSTER_URL" in answer.text()
    options = {
        "method": "POST",
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps({"query": RUNS}),
    }
    for url in (f"{here}/graphql", f"{here}/logs/x", f"{here}/download_debug/x", f"{here}/_next"):
        wanted = options if url.endswith("graphql") else {}
        _, status, text = page.evaluate(FETCH, [url, wanted])
        assert status == 421
        assert "runsOrError" not in text
    _, status, text = page.evaluate(FETCH, [f"{here}/server_info", {}])
    assert (status, text) == (200, "ok\n"), "what a health probe may know"
    socket = f"{here.replace('http:', 'ws:')}/graphql"
    assert page.evaluate(SUBSCRIBE, [socket, "subscription { __typename }"]) == []
    page.close()


def test_the_ui_is_not_drawn_in_a_frame(page: Page, dagster: Dagster) -> None:
    page.evaluate(FRAME, f"{dagster.running.dagster}/automation")
    assert [frame.title() for frame in page.frames[1:] if "Dagster" in frame.content()] == []
    answer = httpx.get(dagster.running.dagster)
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/logs/x.out", "/download_debug/x", "/server_info", "/"])
def test_nothing_is_drawn_into_another_page(page: Page, dagster: Dagster, path: str) -> None:
    opaque = page.evaluate(FETCH, [f"{dagster.running.dagster}{path}", {"mode": "no-cors"}])
    assert opaque in (["TypeError: Failed to fetch"], ["opaque", 0, ""])
    refused = httpx.get(
        f"{dagster.running.dagster}{path}",
        headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    )
    assert refused.status_code == 403


def test_a_link_from_elsewhere_opens_the_ui(page: Page, dagster: Dagster) -> None:
    answer = page.goto(f"{dagster.running.dagster}/runs")
    assert answer is not None
    assert answer.status == 200
    assert urlsplit(page.url).path == "/runs"


def test_no_notebook_of_an_uploader_is_drawn(dagster: Dagster, tmp_path: Path) -> None:
    (tmp_path / "cats.ipynb").write_text("{}")
    for path in ("/notebook", "/dagit/notebook"):
        query = {"path": str(tmp_path / "cats.ipynb"), "repoLocName": "imgflow"}
        assert httpx.get(dagster.running.dagster + path, params=query).status_code == 404


def test_programs_of_this_machine_are_answered(running: Running, dagster: Dagster) -> None:
    answer = httpx.post(dagster.graphql, json={"query": "{ version }"})
    assert answer.json()["data"]["version"]
    assert "dagster_version" in httpx.get(f"{running.dagster}/server_info").json()
