"""What every catalogue promises; another database's class is one more name in `CATALOGS`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from imgflow.catalog.connecting import make_engine
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.catalog.rows import Count
from imgflow.errors import TROUBLE_CODES
from imgflow.store.objects import Digest, SourceObject
from imgflow_tests.catalog.uploads import WHEN, announced, row, upload, verdict

SOURCE = "s3://bucket/in/"
Open = Callable[[str], PostgresCatalog]


@pytest.fixture
def open_postgres(database_url: str) -> Iterator[Open]:
    engine = make_engine(database_url, pool_size=8)
    yield lambda source: PostgresCatalog(engine, source)
    engine.dispose()


CATALOGS = ["open_postgres"]


@pytest.fixture(params=CATALOGS)
def open_catalog(request: pytest.FixtureRequest) -> Open:
    """Opens the catalogue of a source in one fresh database."""
    opening: Open = request.getfixturevalue(request.param)
    return opening


@pytest.fixture
def catalog(open_catalog: Open) -> PostgresCatalog:
    catalog = open_catalog(SOURCE)
    catalog.migrate()
    return catalog


def delete(catalog: PostgresCatalog, image_id: int) -> None:
    with catalog.engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE images SET state = 'deleted' WHERE id = :id"), {"id": image_id}
        )


class TestAnnouncing:
    def test_new_uploads_become_pending(self, catalog: PostgresCatalog) -> None:
        known = catalog.announce([upload("a.jpg"), upload("b.csv", "e9", 77)])
        assert [image.key for image in known.new] == ["a.jpg", "b.csv"]
        assert (known.changed, known.unchanged) == ([], 0)
        photo, depth = known.new
        assert (photo.kind, depth.kind) == ("photo", "depth")
        assert (photo.state, photo.source, photo.processed) == ("pending", SOURCE, None)
        assert depth.newest_upload == upload("b.csv", "e9", 77)
        assert depth.announced == upload("b.csv", "e9", 77).identity

    def test_known_uploads_touch_no_row(self, catalog: PostgresCatalog) -> None:
        uploads = [upload(f"{number}.jpg") for number in range(50)]
        catalog.announce(uploads)
        before = _versions(catalog)
        known = catalog.announce([*uploads, upload("new.jpg")])
        assert (len(known.new), known.changed, known.unchanged) == (1, [], 50)
        after = _versions(catalog)
        assert {key: after[key] for key in before} == before

    @pytest.mark.parametrize(
        "other",
        [
            upload("a.jpg", "e2"),
            upload("a.jpg", "e1", 11),
            dataclasses.replace(upload("a.jpg"), last_modified=WHEN + timedelta(seconds=1)),
            dataclasses.replace(upload("a.jpg"), version_id="v2"),
        ],
        ids=["etag", "size", "time", "version"],
    )
    def test_another_upload_under_a_key_makes_it_pending_again(
        self, catalog: PostgresCatalog, other: SourceObject
    ) -> None:
        (image,) = announced(catalog, "a.jpg")
        catalog.record([verdict(image, width=5)])
        catalog.assign([image.id], "batch")
        known = catalog.announce([other])
        assert (known.new, known.unchanged) == ([], 0)
        (changed,) = known.changed
        assert (changed.id, changed.state, changed.announced) == (
            image.id,
            "pending",
            other.identity,
        )
        assert (changed.processed, changed.width) == (image.announced, 5)
        assert (changed.batch, changed.attempts, changed.not_before) == (None, 0, None)

    def test_a_deleted_image_comes_back_with_a_new_upload_only(
        self, catalog: PostgresCatalog
    ) -> None:
        kept, overwritten, gone = announced(catalog, "a.jpg", "b.jpg", "c.jpg")
        catalog.tombstone([kept.id, overwritten.id], is_gone=False)
        catalog.tombstone([gone.id], is_gone=True)
        known = catalog.announce([upload("a.jpg"), upload("b.jpg", "e2"), upload("c.jpg")])
        assert [(i.id, i.state) for i in known.new] == [
            (overwritten.id, "pending"),
            (gone.id, "pending"),
        ]
        assert (known.changed, known.unchanged) == ([], 1)
        assert catalog.by_keys(["a.jpg"])["a.jpg"].state == "deleted"

    def test_a_thousand_go_at_once(self, catalog: PostgresCatalog) -> None:
        keys = [f"{number:04}.jpg" for number in range(1_000)]
        known = catalog.announce([upload(key) for key in reversed(keys)])
        assert [image.key for image in known.new] == keys
        assert catalog.announce([upload(key) for key in keys]).unchanged == 1_000

    def test_the_last_of_several_with_one_key_counts(self, catalog: PostgresCatalog) -> None:
        known = catalog.announce([upload("a", "e1"), upload("b"), upload("a", "e2")])
        assert [(i.key, i.announced_etag) for i in known.new] == [("a", "e2"), ("b", "e1")]
        known = catalog.announce([upload("a", "e2"), upload("a", "e2")])
        assert (known.new, known.changed, known.unchanged) == ([], [], 1)

    @pytest.mark.parametrize(
        "key",
        [
            "it's \"quoted\".jpg", "ü/日本語/😀.jpg", "new\nline\ttab\r.jpg",
            "a:b %s %(x)s {y} \\.jpg", "x" * 1_024, "ü" * 512, "\x01\x7f\uffff", "a//b/../c/",
            " ", "NULL", "{a,b}", '"', "\\N",
        ],
    )  # fmt: skip
    def test_any_key_is_kept_as_it_is(self, catalog: PostgresCatalog, key: str) -> None:
        (image,) = catalog.announce([upload(key)]).new
        assert image.key == key
        assert catalog.announce([upload(key)]).unchanged == 1
        assert row(catalog, key).id == image.id
        assert [i.key for i in catalog.page(limit=10, prefix=key[:3])] == [key]

    def test_nothing_is_announced_by_an_empty_page(self, catalog: PostgresCatalog) -> None:
        known = catalog.announce([])
        assert (known.new, known.changed, known.unchanged) == ([], [], 0)

    def test_each_upload_is_new_to_one_of_several_announcers(
        self, catalog: PostgresCatalog
    ) -> None:
        uploads = [upload(f"{number}.jpg") for number in range(300)]
        start = threading.Barrier(4)

        def announce(order: int) -> int:
            start.wait()
            return len(catalog.announce(uploads[::order]).new)

        with ThreadPoolExecutor(4) as threads:
            assert sum(threads.map(announce, (1, -1, 1, -1))) == 300

    def test_sources_do_not_see_each_other(self, open_catalog: Open) -> None:
        one, other = open_catalog(SOURCE), open_catalog("file:///in/")
        one.migrate()
        (image,) = announced(one, "a.jpg")
        assert other.announce([upload("a.jpg")]).new[0].id != image.id
        assert other.by_id(image.id) is None
        assert other.by_ids([image.id]) == []
        assert len(other.page(limit=10)) == len(one.page(limit=10)) == 1
        assert one.counts() == [Count("photo", "pending", 1)]


def _versions(catalog: PostgresCatalog) -> dict[str, object]:
    with catalog.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT key, xmin::text, ctid::text FROM images")).all()
    return {key: version for key, *version in rows}


class TestComparing:
    """A page that shows just what is known is told from any other."""

    KEYS = ("a", "a\x01b", "a\nb", "a b+c.jpg", "z/é.csv", "\uffff", "😀")

    def digest(self, *uploads: SourceObject) -> Digest:
        return Digest.of("identity", [t for u in uploads for t in (u.key, u.identity)])

    def test_what_was_announced_is_known(self, catalog: PostgresCatalog) -> None:
        uploads = [upload(key) for key in self.KEYS]
        with catalog.comparing() as known:
            assert known.knows(None, None, self.digest())
            assert not known.knows(None, None, self.digest(*uploads))
            catalog.announce(uploads)
            assert known.knows(None, None, self.digest(*uploads))
            assert known.knows("a", "z/é.csv", self.digest(*uploads[1:5]))
            assert known.knows("😀", None, self.digest())

    def test_anything_new_changed_missing_or_back_is_a_difference(
        self, catalog: PostgresCatalog
    ) -> None:
        uploads = [upload("a"), upload("b"), upload("c")]
        catalog.announce(uploads)
        with catalog.comparing() as known:
            a, b, c = uploads
            for others in (
                [a, b, c, upload("d")],
                [a, upload("b", "e2"), c],
                [a, upload("b", size=11), c],
                [a, dataclasses.replace(b, last_modified=WHEN + timedelta(seconds=1)), c],
                [a, dataclasses.replace(b, version_id="v1"), c],
                [a, c],
                [],
            ):
                assert not known.knows(None, None, self.digest(*others)), others
            catalog.mark_gone([row(catalog, "b").id])
            assert known.knows(None, None, self.digest(a, c)), "it is known to be gone"
            assert not known.knows(None, None, self.digest(a, b, c)), "it is back"

    def test_an_image_deleted_by_hand_is_known_while_its_object_is_there(
        self, catalog: PostgresCatalog
    ) -> None:
        (image,) = announced(catalog, "a")
        catalog.tombstone([image.id], is_gone=False)
        with catalog.comparing() as known:
            assert known.knows(None, None, self.digest(upload("a")))
            assert not known.knows(None, None, self.digest(upload("a", "e2")))

    def test_sources_in_one_database_are_apart(self, open_catalog: Open) -> None:
        one, other = open_catalog(SOURCE), open_catalog("s3://other/")
        one.migrate()
        one.announce([upload("a")])
        with other.comparing() as known:
            assert known.knows(None, None, self.digest())


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

    def test_waits_double_up_to_ten_minutes(self, catalog: PostgresCatalog) -> None:
        (image,) = announced(catalog, "a.jpg")
        seconds = []
        for _ in range(12):
            _no_wait(catalog)
            assert catalog.assign([image.id], "batch") == [image.id]
            found = row(catalog, "a.jpg")
            assert found.not_before is not None
            seconds.append(round((found.not_before - datetime.now(timezone.utc)).total_seconds()))
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
