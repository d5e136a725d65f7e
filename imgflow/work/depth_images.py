"""What a pool process does with one depth image: stream, resize, store, preview.

Separate from `photographs`, because its workers need nothing that is imported here. Reading and
resizing are in `imgflow.depth`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import PurePosixPath

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.catalog.records import Content
from imgflow.depth.frames import EncodedFrame
from imgflow.depth.ordering import OutOfOrder, ResizedChunk, ResizedDepth
from imgflow.depth.preview import PreviewBuilder, as_icon
from imgflow.depth.readers.registry import reader_of
from imgflow.errors import Trouble
from imgflow.images.encoding import Encoded
from imgflow.work.photographs import Stopwatch, Worker
from imgflow.work.task_failures import outside
from imgflow.work.tasks import Outcome, OutputRecord, Task, known_content, ready, what_to_make
from imgflow.work.worker_limits import cpu_limit, memory_limit


def process_depth(worker: Worker, task: Task) -> Outcome:
    """Process one depth image, making both outputs from a single read."""
    watch = Stopwatch()
    image = DepthImage(worker, task)
    if task.own is not None or task.twins:
        # The hash alone tells whether the bytes are known already.
        with watch.step("read"):
            sha256 = image.hash()
        wanted, made = what_to_make(task, sha256)
        content = known_content(task, sha256)
        if content is not None and content is not task.own:
            with watch.step("copy"):
                made = image.copies(content)
            wanted -= made.keys()
        if content is not None and not wanted:
            return Outcome(
                ready(task, content, made),
                made=() if content is task.own else tuple(made),
                bytes_read=task.upload.size,
                milliseconds=watch.milliseconds,
            )
    import imgflow.work.depth_libraries  # noqa: F401 - loaded before memory is limited

    with (
        watch.step("process"),
        cpu_limit(worker.config.seconds_of(task)),
        memory_limit(worker.config.photo_limits.max_memory),
    ):
        resized, preview, sha256 = image.process()
    with watch.step("write"):
        # The row keeps the picture too, so that events of a no-op show it without reading anything.
        shown = {**worker.write(task, "preview", sha256, preview), "picture": preview.picture}
        outputs = {"resized": resized, "preview": shown}
    facts = resized["facts"]
    content = Content(
        image_id=task.image_id,
        key=task.upload.key,
        sha256=sha256,
        media_type=reader_of(task.upload.key).media_type,
        width=facts["columns"],
        height=facts["rows"],
        mode="F",
        outputs={},
        facts=facts,
    )
    return Outcome(
        ready(task, content, outputs),
        made=("resized", "preview"),
        bytes_read=task.upload.size,
        milliseconds=watch.milliseconds,
        pictures={"resized": preview.picture, "metadata": preview.picture},
    )


class DepthImage:
    """One depth image on its way from the source into the database."""

    def __init__(self, worker: Worker, task: Task) -> None:
        self._worker = worker
        self._task = task
        self._hash = hashlib.sha256()
        self._preview = PreviewBuilder(worker.config.depth_recipe.preview_size)

    def hash(self) -> str:
        """Read the upload to its end just to compute its SHA-256."""
        for _ in self._stream():
            pass
        return self._hash.hexdigest()

    def copies(self, twin: Content) -> dict[str, OutputRecord]:
        """Copy array and preview from an image with the same bytes; nothing unless both match."""
        task, outputs = self._task, twin.outputs
        if {name: record["fingerprint"] for name, record in outputs.items()} != dict(task.enabled):
            return {}
        resized, preview = outputs["resized"], outputs["preview"]
        array = self._array()
        with self._arrays() as arrays:
            if not arrays.copy(
                twin.image_id, resized["name"], to_image=task.image_id, to_array=array
            ):
                return {}
        path = self._worker.name(
            task, "preview", twin.sha256, PurePosixPath(preview["name"]).suffix
        )
        with outside("an output could not be copied"):
            is_copied = self._worker.outputs.copy(preview["name"], path)
        if not is_copied:
            return {}
        return {"resized": {**resized, "name": array}, "preview": {**preview, "name": path}}

    def process(self) -> tuple[OutputRecord, Encoded, str]:
        """Write the array and draw the preview.

        Returns:
            The array's record, the preview, and the SHA-256 of the bytes that were read.
        """
        recipe = self._worker.config.depth_recipe
        limits = self._worker.config.depth_limits.for_upload(self._task.upload.size)
        resized = ResizedDepth(self._stream, self._task.upload.key, recipe, limits)
        fingerprint = self._task.enabled["resized"]
        array = self._array()
        with self._arrays() as arrays:
            try:
                size = arrays.store(self._task.image_id, array, self._previewed(resized))
            except OutOfOrder:
                size = arrays.store(self._task.image_id, array, self._previewed(resized))
        facts = {**asdict(resized.facts), "value_range": resized.facts.value_range}
        preview: EncodedFrame = self._preview.render(recipe.colormap, resized.facts.value_range)
        sha256 = self._hash.hexdigest()
        record = {
            "name": array,
            "fingerprint": fingerprint,
            "media_type": "application/x-npy",
            "size": size,
            "width": recipe.width,
            "height": resized.facts.rows,
            "sha256": hashlib.sha256(f"{sha256}/{fingerprint}".encode()).hexdigest(),
            "facts": facts,
        }
        encoded = Encoded(
            preview.data,
            preview.media_type,
            ".jpg",
            preview.width,
            preview.height,
            "RGB",
            picture=as_icon(preview),
        )
        return record, encoded, sha256

    def _array(self) -> str:
        """The name of the array.

        It is needed before the last byte, when the content's hash is known, so it is made from the
        upload's identity.
        """
        identity = f"{self._task.upload.identity}/{self._task.enabled['resized']}"
        return hashlib.sha256(identity.encode()).hexdigest()[:32]

    @contextmanager
    def _arrays(self) -> Iterator[DepthArrays]:
        engine = make_engine(self._worker.config.database_url, pool_size=1, max_overflow=0)
        try:
            yield DepthArrays(engine)
        # A refusal by the database says nothing about the image either.
        except (SQLAlchemyError, psycopg2.Error) as error:
            raise Trouble(
                f"the database does not take the array: {type(error).__name__}"
            ) from error
        finally:
            engine.dispose()

    def _stream(self) -> Iterator[bytes]:
        self._hash = hashlib.sha256()
        with outside("the source could not be read"):
            for piece in self._worker.source.stream(self._task.upload):
                self._hash.update(piece)
                yield piece

    def _previewed(self, resized: ResizedDepth) -> Iterator[ResizedChunk]:
        self._preview = PreviewBuilder(self._worker.config.depth_recipe.preview_size)
        for chunk in resized:
            self._preview.add(chunk.pixels)
            yield chunk
