"""What every catalogue promises of reading its rows."""

from __future__ import annotations

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Count
from imgflow_tests.catalog.uploads import (
    announced,
    delete,
    verdict,
)


class TestReading:
    def test_pages_stay_stable_while_rows_are_added(self, catalog: PostgresCatalog) -> None:
        keys = [f"{number}.jpg" for number in range(10)]
        announced(catalog, *keys)
        seen, after = [], 0
        while page := catalog.page(limit=3, after_id=after):
            seen += [image.key for image in page]
            after = page[-1].id
            if len(seen) < 12:
                announced(catalog, f"0-added-{len(seen)}.jpg")
        assert seen[:10] == keys
        assert len(seen) == len(set(seen)) == 13

    def test_filters_go_together(self, catalog: PostgresCatalog) -> None:
        a, b, c, d = announced(catalog, "in_1/a.jpg", "in_1/b.csv", "inx1/c.jpg", "in%1/d.jpg")
        catalog.record([verdict(a, media_type="image/jpeg"), verdict(b, "rejected")])
        delete(catalog, d.id)

        def keys(**filters: object) -> list[str]:
            return [image.key for image in catalog.page(limit=9, **filters)]  # type: ignore[arg-type]

        assert keys() == [a.key, b.key, c.key]
        assert keys(prefix="in_1/") == [a.key, b.key]
        assert keys(prefix="in%") == []
        assert keys(kind="photo", state="pending") == [c.key]
        assert keys(state="deleted", prefix="in%") == [d.key]
        assert keys(media_type="image/jpeg", kind="photo", prefix="in") == [a.key]
        assert keys(prefix="'; DROP TABLE images; --") == []

    def test_what_no_row_can_hold_is_not_found(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        assert list(catalog.by_keys(["a\0b", "\ud800", "a.jpg"])) == ["a.jpg"]
        assert catalog.page(limit=9, prefix="a\0") == []
        assert catalog.page(limit=9, media_type="\ud800") == []
        for image_id in (0, -1, 2**63, 10**30):
            assert catalog.by_id(image_id) is None
        assert catalog.by_id(image.id) == image

    def test_rows_come_by_their_ids(self, catalog: PostgresCatalog) -> None:
        first, second, third = announced(catalog, "a", "b", "c")
        assert catalog.by_ids([third.id, first.id, 999_999]) == [first, third]
        assert catalog.by_id(second.id) == second

    def test_images_are_counted_by_kind_and_state(self, catalog: PostgresCatalog) -> None:
        assert catalog.counts() == []
        a, *_ = announced(catalog, "a.jpg", "b.jpg", "c.csv")
        catalog.record([verdict(a)])
        assert catalog.counts() == [
            Count("depth", "pending", 1),
            Count("photo", "pending", 1),
            Count("photo", "ready", 1),
        ]

    def test_a_database_that_answers_passes_the_check(self, catalog: PostgresCatalog) -> None:
        catalog.check()
