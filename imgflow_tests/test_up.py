"""`imgflow up` as its user runs it: real processes, and what is left of them afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg
from imgflow_tests.running import Running, ready, start, stop, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SAMPLES = 13


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ready(tmp_path_factory.mktemp("up"), "--samples") as started:
        yield started


def test_the_samples_are_processed_by_the_sensor_within_a_minute_and_without_a_click(
    running: Running,
) -> None:
    ready = wait_until(lambda: len(running.images(state="ready")) == SAMPLES and running.images())
    assert {image["media_type"] for image in ready} == {
        "image/png",
        "image/jpeg",
        "image/tiff",
        "image/gif",
        "text/csv",
    }
    for image in ready:
        for name, output in image["outputs"].items():
            if "url" in output and name != "resized":
                picture = running.read(output["url"])
                assert picture.status_code == 200
                assert picture.headers["content-type"] == output["media_type"]
    (depth,) = (image for image in ready if image["kind"] == "depth")
    assert (depth["facts"]["rows"], depth["facts"]["width"]) == (5_460, 150)
    assert (depth["facts"]["depth_min"], depth["facts"]["depth_max"]) == (9000.1, 9546.0)
    frame = running.read(f"/image/{depth['id']}", depth_min="9000.1", depth_max="9010")
    assert frame.headers["content-type"] == "image/jpeg"


STALENESS = """
query($keys: [AssetKeyInput!], $partition: String!) {
  assetNodes(assetKeys: $keys) {
    staleStatus(partition: $partition)
    staleCauses(partition: $partition) { reason }
  }
}
"""


def test_nothing_that_was_just_made_is_shown_as_stale(running: Running) -> None:
    for image in wait_until(lambda: running.images(state="ready")):
        names = [*image["outputs"], "metadata"]
        nodes = running.graphql(
            STALENESS,
            keys=[{"path": [image["kind"], name]} for name in names],
            partition=image["key"],
        )["assetNodes"]
        assert [node["staleStatus"] for node in nodes] == ["FRESH"] * len(names), nodes


def test_it_prints_the_addresses_and_shows_progress(running: Running) -> None:
    wait_until(lambda: f"photos: {SAMPLES - 1} ready" in running.output())
    assert running.dagster in running.output()
    assert running.api in running.output()


def test_it_shows_the_token_that_the_api_needs_when_it_was_made_and_nowhere_else(
    running: Running,
) -> None:
    file = running.home / "api-token"
    assert f"Token     {file}" in running.output()
    token = file.read_text().strip()
    assert httpx.delete(f"{running.api}/images/999999").status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.delete(f"{running.api}/images/999999", headers=headers).status_code == 404
    assert f"{token} (shown this once)" in running.output()
    assert running.output().count(token) == 1
    for log in (running.home / "logs").iterdir():
        assert token not in log.read_text(errors="replace")


def test_it_prints_a_link_that_signs_a_browser_in_once_and_writes_it_into_no_log(
    running: Running,
) -> None:
    (link,) = re.findall(rf"{running.api}/sign-in\?key=(\S+)", running.output())
    with httpx.Client(base_url=running.api, follow_redirects=True) as browser:
        assert browser.get("/").status_code == 401
        assert browser.get("/sign-in", params={"key": link}).status_code == 200
        assert browser.get("/session").json() == {"scopes": ["read", "write"]}
    assert httpx.get(f"{running.api}/sign-in", params={"key": link}).status_code == 401
    for log in (running.home / "logs").iterdir():
        assert link not in log.read_text(errors="replace")
    another = running.command("sign-in")
    assert httpx.get(another.stdout.strip()).status_code == 303


def test_an_upload_becomes_ready_by_itself(running: Running, tmp_path: Path) -> None:
    picture = tmp_path / "new one.jpg"
    picture.write_bytes(jpeg(200, 100))
    done = running.command("upload", str(picture), "--prefix", "later/")
    assert done.returncode == 0, done.stderr
    image = wait_until(
        lambda: [i for i in running.images(prefix="later/") if i["state"] == "ready"]
    )[0]
    assert (image["width"], image["height"]) == (200, 100)
    again = running.command("upload", str(picture), "--prefix", "later/")
    assert "0 uploaded, 1 unchanged" in again.stderr


BACKFILL = """
mutation($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    __typename ... on LaunchBackfillSuccess { backfillId }
  }
}
"""
RUNS_OF = """
query($tag: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $tag}]}) {
    ... on Runs { results { runId status } }
  }
}
"""


def test_an_operator_who_selects_partitions_in_the_ui_and_materialises_them_gets_one_run(
    running: Running,
) -> None:
    wait_until(lambda: len(running.images(state="ready", kind="photo")) >= SAMPLES - 1)
    before = {image["id"]: image["updated_at"] for image in running.images()}
    keys = ["samples/camera.png", "samples/chelsea.png", "samples/coffee.png"]
    # What the UI sends when three partitions of two assets are selected.
    launched = running.graphql(
        BACKFILL,
        backfill={
            "partitionNames": keys,
            "assetSelection": [{"path": ["photo", "thumbnail"]}, {"path": ["photo", "metadata"]}],
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def finished() -> list[dict[str, str]]:
        runs = running.graphql(RUNS_OF, tag=launched["backfillId"])["runsOrError"]["results"]
        return runs if runs and all(r["status"] in ("SUCCESS", "FAILURE") for r in runs) else []

    runs = wait_until(finished, 120)
    assert [run["status"] for run in runs] == ["SUCCESS"]
    assert {image["id"]: image["updated_at"] for image in running.images()} == before


def test_started_twice_the_second_says_so_and_does_no_harm(running: Running) -> None:
    second = running.command("up")
    assert second.returncode == 2
    assert f"already runs in {running.home}" in second.stderr
    assert str(running.process.pid) in second.stderr
    assert httpx.get(f"{running.api}/health/ready").status_code == 200


def test_a_taken_port_is_named(running: Running, tmp_path: Path) -> None:
    for name in ("DAGSTER_PORT", "API_PORT"):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = str(taken.getsockname()[1])
            other = start(tmp_path, **{f"IMGFLOW_{name}": port})
            assert other.process.wait(60) == 2
            assert f"Port {port}" in other.output()
            assert f"IMGFLOW_{name}" in other.output()
            assert other.leftovers() == []
    assert running.process.poll() is None


def test_a_part_that_dies_is_started_again(running: Running) -> None:
    (daemon,) = (
        child
        for child in psutil.Process(running.process.pid).children()
        if "dagster-daemon" in " ".join(child.cmdline())
    )
    daemon.kill()
    wait_until(lambda: "The daemon ended with -9 and is started again." in running.output())
    wait_until(
        lambda: [
            child.pid
            for child in psutil.Process(running.process.pid).children()
            if "dagster-daemon" in " ".join(child.cmdline())
        ]
    )


def test_a_killed_database_is_started_again_and_uploads_go_on(running: Running) -> None:
    postmaster = int((running.home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    os.kill(postmaster, signal.SIGKILL)
    source = running.home / "source"
    (source / "after.jpg").write_bytes(jpeg(120, 90))

    def is_ready() -> bool:
        try:
            found = running.images(prefix="after")
        except (httpx.HTTPError, KeyError):  # the database is away, as it should be for a while
            return False
        return [image["state"] for image in found] == ["ready"]

    wait_until(is_ready, 120)


def test_while_the_database_is_away_processes_are_still_looked_after(tmp_path: Path) -> None:
    database = EmbeddedPostgres(tmp_path / "elsewhere")
    with ready(tmp_path, IMGFLOW_DATABASE_URL=database.url) as running:
        database.close()
        wait_until(lambda: "does not answer" in running.output())
        (api,) = (
            child
            for child in psutil.Process(running.process.pid).children()
            if "imgflow.api" in " ".join(child.cmdline())
        )
        api.kill()
        wait_until(lambda: "The api ended with -9 and is started again." in running.output(), 4)
        again = EmbeddedPostgres(tmp_path / "elsewhere")
        try:
            wait_until(running.is_well, PATIENCE_SECONDS)
        finally:
            stop(running, signal.SIGTERM)
            again.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    started = start(tmp_path)
    wait_until(lambda: "Ready." in started.output() or started.process.poll() is not None)
    assert len(started.leftovers()) >= 6
    assert stop(started, number) == 0
    assert started.leftovers() == []
    assert started.output().endswith("Stopped.\n")


def test_a_signal_in_the_middle_of_a_start_leaves_no_process_behind(tmp_path: Path) -> None:
    started = start(tmp_path)
    wait_until((started.home / "logs" / "code-server.log").exists)
    assert stop(started, signal.SIGTERM) == 0
    wait_until(lambda: started.leftovers() == [], 10)


def test_a_wrong_setting_stops_the_start_with_a_sentence_that_names_it(tmp_path: Path) -> None:
    for name, value in {
        "SOURCE_URL": "ftp://bucket",
        "DATABASE_URL": "mysql://root:secret@db/x",
        "THUMBNAIL_SIZE": "huge",
    }.items():
        started = start(tmp_path, **{f"IMGFLOW_{name}": value})
        assert started.process.wait(60) == 2
        (line,) = re.findall(r"^imgflow: .*$", started.output(), re.MULTILINE)
        assert f"IMGFLOW_{name}" in line
        assert "secret" not in started.output()
        assert "Traceback" not in started.output()
        assert started.leftovers() == []
