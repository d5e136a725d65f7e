"""Links to Dagster's UI: where an operator sees the partition of an image and its runs."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.records import Image


@dataclass(frozen=True)
class DagsterUi:
    """Dagster's UI as whoever asks reaches it.

    Attributes:
        url: without a slash at its end.
    """

    url: str

    def partition(self, image: Image, asset: str) -> str:
        """Where an asset of an image is shown, with its events and metadata."""
        key = quote(partition_key(image.key), safe="")
        return f"{self.url}/assets/{image.kind}/{asset}?view=partitions&partition={key}"

    def run(self, run_id: str) -> str:
        """Where a run is shown, with its log."""
        return f"{self.url}/runs/{quote(run_id, safe='')}"
