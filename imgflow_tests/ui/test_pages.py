"""Every page that an operator comes to: what it shows, and that nothing goes wrong in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from imgflow_tests.running import Running
from imgflow_tests.ui.browsing import Ui, Watch

pytestmark = pytest.mark.long

PHOTO_ASSETS = ["source", "grayscale", "thumbnail", "proof", "metadata"]
ASSETS = [
    *(f"photo/{name}" for name in PHOTO_ASSETS),
    *("depth/source", "depth/resized", "depth/preview", "depth/metadata"),
]
JOBS = [
    *("process_photos", "process_depth_images"),
    *("backfill_stale", "reconcile", "retention", "audit"),
]
SENSORS = ["arrivals", "failures"]
SCHEDULES = [f"nightly_{job}" for job in JOBS[2:]]
DAEMONS = ["Sensors", "Backfill", "Scheduler", "Run queue", "Monitoring"]

PAGES = {
    "/overview/timeline": JOBS[:2],
    "/overview/resources": ["catalog", "stores", "workers"],
    "/assets": ["Photographs as they were uploaded"],
    "/asset-groups": ["photo", "depth"],
    "/jobs": JOBS,
    "/runs": ["process_photos", "Failure", "Success"],
    "/automation": [*SENSORS, *SCHEDULES],
    "/deployment/locations": ["imgflow", "Loaded"],
    "/deployment/daemons": [*DAEMONS, "Running"],
    "/deployment/concurrency": ["Run"],
    "/deployment/config": ["event_log_storage"],
    "/assets/photo/thumbnail?view=partitions": ["samples/coffee.png"],
    "/assets/photo/thumbnail?view=events": ["materialized in run"],
    "/assets/photo/thumbnail?view=lineage": ["thumbnail", "source"],
    "/assets/photo/thumbnail?view=checks": ["Checks"],
    "/assets/photo/source?view=partitions": ["samples/coffee.png"],
    "/locations/imgflow/jobs/process_photos/runs": ["arrivals"],
    "/locations/imgflow/jobs/process_photos/partitions": ["Total partitions"],
}


@pytest.fixture(scope="module")
def page(watch: Watch) -> Iterator[Page]:
    """One page for all of these tests, which go on in it as an operator would."""
    with watch.page() as opened:
        yield opened


@pytest.fixture
def ui(page: Page, watch: Watch, running: Running, tmp_path: Path) -> Iterator[Ui]:
    """Dagster's UI; nothing may have gone wrong in it when a test ends."""
    yield Ui(page, running, tmp_path)
    watch.check()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_what_it_should_without_an_error(ui: Ui, path: str) -> None:
    ui.open(path, *PAGES[path])


@pytest.mark.parametrize("asset", ASSETS)
def test_an_asset_says_what_it_is(ui: Ui, asset: str) -> None:
    ui.open(f"/assets/{asset}", "Description", "Owners", "Kinds")
    expect(ui.page.get_by_text("No description found")).to_have_count(0)


@pytest.mark.parametrize("asset", ASSETS)
def test_an_asset_shows_a_sample_in_place(ui: Ui, asset: str) -> None:
    """The newest picture stands on the page, not behind a link."""
    ui.open(f"/assets/{asset}", "Metadata")
    expect(ui.page.get_by_text("Show Markdown")).to_have_count(0)
    expect(ui.page.get_by_role("row").locator("img[src^='data:image']")).to_be_visible()


@pytest.mark.parametrize("job", JOBS)
def test_a_job_says_what_it_does(ui: Ui, job: str) -> None:
    ui.open(f"/locations/imgflow/jobs/{job}", job, "Description")
    expect(ui.page.get_by_text("No description provided")).to_have_count(0)


def test_the_sensor_shows_its_ticks(ui: Ui) -> None:
    ui.open("/locations/imgflow/sensors/arrivals", "Asks for runs over the uploads", "Running")
    expect(ui.page.get_by_role("link", name="process_photos").first).to_be_visible()
    results = ui.page.get_by_role("row").get_by_role("button", name="0 runs requested")
    expect(results.first).to_be_visible()
    ui.keep("ui-sensor.webp")
    results.first.click()
    expect(ui.page.get_by_role("dialog").get_by_text("nothing new")).to_be_visible()
    ui.page.keyboard.press("Escape")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_says_what_it_does_and_when_next(ui: Ui, schedule: str) -> None:
    ui.open(f"/locations/imgflow/schedules/{schedule}", "Description", "Next tick", "Running")


def test_schedules_and_sensor_are_on(ui: Ui) -> None:
    ui.open("/automation", *SENSORS, *SCHEDULES)
    switches = ui.page.get_by_role("checkbox", checked=True)
    expect(switches).to_have_count(len(SENSORS) + len(SCHEDULES))
    ui.keep("ui-schedules.webp")


def test_the_asset_graph_shows_how_an_image_goes(ui: Ui) -> None:
    ui.open("/locations/imgflow/asset-groups/photo/lineage", *PHOTO_ASSETS)
    expect(ui.page.get_by_text(re.compile(r"\d+ partitions"))).to_have_count(len(PHOTO_ASSETS))
    ui.keep("ui-asset-graph.webp")
