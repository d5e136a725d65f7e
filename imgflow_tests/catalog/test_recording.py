"""What every catalogue promises of the verdicts of runs."""

from __future__ import annotations

import sqlalchemy as sa

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.errors import TROUBLE_CODES
from imgflow_tests.catalog.uploads import announced, delete, row, upload, verdict


class TestRecording:
    def test_a_verdict_is_kept_whole(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        outputs = {"thumbnail": {"name": "t/a", "size": 5, "fingerprint": "f"}}
        catalog.record(
            [
                verdict(
                    image,
                    sha256="ab",
                    media_type="image/jpeg",
                    width=4,
                    height=3,
                    mode="RGB",
                    outputs=outputs,
                    facts={"note": 'ü "quoted" \\ 😀', "depth": [1.5, 2]},
                )
            ]
        )
        found = row(catalog, "a.jpg")
        assert (found.state, found.processed) == ("ready", image.announced)
        assert (found.sha256, found.media_type, found.mode) == ("ab", "image/jpeg", "RGB")
        assert (found.width, found.height, found.size, found.etag) == (4, 3, 10, "e1")
        assert found.outputs == outputs
        assert found.facts == {"note": 'ü "quoted" \\ 😀', "depth": [1.5, 2]}
        assert (found.run_id, found.recipe, found.reason) == ("run", "recipe", None)
        assert found.updated_at >= found.created_at

    def test_a_rejection_keeps_its_reason(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        catalog.record([verdict(image, "rejected", reason="cut off", reason_code="truncated")])
        found = row(catalog, "a.jpg")
        assert (found.state, found.reason, found.reason_code) == (
            "rejected",
            "cut off",
            "truncated",
        )

    def test_one_odd_image_does_not_keep_the_verdicts_of_the_others(
        self, catalog: PostgresCatalog
    ) -> None:
        odd, whole = announced(catalog, "odd.jpg", "whole.jpg")
        facts = {"exif\0": "a\0b", "lone": "\ud800", "nan": [float("nan"), float("inf"), 1.5]}
        catalog.record(
            [
                verdict(odd, "rejected", reason="tag \0 \udfff", mode="\0", facts=facts),
                verdict(whole),
            ]
        )
        assert row(catalog, "whole.jpg").state == "ready"
        found = row(catalog, "odd.jpg")
        assert found.reason == "tag \ufffd ?"
        assert found.facts == {"exif\ufffd": "a\ufffdb", "lone": "?", "nan": [None, None, 1.5]}

    def test_an_upload_overwritten_in_between_stays_pending(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        catalog.announce([upload("a.jpg", "e2")])
        catalog.record([verdict(image, width=1)])
        found = row(catalog, "a.jpg")
        assert (found.state, found.etag, found.announced_etag, found.width) == (
            "pending",
            "e1",
            "e2",
            1,
        )
        assert found.processed == image.announced
        assert [i.id for i in catalog.waiting("photo", active=[], most=9)] == [image.id]

    def test_a_late_verdict_on_an_older_upload_is_dropped(self, catalog: PostgresCatalog) -> None:
        (old,) = announced(catalog, "a.jpg")
        (new,) = catalog.announce([upload("a.jpg", "e2")]).changed
        catalog.record([verdict(new, width=2)])
        catalog.record([verdict(old, "rejected", width=1, reason="late")])
        found = row(catalog, "a.jpg")
        assert (found.state, found.width, found.etag, found.reason) == ("ready", 2, "e2", None)

    def test_a_pause_that_ends_soon_or_has_ended_is_waited_for(
        self, catalog: PostgresCatalog
    ) -> None:
        (image,) = announced(catalog, "a.jpg")
        assert not catalog.is_due_soon(60), "nobody has it in hand"
        catalog.assign([image.id], "batch")
        assert not catalog.is_due_soon(5)
        assert catalog.is_due_soon(60)
        with catalog.engine.begin() as connection:
            connection.execute(sa.text("UPDATE images SET not_before = now()"))
        assert catalog.is_due_soon(5)
        for code in TROUBLE_CODES:
            catalog.note_trouble({image.id: "the store is away"}, code=code)
            assert not catalog.is_due_soon(60), "who knows for how long"

    def test_a_deleted_image_stays_deleted(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        delete(catalog, image.id)
        catalog.record([verdict(image)])
        catalog.reopen([image.id])
        catalog.assign([image.id], "batch")
        catalog.note_trouble({image.id: "trouble"})
        found = row(catalog, "a.jpg")
        assert (found.state, found.processed, found.batch, found.reason) == (
            "deleted", None, None, None,
        )  # fmt: skip

    def test_a_batch_may_mix_all_cases_and_be_recorded_twice(
        self, catalog: PostgresCatalog
    ) -> None:
        images = announced(catalog, *(f"{number}.jpg" for number in range(200)))
        verdicts = [
            verdict(image, "rejected" if number % 3 else "ready", width=number)
            for number, image in enumerate(images)
        ]
        for _ in range(2):
            catalog.record(verdicts)
        assert [row(catalog, i.key).width for i in images[:3]] == [0, 1, 2]
        assert {(c.state, c.count) for c in catalog.counts()} == {("ready", 67), ("rejected", 133)}

    def test_nothing_to_record_is_no_error(self, catalog: PostgresCatalog) -> None:
        catalog.record([])
        catalog.note_trouble({})
        catalog.reopen([])
        catalog.assign([], "batch")
        assert catalog.by_keys([]) == {}
        assert catalog.by_ids([]) == []
