"""Keys as people really have them: processed, shown and served under their own name."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgflow.catalog.partition_keys import object_key, partition_key
from imgflow.settings.variables import Settings
from imgflow_tests.orchestration.project import Project
from imgflow_tests.orchestration.test_way import put
from imgflow_tests.pictures import depth_csv, jpeg

ODD_KEYS = [
    "with space.jpg",
    "a+b.jpg",
    "100%.jpg",
    "already%20encoded.jpg",
    "hash#tag.jpg",
    "question?.jpg",
    "grüße/日本語.jpg",
    "comma,comma.jpg",
    "quote'\"quote.jpg",
    "[1...5].jpg",
    "dots...jpg",
    "long/" + "/".join(["x" * 196] * 5) + ".jpg",
]

# What only a bucket can hold: a local folder has no such names.
BUCKET_KEYS = [
    "a//b.jpg",
    "x/../y.jpg",
    "dot/./z.jpg",
    "a.jpg",
    "/a.jpg",
    "//a.jpg",
    "a.jpg/",
    "a.jpg//",
    "a.jpg/.",
    "./a.jpg",
    "../a.jpg",
    "a.jpg/..",
    ".",
    "..",
    "/",
    "del\x7f.jpg",
    "bell\x07.jpg",
    "tab\there.jpg",
    "new\nline.jpg",
    "y" * 1_000 + ".jpg",
]


def check(project: Project, keys: list[str]) -> None:
    """Everything has its own green partition, row and outputs."""
    images = project.catalog.by_keys(keys)
    assert {key: image.state for key, image in images.items()} == dict.fromkeys(keys, "ready")
    assert [object_key(p) for p in project.instance.get_dynamic_partitions("photos")] == sorted(
        keys, key=partition_key
    )
    assert set(project.statuses("photo/thumbnail").values()) == {"green"}
    names = [record["name"] for image in images.values() for record in image.outputs.values()]
    assert len(set(names)) == 2 * len(keys)
    assert all(project.outputs.get(name) for name in names)
    for key in keys:
        assert (
            project.newest("photo/thumbnail", partition_key(key)).metadata["object"].value in names
        )


def test_odd_keys_in_a_folder_are_processed_under_their_own_name(project: Project) -> None:
    for number, key in enumerate(ODD_KEYS):
        put(project, key, jpeg(seed=number))
    assert project.ingest().processed == len(ODD_KEYS)
    check(project, ODD_KEYS)
    assert all(project.materialize([partition_key(key)]).success for key in ODD_KEYS[:3])


def test_odd_keys_in_a_bucket_are_processed_and_keep_no_other_from_it(
    bucket: str, s3: Any, make_settings: Callable[..., Settings], instance: dg.DagsterInstance
) -> None:
    keys = [*ODD_KEYS, *BUCKET_KEYS]
    bodies = {key: jpeg(seed=number) for number, key in enumerate(keys)}
    for key, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=f"in/{key}", Body=body)
    s3.put_object(Bucket=bucket, Key="in/hole.csv", Body=depth_csv())
    for marker in ("in/folder/", "in/a.jpg/marker/", "in//marker/", "in/"):
        s3.put_object(Bucket=bucket, Key=marker, Body=b"")
    s3.put_object(Bucket=bucket, Key="inside.jpg", Body=b"not below the prefix")
    project = Project(
        make_settings(source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/in/out"), instance
    )

    project.run_requests(project.tick())

    check(project, keys)
    assert {key: image.sha256 for key, image in project.catalog.by_keys(keys).items()} == {
        key: sha256(body).hexdigest() for key, body in bodies.items()
    }
    assert project.catalog.by_keys(["hole.csv"])["hole.csv"].state == "ready"
    quiet = project.tick()
    assert quiet.run_requests == []
    assert "that are no images (folder markers, outputs) ignored" in str(quiet.skip_reason)
    assert project.ingest().listed == len(keys) + 1


@given(
    st.text(
        alphabet=st.one_of(
            st.sampled_from(list(".%2eE/ \t\n[],")), st.characters(exclude_categories=["Cs"])
        ),
        min_size=1,
    )
)
def test_a_partition_key_can_be_turned_back_and_never_misreads(key: str) -> None:
    partition = partition_key(key)
    assert object_key(partition) == key
    assert "..." not in partition
    assert partition.isprintable() or not key.isprintable()
    assert not set(partition) & set(map(chr, [*range(32), 127]))


@pytest.mark.parametrize("key", ["IMG_1.JPG", "a b/c+d (1).jpg", "ü,[x]'.png", "50%.jpg"])
def test_ordinary_keys_are_not_changed(key: str) -> None:
    assert partition_key(key) == key
