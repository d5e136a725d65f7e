"""What operators do in Dagster's UI, from an upload to a backfill."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from imgflow_tests.pictures import depth_csv
from imgflow_tests.running import Running, wait_until
from imgflow_tests.ui.browsing import Ui
from imgflow_tests.ui.conftest import CUT, HARBOUR, cut_out, settle

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

# Dagster's daemon looks at backfills every 30 seconds.
BACKFILL_SECONDS = 120

STATUS = """
query($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId status } }
  }
}
"""


def ended_runs(running: Running, backfill: str, *, is_over: bool = False) -> list[str]:
    """Wait for runs of a backfill, and return their states.

    Args:
        running: where.
        backfill: its id.
        is_over: wait until Dagster has seen that there is no more to launch.
    """

    def ended() -> Any:
        data = running.graphql(STATUS, id=backfill)
        status = data["partitionBackfillOrError"]["status"]
        states = [run["status"] for run in data["runsOrError"]["results"]]
        has_ended = states and {*states} <= {"SUCCESS", "FAILURE", "CANCELED"}
        return has_ended and (status == "COMPLETED_SUCCESS" or not is_over) and states

    states: list[str] = wait_until(ended, BACKFILL_SECONDS)
    return states


def written(running: Running, *keys: str) -> dict[str, Any]:
    """Times of everything that is kept of images: files of outputs, and rows."""
    files = {
        file: file.stat().st_mtime_ns
        for file in (running.home / "outputs").rglob("*")
        if file.is_file() and any(key in str(file) for key in keys)
    }
    rows = {key: running.images(prefix=key)[0]["updated_at"] for key in keys}
    assert files
    return {**{str(file): time for file, time in files.items()}, **rows}


def shown(picture: Locator) -> np.ndarray[Any, Any]:
    """What a browser shows of a picture, small."""
    expect(picture).to_have_js_property("complete", True)
    return small(Image.open(io.BytesIO(picture.screenshot())))


def small(picture: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX), float)


@pytest.mark.parametrize(
    ("key", "asset"),
    [
        ("garden/cat.jpg", "photo/thumbnail"),
        ("garden/cat.jpg", "photo/grayscale"),
        ("wells/north.csv", "depth/preview"),
    ],
)
def test_an_upload_turns_its_partition_green_and_shows_its_picture(
    ui: Ui, running: Running, tmp_path: Path, key: str, asset: str
) -> None:
    file = tmp_path / key
    file.parent.mkdir()
    if key.endswith(".csv"):
        file.write_bytes(depth_csv(rows=400))
    else:
        cut_out("chelsea.png", 0.1).save(file)
    assert running.command("upload", str(file.parent)).returncode == 0
    wait_until(lambda: [image["state"] for image in running.images(prefix=key)] == ["ready"])
    settle(running)
    ui.open_partition(asset, key)
    expect(ui.page.get_by_text("Materialized", exact=True).first).to_be_visible()
    expect(ui.page.get_by_text("did not materialize")).to_have_count(0)
    picture = shown(ui.picture())
    (made,) = (running.home / "outputs" / asset.rpartition("/")[2]).glob(f"*/{key}/*")
    assert np.abs(picture - small(Image.open(made))).mean() < 12
    if asset == "photo/thumbnail":
        ui.keep("ui-partition.webp")


def test_materialising_two_partitions_again_writes_nothing_and_says_noop(
    ui: Ui, running: Running
) -> None:
    keys = ["samples/chelsea.png", "samples/coffee.png"]
    before = written(running, *keys)
    dialog = ui.choose_partitions("photo/thumbnail", *keys)
    expect(dialog.get_by_text("2 partitions", exact=True)).to_be_visible()
    ui.keep("ui-materialize-selection.webp")
    assert ended_runs(running, ui.launch(dialog)) == ["SUCCESS"]
    for key in keys:
        ui.open_partition("photo/thumbnail", key)
        expect(ui.metadata("noop")).to_have_text(re.compile("true"))
    ui.metadata("recipe").scroll_into_view_if_needed()
    ui.metadata("noop").scroll_into_view_if_needed()
    ui.keep("ui-noop.webp")
    (made,) = (running.home / "outputs/thumbnail").glob(f"*/{keys[-1]}/*")
    assert np.abs(shown(ui.picture()) - small(Image.open(made))).mean() < 12
    assert written(running, *keys) == before


def test_a_red_partition_leads_to_its_reason_in_the_run(ui: Ui) -> None:
    ui.page.goto(f"/assets/photo/thumbnail?view=partitions&partition={CUT.replace('/', '%2F')}")
    expect(ui.seen("failed, and did not materialize this asset")).to_be_visible()
    ui.page.get_by_text("View logs").click()
    ui.page.get_by_placeholder("Filter…").fill("type:STEP_FAILURE")
    reason = ui.seen(f"{CUT}: The JPEG picture is incomplete")
    expect(reason).to_be_visible()
    expect(reason).to_contain_text("Rejected; the others are done.")
    ui.keep("ui-rejected-run.webp")


def test_a_backfill_over_twenty_keys_is_one_run(ui: Ui, running: Running) -> None:
    dialog = ui.choose_partitions("photo/thumbnail", containing="harbour/")
    expect(dialog.get_by_text("20 partitions", exact=True)).to_be_visible()
    assert ended_runs(running, ui.launch(dialog), is_over=True) == ["SUCCESS"]
    ui.page.reload()
    expect(ui.seen("100% completed")).to_be_visible()
    expect(ui.seen("Succeeded")).to_be_visible()
    ui.keep("ui-backfill.webp")
    ui.page.get_by_role("tab", name="Runs").click()
    expect(ui.page.get_by_role("link", name="View", exact=True)).to_have_count(1)
    ui.open_partition("photo/thumbnail", HARBOUR[-1])
    expect(ui.metadata("noop")).to_have_text(re.compile("true"))


def test_the_checks_of_an_asset_are_executed_by_hand_and_green(ui: Ui, running: Running) -> None:
    ui.open("/assets/photo/thumbnail?view=checks", "Checks (3)", "a sample of the images")
    ui.page.get_by_role("button", name="Execute all").click()
    expect(ui.seen("at most 1,000 of all images, at even distances")).to_be_visible()
    settle(running)
    # Anew, since Dagster's UI looks for news only now and then.
    ui.page.goto("/assets/photo/thumbnail?view=checks")
    checks = ["fits_box", "nothing_private", "readable"]
    for check in checks:
        expect(ui.seen(check)).to_be_visible()
    expect(ui.page.get_by_text("Succeeded", exact=True)).to_have_count(len(checks))
    expect(ui.metadata("defective")).to_have_text(re.compile("0$"))
    ui.keep("ui-checks.webp")


def test_force_in_the_launchpad_makes_one_partition_again(ui: Ui, running: Running) -> None:
    key, other = "samples/rocket.jpg", "samples/moon.png"
    before, untouched = written(running, key), written(running, other)
    ui.open_partition("photo/thumbnail", key)
    ui.page.get_by_role("button").filter(
        has=ui.page.get_by_role("img", name="arrow_drop_down")
    ).first.click()
    ui.page.get_by_role("menuitem", name="Open launchpad").click()
    dialog = ui.page.get_by_role("dialog")
    ui.choose_in_launchpad(dialog, key)
    expect(dialog.get_by_text(f"partition: {key}")).to_be_visible()
    editor = dialog.locator(".CodeMirror").first
    expect(editor).to_contain_text("force: false")
    # The launchpad fills in every default; what is left out stays as it is set.
    editor.get_by_text("false", exact=True).first.click()
    ui.page.keyboard.press("Control+a")
    ui.page.keyboard.insert_text("ops:\n  photo_outputs:\n    config:\n      force: true\n")
    expect(dialog.get_by_text("No errors")).to_be_visible()
    ui.keep("ui-launchpad-force.webp")
    dialog.get_by_role("button", name="Materialize").click()
    ui.page.wait_for_url("**/runs/*")
    expect(ui.page.get_by_text("Success", exact=True).first).to_be_visible()
    ui.open_partition("photo/thumbnail", key)
    expect(ui.metadata("noop")).to_have_text(re.compile("false"))
    after = written(running, key)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert {Path(name).parts[-5] for name in changed - {key}} == {"thumbnail"}
    assert written(running, other) == untouched
