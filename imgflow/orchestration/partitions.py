"""The two dynamic partition sets; `imgflow.catalog.partition_keys` says what their keys are."""

from __future__ import annotations

import dagster as dg

from imgflow.catalog.records import Kind, kind_of

photos = dg.DynamicPartitionsDefinition(name="photos")
depth_images = dg.DynamicPartitionsDefinition(name="depth_images")

PARTITIONS: dict[Kind, dg.DynamicPartitionsDefinition] = {"photo": photos, "depth": depth_images}


def partitions_of(key: str) -> dg.DynamicPartitionsDefinition:
    """The set to which an object key belongs."""
    return PARTITIONS[kind_of(key)]
