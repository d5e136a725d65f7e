"""Rows as the gallery looks through them."""

from __future__ import annotations

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Image
from imgflow_tests.catalog.uploads import announced, upload, verdict


def keys(images: list[Image]) -> list[str]:
    return [image.key for image in images]


def test_the_newest_come_first_and_pages_go_both_ways(catalog: PostgresCatalog) -> None:
    a, b, c, d = announced(catalog, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert keys(catalog.browse(limit=10)) == ["d.jpg", "c.jpg", "b.jpg", "a.jpg"]
    assert keys(catalog.browse(limit=2, before_id=d.id)) == ["c.jpg", "b.jpg"]
    assert keys(catalog.browse(limit=2, after_id=a.id)) == ["c.jpg", "b.jpg"]  # the nearest two
    assert keys(catalog.browse(limit=1, after_id=a.id)) == [b.key]
    assert catalog.browse(limit=10, after_id=d.id) == catalog.browse(limit=10, before_id=a.id) == []
    assert c.key in keys(catalog.browse(limit=10, after_id=b.id))


def test_filters_narrow_together(catalog: PostgresCatalog) -> None:
    photo, depth, bad = announced(catalog, "Well/a.jpg", "well/b.csv", "well/c.jpg")
    catalog.record([verdict(photo), verdict(depth), verdict(bad, "rejected", reason="why")])
    assert keys(catalog.browse(limit=9, containing="WELL/")) == [bad.key, depth.key, photo.key]
    assert keys(catalog.browse(limit=9, containing="well", kind="photo")) == [bad.key, photo.key]
    assert keys(catalog.browse(limit=9, kind="photo", state="ready")) == [photo.key]
    assert catalog.browse(limit=9, kind="depth", state="rejected") == []


def test_other_sources_and_deleted_images_are_left_out(catalog: PostgresCatalog) -> None:
    gone, kept = announced(catalog, "gone.jpg", "kept.jpg")
    other = PostgresCatalog(catalog.engine, "file:///elsewhere/")
    other.announce([upload("theirs.jpg")])
    catalog.tombstone([gone.id], is_gone=False)
    assert keys(catalog.browse(limit=9)) == [kept.key]
    assert keys(catalog.browse(limit=9, state="deleted")) == [gone.key]
    assert keys(other.browse(limit=9)) == ["theirs.jpg"]
