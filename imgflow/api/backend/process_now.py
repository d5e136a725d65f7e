"""Processes a photograph immediately, because a caller waits for it, and remembers fetched URLs.

It takes the same steps as a run (`imgflow.work.batch`): outputs, then the row. Events are left to
the next run: the row is marked as unreported, so that run adds the partition and reports the
outcome, as for images whose run died. An object that turns out not to be a photograph is left
pending, so that a run rejects it and its partition turns red. Fetching is in `imgflow.fetch`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from imgflow.api.http.bodies import nameless_file
from imgflow.api.http.problems import Refused
from imgflow.catalog.lifecycle import delete_images, remove_outputs
from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow.errors import Rejected, Trouble
from imgflow.fetch.client import Fetcher, FetchRefused, Limits, trusting
from imgflow.fetch.hosts import AllowedHosts
from imgflow.images.formats.decoding import check_kind
from imgflow.images.outputs import enabled_outputs
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig
from imgflow.store.naming import FETCHED_FOLDER
from imgflow.store.objects import SourceObject
from imgflow.store.output_store import OutputStore
from imgflow.store.s3.presigned import endpoint_of, own_key
from imgflow.work import batch
from imgflow.work.counting import count_finished, tell_finished
from imgflow.work.photographs import process_photo_task
from imgflow.work.pool import WorkerPool
from imgflow.work.tasks import Finished, Outcome, Task, WorkerConfig

# Fetched URLs, remembered by each process so that the same URL is not downloaded again.
#
# Nothing depends on it: a process that remembers nothing downloads, with the same result.


logger = logging.getLogger(__name__)

Found = TypeVar("Found")

MOST_REMEMBERED = 4_096

# Query parameters that sign a URL, for S3 (two versions), CloudFront, Google and Azure.
SIGNING = ("x-amz-", "x-goog-")
SIGNING_NAMES = frozenset(
    {
        *("awsaccesskeyid", "expires", "signature", "policy", "key-pair-id"),
        *("googleaccessid", "sig", "se", "st", "sp", "sv", "sr", "spr", "skoid", "sktid", "skt"),
        *("ske", "sks", "skv"),
    }
)


class Body(NamedTuple):
    """What a URL led to: the server's ETag, and the hash of the bytes."""

    etag: str
    sha256: str


class Rejection(NamedTuple):
    """Why some bytes are not a photograph."""

    reason: str | None
    code: str | None


class Recent(Generic[Found]):
    """The `MOST_REMEMBERED` most recent findings, by digest; safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[str, Found] = OrderedDict()

    def get(self, digest: str) -> Found | None:
        """Return what was found, if it is still remembered."""
        return self._found.get(digest)

    def put(self, digest: str, found: Found) -> None:
        """Remember a finding; if there are too many, forget the oldest."""
        with self._lock:
            self._found[digest] = found
            self._found.move_to_end(digest)
            if len(self._found) > MOST_REMEMBERED:
                self._found.popitem(last=False)

    def __repr__(self) -> str:
        return f"Recent({dict(self._found)!r})"


def digest_of(url: str) -> str:
    """Return a digest of a URL without its signature: the same whoever signs it, and no secret."""
    try:
        parts = urlsplit(url)
    except ValueError:  # fetching it reports what is wrong with it
        return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name.lower() not in SIGNING_NAMES and not name.lower().startswith(SIGNING)
    ]
    text = repr((parts.scheme.lower(), parts.netloc.lower(), parts.path, sorted(query)))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


WAIT_SECONDS = 60.0
LOOK_SECONDS, SELDOM_SECONDS = 0.05, 0.5
WORKERS = 2
POOLS = 2
# An object may be overwritten between two requests about it, but hardly this often in a row.
TIMES_OVERWRITTEN = 3


class Processor:
    """Processes photographs by URL."""

    def __init__(self, settings: Settings, stores: StoreConfig, database_url: str) -> None:
        """Open the stores; worker processes start with the first image."""
        self._source = stores.open_source()
        self._outputs: OutputStore = stores.open_outputs()
        self._fetcher = Fetcher(
            AllowedHosts(settings.fetch_hosts, endpoint=endpoint_of(self._source)),
            Limits(bytes=settings.max_bytes, seconds=settings.fetch_seconds),
            # boto3 reads the same variable for the endpoint.
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
        self._bodies = Recent[Body]()  # by URL
        self._rejections = Recent[Rejection]()  # by SHA-256

    def close(self) -> None:
        """End the worker processes."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()

    def process(self, catalog: PostgresCatalog, url: str) -> Image:
        """Find or make the row and outputs of the photograph that a URL leads to.

        Raises:
            Refused: It is not a photograph, or it is not done in time.
            NotAllowed, FetchRefused, FetchFailed, TooManyBytes: It could not be fetched.
            NotOurs: The output location belongs to another catalogue.
            Trouble: A store or the database does not answer.
        """
        claim(catalog, self._outputs)
        key = own_key(self._source, url)
        if key is None:
            return self._from_elsewhere(catalog, url)
        return self._ready(catalog, self._announced(catalog, self._permitted(url, key)))

    def _permitted(self, url: str, key: str) -> SourceObject:
        """Return an object of the source, once the server has answered this URL with a first byte.

        The name in the URL proves nothing, since names can be read in two ways. So the object that
        the server shows must match the one in the source by ETag, size and time.
        """
        for _ in range(TIMES_OVERWRITTEN):
            shown = self._fetcher.check(url, may_lead=lambda to: own_key(self._source, to) == key)
            upload = self._stat(key)
            if (upload.etag, upload.size, upload.last_modified) == (
                shown.etag,
                shown.size,
                shown.last_modified,
            ):
                return upload
        raise FetchRefused("The server gives another object than the one that the URL names.")

    def _announced(self, catalog: PostgresCatalog, upload: SourceObject) -> Image:
        """Announce an object of the source as it is now, and return its row."""
        catalog.announce([upload])
        return catalog.by_keys([upload.key])[upload.key]

    def _stat(self, key: str) -> SourceObject:
        upload = self._source.stat(key)
        if upload is None:
            raise Refused("original_deleted", f"{key!r} is not in the source any more.")
        return upload

    def _from_elsewhere(self, catalog: PostgresCatalog, url: str) -> Image:
        """Process a photograph from outside the source; equal bytes from any URL share one row."""
        address = digest_of(url)
        known = self._bodies.get(address)
        image, rejection = self._known(catalog, known.sha256) if known else (None, None)
        etag = known.etag if known and (image or rejection) else None
        fetched = self._fetcher.fetch(url, etag=etag)
        if fetched.body is not None:
            sha256 = hashlib.sha256(fetched.body).hexdigest()
            if fetched.etag is not None:
                self._bodies.put(address, Body(fetched.etag, sha256))
            image, rejection = self._known(catalog, sha256)
        if image is not None:
            return self._ready(catalog, image)
        if rejection is not None:
            raise Unprocessable(rejection)
        return self._kept(catalog, sha256, fetched.body or b"")

    def _known(
        self, catalog: PostgresCatalog, sha256: str
    ) -> tuple[Image | None, Rejection | None]:
        """Return the row that these bytes already have, or why they were rejected."""
        return catalog.by_content("photo", sha256), self._rejections.get(sha256)

    def _kept(self, catalog: PostgresCatalog, sha256: str, body: bytes) -> Image:
        """Put bytes into the source and process them; remove them if they are not a photograph."""
        try:
            check_kind(body, self._config.photo_limits)
        except Rejected as rejected:
            raise Unprocessable(Rejection(rejected.reason, rejected.code)) from None
        key = f"{FETCHED_FOLDER}{sha256}"
        image, upload = self._put(catalog, key, body)
        try:
            return self._ready(catalog, image)
        except Unprocessable as refusal:
            self._rejections.put(sha256, refusal.rejection)
            if upload is not None:
                self._remove(catalog, image, upload)
            raise
        except Refused as refusal:
            rejection = self._rejections.get(sha256)
            # Another request put it there and removed it while this one waited.
            if rejection and refusal.code in ("image_deleted", "original_deleted"):
                raise Unprocessable(rejection) from refusal
            raise

    def _put(
        self, catalog: PostgresCatalog, key: str, body: bytes
    ) -> tuple[Image, SourceObject | None]:
        """Upload the body unless it is there already.

        Returns:
            Its row, and the upload; None for the upload if the object was already in the source
            and is known.
        """
        image = catalog.by_keys([key]).get(key)
        if image is not None and image.state != "deleted":
            there = self._source.stat(key)
            if there is not None and there.identity == image.announced:
                return image, None
        with nameless_file() as (opened, file):
            opened.write(body)
            opened.flush()
            self._source.upload(key, file)
        upload = self._stat(key)
        return self._announced(catalog, upload), upload

    def _remove(self, catalog: PostgresCatalog, image: Image, upload: SourceObject) -> None:
        """Delete the uploaded object, unless it was overwritten since."""
        try:
            there = self._source.stat(upload.key)
            if there is None or there.identity == upload.identity:
                delete_images(catalog, self._outputs, [image], source=self._source)
        except Trouble as trouble:  # such as a missing permission: it stays, and a run rejects it
            logger.warning("%s stays in the source: %s", upload.key, trouble)

    def _ready(self, catalog: PostgresCatalog, image: Image) -> Image:
        """Wait until an image is ready, processing it here unless somebody else already does."""
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
                    raise Unprocessable(Rejection(image.reason, image.reason_code))
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
        """Process an image whose run lock this caller has, and record the outcome."""
        plan = batch.plan([image], self._family, "")
        for task in batch.with_twins(plan.tasks, catalog, "photo"):
            outcome = self._outcome(task)
            verdict = outcome.verdict
            tell_finished([Finished(image, outcome)], {image.id})
            if outcome.is_outdated:
                self._announced(catalog, self._stat(image.key))
            elif verdict is None:
                catalog.note_trouble({image.id: outcome.trouble or ""}, code=outcome.trouble_code)
                raise Trouble(outcome.trouble or "")
            elif verdict.state == "rejected":
                catalog.reopen([image.id])  # so that a run rejects it and Dagster shows it
                raise Unprocessable(Rejection(verdict.reason, verdict.reason_code))
            elif catalog.record([verdict]):
                catalog.unreport([image.id])
                count_finished(catalog, [Finished(image, outcome)])
            else:
                remove_outputs(catalog, self._outputs, {image.id: verdict.outputs})

    def _outcome(self, task: Task) -> Outcome:
        for _ in range(POOLS):
            pool = self._current_pool()
            try:
                seconds = self._config.decode_seconds
                ((_, outcome),) = pool.outcomes([task], process_photo_task, seconds)
            except (BrokenProcessPool, RuntimeError):
                # All its workers were killed at once; such a pool accepts no more work.
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
                return  # another thread replaced it first
            self._pool = None
        broken.stop()


class Unprocessable(Refused):
    """Bytes that cannot become an image."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(
            "image_unprocessable",
            rejection.reason or "No reason is known.",
            reason_code=rejection.code,
        )
        self.rejection = rejection
