"""Processing a photograph at once, because somebody waits for it.

It takes the same steps as a run does (`orchestration.batch`): outputs, then the row. The events are
left to the next run: the row is marked as unreported, so that run adds the partition and
says what became of it, as it does for images whose run died. An image that turns out to be none is
left pending, so that a run judges it and turns its partition red.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from imgflow.api.bodies import nameless_file
from imgflow.api.problems import Refused
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.catalog.rows import Image
from imgflow.errors import Trouble
from imgflow.fetch.client import Fetcher, Limits, trusting
from imgflow.fetch.hosts import AllowedHosts
from imgflow.images.outputs import enabled_outputs
from imgflow.lifecycle import remove_outputs
from imgflow.orchestration import batch
from imgflow.orchestration.counting import count_finished
from imgflow.orchestration.image_log import tell_finished
from imgflow.orchestration.pool import WorkerPool
from imgflow.orchestration.tasks import Outcome, Task, WorkerConfig
from imgflow.orchestration.worker import process_photo_task
from imgflow.settings import Settings
from imgflow.store.opening import StoreConfig
from imgflow.store.outputs import OutputStore
from imgflow.store.presigned import endpoint_of, own_key

FOLDER = "fetched/"
"""Where images from elsewhere are put in the source, by their content."""

WAIT_SECONDS = 60.0
LOOK_SECONDS, SELDOM_SECONDS = 0.05, 0.5
WORKERS = 2
POOLS = 2
MOST_REMEMBERED = 4_096

# Parameters that sign a URL: of S3 (two versions), CloudFront, Google and Azure.
SIGNING = ("x-amz-", "x-goog-")
SIGNING_NAMES = frozenset(
    {
        *("awsaccesskeyid", "expires", "signature", "policy", "key-pair-id"),
        *("googleaccessid", "sig", "se", "st", "sp", "sv", "sr", "spr", "skoid", "sktid", "skt"),
        *("ske", "sks", "skv"),
    }
)


class Remembered(NamedTuple):
    """What was found under an address: the server's tag of it, and what it is."""

    etag: str
    sha256: str


class Processor:
    """Photographs by URL."""

    def __init__(self, settings: Settings, stores: StoreConfig, database_url: str) -> None:
        """Take what it works with; worker processes start with the first image."""
        self._source = stores.open_source()
        self._outputs: OutputStore = stores.open_outputs()
        self._fetcher = Fetcher(
            AllowedHosts(settings.fetch_hosts, endpoint=endpoint_of(self._source)),
            Limits(bytes=settings.max_bytes, seconds=settings.fetch_seconds),
            # As boto3 does for the endpoint.
            tls=trusting(os.environ.get("AWS_CA_BUNDLE")),
        )
        recipe = settings.photo_recipe
        enabled = {name: recipe.fingerprint(name) for name in enabled_outputs(recipe)}
        self._family = batch.Family(enabled, frozenset(enabled))
        self._config = WorkerConfig(
            stores,
            database_url,
            self._source.location.url,
            recipe,
            settings.photo_limits,
            settings.depth_recipe,
            settings.decode_seconds,
            settings.depth_seconds,
        )
        self._workers = min(WORKERS, settings.worker_count)
        self._pool: WorkerPool | None = None
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, Remembered] = OrderedDict()

    def close(self) -> None:
        """End the worker processes."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()

    def process(self, catalog: PostgresCatalog, url: str) -> Image:
        """Find, or make, the row and the outputs of the photograph that a URL leads to.

        Raises:
            Refused: it is no photograph, or is not done in time.
            NotAllowed, FetchRefused, FetchFailed, TooManyBytes: it could not be had.
            Trouble: a store or the database does not answer.
        """
        key = own_key(self._source, url)
        if key is None:
            return self._ready(catalog, self._stored(catalog, url))
        self._fetcher.check(url)  # the caller may read it, since its signature holds
        return self._ready(catalog, self._announced(catalog, key))

    def _announced(self, catalog: PostgresCatalog, key: str) -> Image:
        """The row of an object of the source, as it is now."""
        upload = self._source.stat(key)
        if upload is None:
            raise Refused("original_deleted", f"{key!r} is not in the source any more.")
        catalog.announce([upload])
        return catalog.by_keys([key])[key]

    def _stored(self, catalog: PostgresCatalog, url: str) -> Image:
        """The row of what lies elsewhere; the same bytes have one row, whatever URLs they have."""
        address = _address(url)
        known = self._remembered.get(address)
        image = catalog.by_content("photo", known.sha256) if known else None
        fetched = self._fetcher.fetch(url, etag=known.etag if known and image else None)
        if fetched.body is None and image is not None:
            return image
        body = fetched.body or b""
        sha256 = hashlib.sha256(body).hexdigest()
        if fetched.etag is not None:
            self._remember(address, Remembered(fetched.etag, sha256))
        image = catalog.by_content("photo", sha256)
        return image or self._put(catalog, sha256, body)

    def _put(self, catalog: PostgresCatalog, sha256: str, body: bytes) -> Image:
        """Put bytes into the source, unless they lie there and are judged, or soon will be."""
        key = f"{FOLDER}{sha256}"
        image = catalog.by_keys([key]).get(key)
        if image is not None and image.state != "deleted":
            there = self._source.stat(key)
            if there is not None and there.identity == image.announced:
                return image
        with nameless_file() as (opened, file):
            opened.write(body)
            opened.flush()
            self._source.upload(key, file)
        return self._announced(catalog, key)

    def _remember(self, address: str, found: Remembered) -> None:
        with self._lock:
            self._remembered[address] = found
            self._remembered.move_to_end(address)
            if len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)

    def _ready(self, catalog: PostgresCatalog, image: Image) -> Image:
        """Wait until an image is ready, doing the work unless someone else does it already."""
        if image.kind != "photo":
            raise Refused("not_a_photo", f"{image.key!r} is a {image.kind}.")
        give_up = time.monotonic() + WAIT_SECONDS
        pause = LOOK_SECONDS
        while True:
            if image.state == "deleted":
                raise Refused("image_deleted", f"The image {image.id} was deleted.")
            if image.processed == image.announced:
                if image.state == "ready" and "grayscale" in image.outputs:
                    return image
                if image.state == "rejected":
                    raise _unprocessable(image.reason, image.reason_code)
                if image.state == "ready":
                    raise Refused("output_not_made", f"Materialise {image.key!r}.")
            name = uuid.uuid4().hex
            is_taken = image.batch is not None and catalog.holds.is_held(image.batch)
            if not is_taken and catalog.assign([image.id], name):
                with catalog.holds.holding(name):
                    self._work(catalog, image)
            elif time.monotonic() > give_up:
                raise Refused(
                    "still_processing", "Ask again in a few seconds.", headers={"Retry-After": "5"}
                )
            else:
                time.sleep(pause)
                pause = min(2 * pause, SELDOM_SECONDS)
            (image,) = catalog.by_ids([image.id]) or [image]

    def _work(self, catalog: PostgresCatalog, image: Image) -> None:
        """Process an image that is this caller's, and write what became of it."""
        plan = batch.plan([image], self._family, "")
        for task in batch.with_twins(plan.tasks, catalog, "photo"):
            outcome = self._outcome(task)
            verdict = outcome.verdict
            tell_finished([batch.Finished(image, outcome)], {image.id})
            if outcome.is_outdated:
                self._announced(catalog, image.key)
            elif verdict is None:
                catalog.note_trouble({image.id: outcome.trouble or ""}, code=outcome.trouble_code)
                raise Trouble(outcome.trouble or "")
            elif verdict.state == "rejected":
                catalog.reopen([image.id])
                raise _unprocessable(verdict.reason, verdict.reason_code)
            elif catalog.record([verdict]):
                catalog.unreport([image.id])
                count_finished(catalog, [batch.Finished(image, outcome)])
            else:
                remove_outputs(catalog, self._outputs, {image.id: verdict.outputs})

    def _outcome(self, task: Task) -> Outcome:
        for _ in range(POOLS):
            pool = self._current_pool()
            try:
                seconds = self._config.decode_seconds
                ((_, outcome),) = pool.outcomes([task], process_photo_task, seconds)
            except (BrokenProcessPool, RuntimeError):
                # All its workers were killed at once, after which a pool takes no more.
                self._replace(pool)
            else:
                return outcome
        raise Trouble("The worker processes end again and again.")

    def _current_pool(self) -> WorkerPool:
        with self._lock:
            if self._pool is None:
                self._pool = WorkerPool(self._config, self._workers)
            return self._pool

    def _replace(self, broken: WorkerPool) -> None:
        with self._lock:
            if self._pool is not broken:
                return  # somebody else was first
            self._pool = None
        broken.stop()


def _unprocessable(reason: str | None, code: str | None) -> Refused:
    return Refused("image_unprocessable", reason or "No reason is known.", reason_code=code)


def _address(url: str) -> str:
    """What a URL leads to, whoever signed it and when; a digest, so that it holds no secret."""
    parts = urlsplit(url)
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() not in SIGNING_NAMES and not name.lower().startswith(SIGNING)
    ]
    text = repr((parts.scheme.lower(), parts.netloc.lower(), parts.path, sorted(query)))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
