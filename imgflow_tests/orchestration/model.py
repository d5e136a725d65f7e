"""What everything must follow from in the end, whatever happened before.

That is what lies in the bucket, and what was deleted by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from imgflow.catalog.partition_keys import partition_key
from imgflow.catalog.postgres.depth_arrays import DepthArrays
from imgflow.catalog.records import Image
from imgflow.settings.variables import OnDelete
from imgflow_tests.orchestration.crash_points import half_visible
from imgflow_tests.orchestration.project import PHOTO_ASSETS, SETS, Project
from imgflow_tests.pictures import depth_csv, jpeg, png

PHOTO_KEYS = ("a.jpg", "b/c.png", "d.jpg", "e %41.jpg")
DEPTH_KEYS = ("h.csv", "z/h.CSV")
# The first two have the same size: decoders ignore what follows the end of a JPEG.
LONGEST = max(len(jpeg(8, 6)), len(jpeg(8, 6, seed=1)))
PHOTOS = (
    jpeg(8, 6).ljust(LONGEST, b"\0"),
    jpeg(8, 6, seed=1).ljust(LONGEST, b"\0"),
    png(6, 8, seed=2),
    b"no picture",
)
DEPTHS = (
    b"depth,a,b\n1,10,20\n2,30,40\n",
    b"depth,a,b\n1,50,60\n2,70,80\n",
    depth_csv(5, 8, seed=1),
    b"no,table\nat,all\n",
)
BROKEN = {PHOTOS[-1], DEPTHS[-1]}
ASSETS = {"photo": PHOTO_ASSETS, "depth": ("resized", "preview", "metadata")}


@dataclass
class Model:
    """One bucket and its history.

    Attributes:
        policy: on images whose object is gone.
        has_all_partitions: whether there are too few images for one to be sealed.
        known_outputs: SHA-256 of each output by content, name and recipe; the same in all stories.
        bucket: what lies in it, by key.
        history: all that ever lay under a key.
        withdrawn: keys whose present upload was deleted by hand as an image.
    """

    policy: OnDelete
    has_all_partitions: bool
    known_outputs: dict[tuple[str, str, str], str]
    bucket: dict[str, bytes] = field(default_factory=dict)
    history: dict[str, set[bytes]] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    def put(self, key: str, body: bytes) -> None:
        """Somebody uploads."""
        self.bucket[key] = body
        self.withdrawn.discard(key)
        self.history.setdefault(key, set()).add(body)

    def delete(self, key: str) -> None:
        """Somebody deletes an object."""
        del self.bucket[key]
        self.withdrawn.discard(key)

    def check(self, project: Project) -> None:
        """Everything agrees; nothing is left to do."""
        catalog = project.catalog
        rows = [*catalog.page(limit=100), *catalog.page(limit=100, state="deleted")]
        images = {image.key: image for image in rows}
        assert half_visible(project) == []
        assert self.bucket.keys() <= images.keys() <= self.history.keys()
        assert {key: images[key].state for key in self.bucket} == {
            key: "deleted" if key in self.withdrawn else "rejected" if body in BROKEN else "ready"
            for key, body in self.bucket.items()
        }
        for key, body in self.bucket.items():
            if key not in self.withdrawn:
                self._check_image(project, images[key], body)
        for key in images.keys() - self.bucket.keys():
            self._check_gone(images[key])
        for image in rows:
            assert (image.batch, image.unreported) == (None, False) or image.state == "deleted"
            assert image.state != "deleted" or (image.outputs, image.in_partitions) == ({}, False)
        for kind in SETS:
            self._check_partitions(project, kind, [image for image in rows if image.kind == kind])

    def _check_image(self, project: Project, image: Image, body: bytes) -> None:
        upload = project.source.stat(image.key)
        assert upload is not None
        assert image.gone_at is None
        assert image.announced == image.processed == upload.identity
        if body in BROKEN:
            assert (image.outputs, bool(image.reason)) == ({}, True)
            return
        assert image.sha256 == hashlib.sha256(body).hexdigest()
        (family,) = (family for family in project.families if family.kind == image.kind)
        assert {name: output["fingerprint"] for name, output in image.outputs.items()} == dict(
            family.outputs
        )
        versions = {name: output["sha256"][:32] for name, output in image.outputs.items()}
        for name, output in image.outputs.items():
            recipe = (image.sha256, name, output["fingerprint"])
            assert self.known_outputs.setdefault(recipe, output["sha256"]) == output["sha256"]
        versions["source"] = image.announced
        for name, version in versions.items():
            newest = project.newest(f"{image.kind}/{name}", partition_key(image.key))
            assert newest.tags["dagster/data_version"] == version, f"{name} of {image.key}"
        if image.kind == "depth":
            rows = DepthArrays(project.catalog.engine).read(image.id)
            assert len(rows.depths) == body.count(b"\n") - 1

    def _check_gone(self, image: Image) -> None:
        """An image whose object is gone follows the policy; kept, it is as it was processed."""
        assert self.policy != "delete", f"the row of {image.key} stays for ever"
        assert image.gone_at is not None
        if self.policy == "tombstone":
            assert image.state == "deleted"
        assert image.state in ("ready", "rejected", "deleted")
        if image.state == "ready":
            contents = {hashlib.sha256(body).hexdigest() for body in self.history[image.key]}
            assert image.sha256 in contents

    def _check_partitions(self, project: Project, kind: str, images: Sequence[Image]) -> None:
        """All that are neither deleted nor sealed have one; it is red or green as its row says."""
        partitions = project.instance.get_dynamic_partitions(SETS[kind])
        shown = {partition_key(image.key): image for image in images if image.in_partitions}
        assert sorted(partitions) == sorted(shown)
        if self.has_all_partitions:
            assert all(image.in_partitions == (image.state != "deleted") for image in images)
        for asset in ASSETS[kind]:
            colours = project.statuses(f"{kind}/{asset}")
            expected = {"ready": "green", "rejected": "red"}
            assert {key: colours.get(key) for key in shown} == {
                key: expected[image.state] for key, image in shown.items()
            }, asset
