"""What every catalogue promises of uploads that a listing showed."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.records import Count
from imgflow.store.objects import Digest, SourceObject
from imgflow_tests.catalog.uploads import SOURCE, WHEN, Open, announced, row, upload, verdict


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
