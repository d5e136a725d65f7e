"""Buckets as sources: how tests open and list them."""

from __future__ import annotations

from typing import Any

from imgflow.store.location import parse_location
from imgflow.store.objects import SourceObject
from imgflow.store.s3.source_bucket import S3Source


def source_of(url: str, **arguments: Any) -> S3Source:
    return S3Source(parse_location(url, setting="TEST"), **arguments)


def listed(
    source: S3Source, limit: int = 1_000, start_after: str | None = None
) -> list[SourceObject]:
    objects: list[SourceObject] = []
    while True:
        page = source.list_page(start_after, limit)
        objects += page.objects
        start_after = page.resume_after
        if start_after is None:
            return objects
