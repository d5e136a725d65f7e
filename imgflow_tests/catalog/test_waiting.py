"""What every catalogue promises of images that wait for a run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow_tests.catalog.uploads import announced, row, upload, verdict


class TestWaiting:
    def test_pending_images_wait_by_kind_oldest_first(self, catalog: PostgresCatalog) -> None:
        announced(catalog, "b.jpg")
        announced(catalog, "a.jpg", "c.csv", "d.CSV.GZ")
        assert [i.key for i in catalog.waiting("photo", active=[], most=9)] == ["b.jpg", "a.jpg"]
        assert [i.key for i in catalog.waiting("depth", active=[], most=9)] == ["c.csv", "d.CSV.GZ"]
        assert [i.key for i in catalog.waiting("photo", active=[], most=1)] == ["b.jpg"]

    def test_an_active_batch_keeps_its_images(self, catalog: PostgresCatalog) -> None:
        first, second = announced(catalog, "a.jpg", "b.jpg")
        catalog.assign([first.id], "batch-1")
        _no_wait(catalog)
        assert _waiting(catalog, "batch-1", "batch-2") == ["b.jpg"]
        assert _waiting(catalog, "batch-2") == ["a.jpg", "b.jpg"]
        assert _waiting(catalog) == ["a.jpg", "b.jpg"]
        catalog.record([verdict(second)])
        assert _waiting(catalog) == ["a.jpg"]

    def test_an_upload_that_is_another_one_at_each_look_waits_as_long_as_other_trouble(
        self, catalog: PostgresCatalog
    ) -> None:
        """Of a bucket as of a folder: it is announced, asked for, and never read."""
        asked = 0
        for look in range(12):
            catalog.announce([upload("a.jpg", f"e{look}")])
            for image in catalog.waiting("photo", active=[], most=9):
                asked += len(catalog.assign([image.id], f"batch-{look}"))
                catalog.note_trouble({image.id: "another one"}, code="changing")
        assert asked == 3
        found = row(catalog, "a.jpg")
        assert (found.attempts, found.reason_code) == (3, "changing")
        catalog.record([verdict(found)])
        catalog.announce([upload("a.jpg", "e99")])
        assert _waiting(catalog) == ["a.jpg"], "it was read, so another upload is asked for at once"

    def test_another_upload_ends_the_pause_of_other_trouble(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        for _ in range(6):
            _no_wait(catalog)
            catalog.assign([image.id], "batch")
        catalog.note_trouble({image.id: "may not be read"}, code="unreadable")
        assert _waiting(catalog) == []
        catalog.announce([upload("a.jpg", "e2")])
        assert _waiting(catalog) == ["a.jpg"]

    def test_waits_double_up_to_ten_minutes(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        seconds = []
        for _ in range(12):
            _no_wait(catalog)
            assert catalog.assign([image.id], "batch") == [image.id]
            found = row(catalog, "a.jpg")
            assert found.not_before is not None
            seconds.append(round((found.not_before - datetime.now(UTC)).total_seconds()))
        assert seconds == [10, 10, 10, 16, 32, 64, 128, 256, 512, 600, 600, 600]
        assert _waiting(catalog) == []
        catalog.note_trouble({image.id: "bucket away"})
        found = row(catalog, "a.jpg")
        assert (found.reason, found.reason_code, found.state) == (
            "bucket away",
            "trouble",
            "pending",
        )
        assert found.attempts == 12

    def test_trouble_is_noted_on_pending_images_only(self, catalog: PostgresCatalog) -> None:
        first, second = announced(catalog, "a.jpg", "b.jpg")
        catalog.record([verdict(first)])
        catalog.note_trouble({first.id: "no", second.id: "odd \0 text"})
        assert row(catalog, "a.jpg").reason is None
        assert row(catalog, "b.jpg").reason == "odd \ufffd text"

    def test_reasons_are_counted_by_their_code(self, catalog: PostgresCatalog) -> None:
        first, second, third, _ = announced(catalog, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
        assert catalog.reasons() == {}
        catalog.record([replace(verdict(first, "rejected"), reason_code="archived")])
        catalog.note_trouble({second.id: "refused"}, code="unreadable")
        catalog.note_trouble({third.id: "away"})
        assert catalog.reasons() == {"archived": 1, "trouble": 1, "unreadable": 1}
        catalog.record([verdict(second), verdict(third)])
        assert catalog.reasons() == {"archived": 1}

    def test_reopened_images_wait_at_once(self, catalog: PostgresCatalog) -> None:
        first, second = announced(catalog, "a.jpg", "b.jpg")
        catalog.record([verdict(first, "rejected")])
        catalog.assign([second.id], "batch")
        catalog.reopen([first.id, second.id])
        assert _waiting(catalog) == ["a.jpg", "b.jpg"]
        assert row(catalog, "b.jpg").attempts == 0

    def test_rejected_and_assigned_images_are_untouchable(self, catalog: PostgresCatalog) -> None:
        rejected, mine, _, depth = announced(catalog, "a.jpg", "b.jpg", "c.jpg", "d.csv")
        catalog.record([verdict(rejected, "rejected"), verdict(depth, "rejected")])
        catalog.assign([mine.id], "batch")
        assert sorted(catalog.untouchable("photo", active=["batch"])) == ["a.jpg", "b.jpg"]
        assert sorted(catalog.untouchable("photo", active=[])) == ["a.jpg", "b.jpg"], "not launched"
        _no_wait(catalog)
        assert catalog.untouchable("photo", active=[]) == ["a.jpg"]

    def test_the_oldest_wait_is_known(self, catalog: PostgresCatalog) -> None:
        assert catalog.oldest_pending() is None
        first, second = announced(catalog, "a.jpg", "b.jpg")
        assert catalog.oldest_pending() == first.updated_at
        catalog.record([verdict(first), verdict(second)])
        assert catalog.oldest_pending() is None

    def test_an_image_that_is_reopened_waits_from_then_on(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        for reopen in (
            lambda: catalog.reopen([image.id]),
            lambda: catalog.reopen_stale("photo", {"grayscale": "another"}),
            lambda: catalog.reopen_without(image.id, ["gone"]),
        ):
            catalog.record([verdict(image)])
            done = row(catalog, "a.jpg").updated_at
            reopen()
            waits_since = catalog.oldest_pending()
            assert waits_since is not None
            assert waits_since > done


def _waiting(catalog: PostgresCatalog, *active: str) -> list[str]:
    return [image.key for image in catalog.waiting("photo", active=active, most=99)]


def _no_wait(catalog: PostgresCatalog) -> None:
    with catalog.engine.begin() as connection:
        connection.execute(sa.text("UPDATE images SET not_before = now()"))
