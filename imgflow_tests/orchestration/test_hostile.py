"""Hostile uploads in real workers: each costs its own image, and the others are done."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from imgflow.images.formats.decoding import Limits, prepare_decoder
from imgflow.images.formats.pillow import MEDIA_TYPES
from imgflow.images.outputs import process_photo
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.store.objects import SourceObject, look_at
from imgflow.work.photographs import answered, process_photo_task
from imgflow.work.pool import WorkerPool
from imgflow.work.tasks import Outcome, Task, WorkerConfig, described, ready
from imgflow.work.worker_limits import cpu_limit, memory_limit
from imgflow_tests.images.pictures import encoded, scene
from imgflow_tests.images.wide_pictures import png16, tiff16
from imgflow_tests.orchestration.hostile import blank, gif_of_frames, many_scans, patched_tiff, png

SECONDS = 3.0
MEMORY = 64
RECIPE = PhotoRecipe(watermark_text="PROOF")
OUTPUTS = {name: RECIPE.fingerprint(name) for name in ("grayscale", "thumbnail", "proof")}
LIMITS = Limits(max_bytes=3_000_000, max_pixels=50_000_000, max_side=20_000, max_frames=500)

HOSTILE = {
    "claims.png": (png(60_000, 60_000, b""), "too_many_pixels", "50,000,000"),
    "long.png": (png(20_001, 2, bytes(120_008)), "too_long_side", "20,000"),
    "hollow.png": (png(7_000, 7_000, bytes(1_000)), "truncated|too_large", ""),
    "frames.gif": (gif_of_frames(501), "too_many_frames", "500"),
    "endless-frames.gif": (gif_of_frames(60_000), "too_many_frames", "500"),
    "bytes.jpg": (encoded(scene(), "JPEG") + bytes(3_000_000), "too_many_bytes", "3,000,000"),
    "scans.jpg": (many_scans(), "too_many_scans", "at most 100"),
    "strip.tif": (patched_tiff(sizes=2**31 - 1), None, ""),
    "strips.tif": (
        patched_tiff(rows_per_strip=1, width=7_000, height=7_000),
        "corrupt|truncated|too_large",
        "",
    ),
    "beyond.tif": (patched_tiff(strip_offsets=2**32 - 1), "corrupt|truncated", ""),
    "wide.tif": (patched_tiff(width=2**31 - 1), "too_many_pixels", "50,000,000"),
    **{
        f"blank.{name.lower()}": (blank(name), "too_large", f"{MEMORY} MiB")
        for name in ("WEBP", "JPEG2000", "AVIF", "HEIF")
    },
    "blank.png": (blank("PNG", 5_000), "too_large", f"{MEMORY} MiB"),
    "blank.tiff": (blank("TIFF", 900)[:2_000], "corrupt|truncated", ""),
}


@pytest.fixture
def config(worker_config: WorkerConfig) -> WorkerConfig:
    return replace(
        worker_config,
        photo_recipe=RECIPE,
        photo_limits=replace(LIMITS, max_memory=MEMORY * 2**20),
        decode_seconds=SECONDS,
        depth_seconds=SECONDS,
    )


def task(number: int, upload: SourceObject) -> Task:
    return Task(number, upload, "r", wanted=frozenset(OUTPUTS), enabled=OUTPUTS)


def test_each_hostile_file_costs_its_own_image_and_the_batch_goes_on(
    config: WorkerConfig, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    for name, (data, _, _) in HOSTILE.items():
        (source / name).write_bytes(data)
    good = [*(f"good{number}.jpg" for number in range(40)), "good-named.png"]
    for number, name in enumerate(good):
        (source / name).write_bytes(encoded(scene(300, 200, number), "JPEG"))
    names = [*good[:20], *HOSTILE, *good[20:]]
    uploads, unknown = look_at(config.stores.open_source(), names)
    assert not unknown
    with WorkerPool(config, 2) as pool:
        tasks = [task(number, uploads[name]) for number, name in enumerate(names)]  # type: ignore[arg-type]
        outcomes = {
            done.upload.key: outcome
            for done, outcome in pool.outcomes(tasks, process_photo_task, SECONDS)
        }
    verdicts = {name: outcome.verdict for name, outcome in outcomes.items()}
    assert set(verdicts) == set(names)
    told = {(verdicts[name].state, verdicts[name].reason) for name in good}  # type: ignore[union-attr]
    assert told == {("ready", None)}
    facts = {name: verdicts[name].facts for name in good}  # type: ignore[union-attr]
    assert facts["good1.jpg"].get("suffix_mismatch") is None
    assert facts["good-named.png"]["suffix_mismatch"] == "named .png, but is JPEG"
    for name, (_, code, number) in HOSTILE.items():
        verdict = verdicts[name]
        assert verdict is not None, outcomes[name].trouble
        if code is None:
            assert verdict.state in ("ready", "rejected"), name
            continue
        assert verdict.reason_code in code.split("|"), (name, verdict.reason_code, verdict.reason)
        assert number in str(verdict.reason), name


def test_what_needs_much_memory_is_done_where_a_worker_may_take_it(
    config: WorkerConfig, tmp_path: Path
) -> None:
    (tmp_path / "in/blank.webp").write_bytes(blank("WEBP"))
    uploads, _ = look_at(config.stores.open_source(), ["blank.webp"])
    roomy = replace(config, photo_limits=replace(LIMITS, max_memory=512 * 2**20))
    with WorkerPool(roomy, 1) as pool:
        tasks = [task(1, upload) for upload in uploads.values() if upload]
        [(_, outcome)] = pool.outcomes(tasks, process_photo_task, SECONDS)
    assert outcome.verdict is not None
    assert (outcome.verdict.state, outcome.verdict.reason) == ("ready", None)


SEED = 20_261
FUZZ_SECONDS = 18.0
WIDE = {"PNG": png16, "TIFF": partial(tiff16, deflate=True)}
NOISE = np.random.default_rng(SEED).integers(0, 65_536, (12, 20, 4)).astype(np.uint16)
FUZZED = [name for name in MEDIA_TYPES if name != "MPO"]


def mutation(key: str) -> bytes:
    """Damage to a sample, told by `FORMAT/NUMBER` alone."""
    format_name, number = key.split("/")
    rng = random.Random(f"{SEED} {key}")
    options = rng.choice(({}, {"progressive": True})) if format_name == "JPEG" else {}
    image = scene(60, 44).convert(rng.choice(("RGB", "L")))
    frames = {"save_all": True, "append_images": [image] * 2} if int(number) % 3 == 0 else {}
    if format_name in ("JPEG", "BMP", "JPEG2000"):
        frames = {}
    data = bytearray(encoded(image, format_name, **options, **frames))
    if format_name in WIDE and int(number) % 4 == 1:
        data = bytearray(WIDE[format_name](NOISE[..., : rng.choice((3, 4))]))
    for _ in range(rng.choice((1, 1, 3, 12))):
        at = rng.randrange(min(len(data), rng.choice((32, 128, 512, 10**6))))
        data[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    kind = rng.random()
    if kind < 0.2:
        del data[rng.randrange(1, len(data)) :]
    elif kind < 0.3:
        at = rng.randrange(len(data))
        data[at:at] = data[at : at + rng.randrange(1, 200)]
    return bytes(data)


def fuzz(task: Task) -> Outcome:
    """Process a mutation as a worker does, and tell the process's own size."""

    def work(task: Task) -> Outcome:
        data = mutation(task.upload.key)
        prepare_decoder(data, LIMITS)
        with cpu_limit(SECONDS), memory_limit(256 * 2**20):
            done = process_photo(data, RECIPE, LIMITS, sorted(OUTPUTS))
        return Outcome(ready(task, described(task, "", done.facts), {}))

    outcome = answered(task, work)
    me = psutil.Process()
    size = {"pid": me.pid, "rss": me.memory_info().rss, "fds": me.num_fds()}
    return replace(outcome, milliseconds=size)


@pytest.mark.slow
def test_mutations_of_every_format_are_ready_or_rejected_and_leave_nothing(
    config: WorkerConfig,
) -> None:
    began = time.monotonic()
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def mutations() -> Iterator[Task]:
        number = 0
        while time.monotonic() - began < FUZZ_SECONDS:
            for name in FUZZED:
                yield task(number, SourceObject(f"{name}/{number}", "e", None, 1, moment))
            number += 1

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    found: dict[str, set[str]] = {name: set() for name in FUZZED}
    sizes: dict[int, list[tuple[int, int]]] = {}
    with WorkerPool(config, 2) as pool:
        for done, outcome in pool.outcomes(mutations(), fuzz, SECONDS):
            assert outcome.verdict is not None, (done.upload.key, outcome.trouble)
            verdict = outcome.verdict
            found[done.upload.key.split("/")[0]].add(verdict.reason_code or verdict.state)
            assert verdict.reason_code != "crashed", done.upload.key
            if size := outcome.milliseconds:
                sizes.setdefault(int(size["pid"]), []).append((int(size["rss"]), int(size["fds"])))
    for name, codes in found.items():
        assert "ready" in codes, (name, codes)
        assert codes & {"corrupt", "truncated", "unsupported_format", "not_an_image"}, (name, codes)
    for measured in sizes.values():
        settled = len(measured) // 3
        assert max(fds for _, fds in measured[settled:]) <= measured[settled][1] + 1
        growth = measured[-1][0] - max(rss for rss, _ in measured[: settled + 1])
        assert growth < 32 * 2**20, growth
    servers = {"forkserver", "resource_tracker"}
    left = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.pid not in before and not any(s in " ".join(child.cmdline()) for s in servers)
    ]
    assert left == []
