"""Reading ahead and writing behind: a worker computes while bytes travel over the network.

The stores themselves are in `imgflow.store`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from imgflow.store.objects import Source, SourceObject
from imgflow.store.output_store import OutputStore

# Concurrent requests of one worker: at 30 ms each, enough to keep a core busy.
THREADS = 8

# Maximum bytes in memory besides the current image, each way. A single larger upload is read alone.
MOST_BYTES = 32 * 2**20

# Memory for all of this: bytes both ways, and the stacks of the threads.
BESIDE_BYTES = 2 * MOST_BYTES + THREADS * 8 * 2**20


class Transfers:
    """The bytes that travel between a worker and its stores."""

    def __init__(self, source: Source, outputs: OutputStore) -> None:
        """Create the thread pool; nothing is read or written yet."""
        self._source = source
        self._outputs = outputs
        self._threads = ThreadPoolExecutor(THREADS, "transfers")
        self._coming: deque[SourceObject] = deque()
        self._reads: dict[SourceObject, Future[bytes]] = {}
        self._writes: deque[tuple[int, Future[None]]] = deque()

    def expect(self, uploads: Iterable[SourceObject]) -> None:
        """Read these uploads ahead; `read` must be called for them in this order."""
        self._coming.extend(uploads)
        self._read_ahead()

    def read(self, upload: SourceObject) -> bytes:
        """The body of an upload; raises what `Source.read` does."""
        future = self._reads.get(upload)
        if future is None:
            return self._source.read(upload)
        try:
            return future.result()
        except MemoryError:  # caused by the limit of the image being processed meanwhile
            return self._source.read(upload)
        finally:
            del self._reads[upload]
            self._read_ahead()

    def put(self, name: str, body: bytes, media_type: str) -> Future[None]:
        """Start writing an output; the future raises what `OutputStore.put` does."""
        while self._writes and sum(size for size, _ in self._writes) + len(body) > MOST_BYTES:
            _, oldest = self._writes.popleft()
            oldest.exception()  # only waits; the task that wrote it checks for the error
        future = self._threads.submit(self._outputs.put, name, body, media_type)
        self._writes.append((len(body), future))
        return future

    def end(self) -> None:
        """Drop what was read ahead and not used."""
        self._coming.clear()
        for future in self._reads.values():
            future.cancel()
        self._reads.clear()
        self._writes.clear()

    def _read_ahead(self) -> None:
        held = sum(upload.size for upload in self._reads)
        while self._coming and (not self._reads or held + self._coming[0].size <= MOST_BYTES):
            upload = self._coming.popleft()
            held += upload.size
            self._reads[upload] = self._threads.submit(self._source.read, upload)
