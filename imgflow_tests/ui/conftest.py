"""One running imgflow for all tests of Dagster's UI, with images in every state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from imgflow.service.samples import sample_pictures
from imgflow_tests.browser import started_chromium
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.running import Running, ready, wait_until
from imgflow_tests.ui.browsing import Ui, Watch, watched

SAMPLES = 13
HARBOUR = [f"harbour/IMG_{number:04d}.jpg" for number in range(1, 21)]
CUT = "scans/cut.jpg"

UNFINISHED = """
query { runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}) {
  ... on Runs { results { id } }
} }
"""


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`imgflow up` with its samples, twenty further photographs and one that is cut short."""
    folder = tmp_path_factory.mktemp("ui")
    uploads = draw_uploads(folder / "uploads")
    settings = {"IMGFLOW_WATERMARK_TEXT": "© imgflow", "IMGFLOW_WORKERS": "2"}
    with ready(folder, "--samples", **settings) as started:
        wait_until(lambda: len(started.images(state="ready")) == SAMPLES, PATIENCE_SECONDS)
        assert started.command("upload", *map(str, uploads)).returncode == 0
        wait_until(
            lambda: len(started.images(state="ready", limit="100")) == SAMPLES + 20,
            PATIENCE_SECONDS,
        )
        wait_until(lambda: started.images(state="rejected"), PATIENCE_SECONDS)
        settle(started)
        yield started


def settle(running: Running) -> None:
    """Wait until no run is queued or going on, so that all events are there."""
    wait_until(lambda: not running.graphql(UNFINISHED)["runsOrError"]["results"], PATIENCE_SECONDS)


def draw_uploads(folder: Path) -> list[Path]:
    """Cut-outs of sample photographs in one folder, and half of a JPEG in another."""
    names = ["coffee.png", "rocket.jpg", "chelsea.png", "astronaut.png", "motorcycle_left.png"]
    harbour, scans = folder / "harbour", folder / "scans"
    harbour.mkdir(parents=True)
    scans.mkdir()
    for number, key in enumerate(HARBOUR):
        name, tenth = names[number % len(names)], number // len(names)
        cut_out(name, tenth / 10).save(folder / key, quality=90)
    whole = (folder / HARBOUR[0]).read_bytes()
    (folder / CUT).write_bytes(whole[: len(whole) // 2])
    return [harbour, scans]


def cut_out(name: str, margin: float) -> Image.Image:
    """A sample photograph without a margin, as a share of its sides."""
    picture = Image.open(sample_pictures() / name).convert("RGB")
    width, height = picture.size
    left, top = int(width * margin), int(height * margin)
    return picture.crop((left, top, width - left, height - top))


@pytest.fixture(scope="module")
def watch(running: Running) -> Iterator[Watch]:
    """A browser of somebody who is signed in, as the pictures of events need; it is watched."""
    with started_chromium() as browser, watched(browser, running) as watching:
        link = running.command("sign-in").stdout.strip()
        with watching.page() as page:
            page.goto(link)
        yield watching


@pytest.fixture
def ui(watch: Watch, running: Running, tmp_path: Path) -> Iterator[Ui]:
    """Dagster's UI in a new page; nothing may have gone wrong in it when a test ends."""
    with watch.page() as page:
        yield Ui(page, running, tmp_path)
