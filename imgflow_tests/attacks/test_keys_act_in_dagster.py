"""An uploader names images so that Dagster's UI does something when somebody looks at them.

Of each image an output is lost, so that the check `readable` names it in its description and its
metadata, and one is no picture, so that the log of its run names it. The pages are opened in
Chromium.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from imgflow_tests.browser import started_chromium
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, ready, wait_until

SENSORS = """
query { sensorsOrError(repositorySelector: {
  repositoryName: "__repository__", repositoryLocationName: "imgflow"
}) { ... on Sensors { results { name id sensorState { status } } } } }
"""
AUDIT = """
mutation audit($config: RunConfigData!) { launchRun(executionParams: {
  mode: "default", runConfigData: $config, selector: {
    jobName: "audit", repositoryName: "__repository__", repositoryLocationName: "imgflow"
  }
}) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
FAILED = """
query { runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { runId } } } }
"""

TAIL = "cat.jpg"

ACTS = re.compile(
    r"(https?://[^/]*)?/graphql\?query=|(https?:)?//[^/]*evil|javascript:|mailto:|owned"
)
"""Addresses that keys name, and what their scripts would say; Dagster's own pages name keys too."""


def hostile(mutation: str) -> dict[str, str]:
    """Keys, by what they attempt; `mutation` is a query that stops a sensor."""
    address = f"/graphql?query={quote(mutation, safe='')}"
    return {
        "picture": f"![x]({address}){TAIL}",
        "behind a carriage return": f"a\r\r![x]({address}){TAIL}",
        "behind a line separator": f"a\u2028\u2029\n\n![x]({address}){TAIL}",
        "out of code": f"`` ``` ![x]({address}){TAIL}",
        "HTML": f"<img src='{address}'>{TAIL}",
        "script": f"<script>fetch('{address}')</script>{TAIL}",
        "link": f"[x](javascript:fetch('{address}')){TAIL}",
        "automatic link": f"<http://evil.test/a>{TAIL}",
        "bare address": f"www.evil.test http://evil.test/b a@evil.test {TAIL}",
        "reference": f"a\n\n[x]: {address}\n\n![x]{TAIL}",
    }


class Visited:
    """The running service, with the images in it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.sensors = running.graphql(SENSORS)["sensorsOrError"]["results"]
        (sensor,) = (one for one in self.sensors if one["name"] == "failures")
        mutation = f"mutation{{stopSensor(id:{json.dumps(sensor['id'])}){{__typename}}}}"
        self.keys = hostile(mutation)

    def upload(self) -> None:
        source = self.running.home / "source"
        for key in self.keys.values():
            file = source / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg())
            broken = source / "broken" / key
            broken.parent.mkdir(parents=True, exist_ok=True)
            broken.write_bytes(b"no picture")
        wait_until(
            lambda: (
                len(self.running.images(state="ready", limit="100")) == len(self.keys)
                and len(self.running.images(state="rejected", limit="100")) == len(self.keys)
            ),
            PATIENCE_SECONDS,
        )

    def lose_outputs(self) -> None:
        for file in (self.running.home / "outputs" / "thumbnail").rglob("*"):
            if file.is_file():
                file.unlink()
        self.examine(keys=[])

    def examine(self, keys: list[str]) -> None:
        """Execute the checks of these images, or of all, and wait until that is done."""
        config = {"ops": {"photo_checks": {"config": {"most": 0, "keys": keys}}}}
        launched = self.running.graphql(AUDIT, config=json.dumps(config))["launchRun"]
        run = launched["run"]["runId"]

        def has_ended() -> bool:
            status = self.running.graphql(RUN, id=run)["runOrError"]["status"]
            return status in ("SUCCESS", "FAILURE")

        wait_until(has_ended, PATIENCE_SECONDS)

    def check_intact(self) -> None:
        assert self.running.graphql(SENSORS)["sensorsOrError"]["results"] == self.sensors


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    with ready(tmp_path_factory.mktemp("keys")) as started:
        made = Visited(started)
        made.upload()
        made.lose_outputs()
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started_chromium() as started:
        yield started


@pytest.fixture
def page(browser: Browser, visited: Visited) -> Iterator[Page]:
    """A page in which nothing may come of a key: no request, no picture, no link, no dialog."""
    page = browser.new_page(base_url=visited.running.dagster)
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    yield page
    acted = [one for one in asked if ACTS.match(one)]
    assert acted == []
    links = page.locator("img, a").evaluate_all(
        "all => all.map(one => one.getAttribute('href') || one.getAttribute('src') || '')"
    )
    assert [one for one in links if ACTS.match(one)] == []
    page.close()
    visited.check_intact()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("picture", "![x](/graphql?query="),
        ("behind a carriage return", "a\\r\\r![x](/graphql?query="),
        ("HTML", "<img src='/graphql?query="),
    ],
)
def test_a_check_names_keys_as_they_are(
    page: Page, visited: Visited, name: str, shown: str
) -> None:
    visited.examine(keys=[visited.keys[name]])
    page.goto("/assets/photo/thumbnail?view=checks&checkDetail=readable")
    expect(page.get_by_text(shown).locator("visible=true").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def test_the_partitions_of_an_asset_name_keys_as_they_are(page: Page, visited: Visited) -> None:
    page.goto("/assets/photo/metadata?view=partitions")
    expect(page.get_by_text(TAIL).first).to_be_visible()
    for key in visited.keys.values():
        if key.isprintable():
            page.goto(f"/assets/photo/metadata?view=partitions&partition={quote(key, safe='')}")
            expect(page.get_by_role("button", name="View all historical events")).to_be_visible()


def test_a_run_names_keys_as_they_are(page: Page, visited: Visited) -> None:
    runs = visited.running.graphql(FAILED)["runsOrError"]["results"]
    assert runs
    for run in runs:
        page.goto(f"/runs/{run['runId']}?logs=type:STEP_FAILURE")
        expect(page.get_by_text("rejected").first).to_be_visible()


@pytest.mark.parametrize("name", ["arrivals", "failures"])
def test_the_ticks_of_a_sensor_name_keys_as_they_are(page: Page, name: str) -> None:
    page.goto(f"/locations/imgflow/sensors/{name}")
    expect(page.get_by_text(name).first).to_be_visible()
    page.wait_for_load_state("networkidle")
