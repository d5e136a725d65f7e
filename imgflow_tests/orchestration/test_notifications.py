from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgflow.store.s3.bucket_events import (
    Reading,
    Record,
    Scope,
    newest_by_key,
    read_message,
)
from imgflow_tests.orchestration.messages import (
    eventbridge,
    raw_record,
    record,
    s3_event,
    s3_test_event,
    sns,
)


def read(body: str) -> Reading:
    return read_message(body.encode())


def keys(body: str) -> list[str]:
    reading = read(body)
    assert not reading.unreadable, reading.unreadable
    return [found.key for found in reading.records]


def reason(body: str) -> str:
    reading = read(body)
    assert not reading.records
    (only,) = reading.unreadable
    return only


def test_a_record_says_action_bucket_key_version_etag_size_and_sequencer() -> None:
    body = s3_event(
        record("in/a.jpg", versionId="v1", eTag="e1", size=7, sequencer="0055aed6dcd90281e5")
    )
    assert read(body).records == [
        Record("created", "uploads", "in/a.jpg", "v1", "e1", 7, "0055AED6DCD90281E5")
    ]


def test_a_message_may_hold_many_records() -> None:
    assert keys(s3_event(*(record(f"{number}.jpg") for number in range(10)))) == [
        f"{number}.jpg" for number in range(10)
    ]
    assert keys(s3_event()) == []


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("in/a+b.jpg", "in/a b.jpg"),
        ("in/a%20b.jpg", "in/a b.jpg"),
        ("in%2Fa%2Bb.jpg", "in/a+b.jpg"),
        ("in/100%25.jpg", "in/100%.jpg"),
        ("in/%252B.jpg", "in/%2B.jpg"),
        ("in/%25252B.jpg", "in/%252B.jpg"),
        ("in/%C3%BC+%2B1.jpg", "in/ü +1.jpg"),
        ("in/ü.jpg", "in/ü.jpg"),
        ("in/new%0Aline.jpg", "in/new\nline.jpg"),
        ("in/%F0%9F%98%80.jpg", "in/😀.jpg"),
        ("in/a%26b%3Dc%3F%23.jpg", "in/a&b=c?#.jpg"),
    ],
)
def test_form_encoded_keys_are_decoded_exactly_once(encoded: str, key: str) -> None:
    assert keys(s3_event(raw_record(encoded))) == [key]


@pytest.mark.parametrize("key", ["a+b.jpg", "a%2Bb.jpg", "100%.jpg", "a b.jpg", "ü\n.jpg"])
def test_keys_of_ceph_and_of_eventbridge_are_taken_as_they_are(key: str) -> None:
    assert keys(s3_event(raw_record(key, "ObjectCreated:Put", source="ceph:s3"))) == [key]
    assert keys(s3_event(raw_record(key, "s3:ObjectCreated:Put", source="ceph:s3"))) == [key]
    assert keys(eventbridge(key)) == [key]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_any_key_survives_every_sender(key: str) -> None:
    assert keys(s3_event(record(key))) == [key]
    assert keys(s3_event(record(key, source="ceph:s3"))) == [key]
    assert keys(eventbridge(key)) == [key]
    assert keys(sns(s3_event(record(key)))) == [key]


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("ObjectCreated:Put", "created"),
        ("ObjectCreated:Post", "created"),
        ("ObjectCreated:Copy", "created"),
        ("ObjectCreated:CompleteMultipartUpload", "created"),
        ("s3:ObjectCreated:Put", "created"),
        ("ObjectRemoved:Delete", "removed"),
        ("ObjectRemoved:DeleteMarkerCreated", "removed"),
        ("LifecycleExpiration:Delete", "removed"),
        ("LifecycleExpiration:DeleteMarkerCreated", "removed"),
    ],
)
def test_creations_and_removals_are_told_apart(name: str, action: str) -> None:
    assert [found.action for found in read(s3_event(record("a.jpg", name))).records] == [action]


@pytest.mark.parametrize(
    "name", ["ObjectTagging:Put", "ObjectRestore:Completed", "ReducedRedundancyLostObject"]
)
def test_other_events_are_ignored_by_name(name: str) -> None:
    reading = read(s3_event(record("a.jpg", name), record("b.jpg")))
    assert dict(reading.ignored) == {name: 1}
    assert [found.key for found in reading.records] == ["b.jpg"]
    assert not reading.unreadable


def test_the_test_event_of_a_new_notification_is_ignored() -> None:
    for body in (s3_test_event(), sns(s3_test_event())):
        reading = read(body)
        assert dict(reading.ignored) == {"s3:TestEvent": 1}
        assert (reading.records, reading.unreadable) == ([], [])


def test_envelopes_of_sns_are_opened_and_raw_delivery_needs_none() -> None:
    event = s3_event(record("in/ü +1.jpg"), record("b.jpg", "ObjectRemoved:Delete"))
    assert read(sns(event)) == read(event)
    assert keys(sns(eventbridge("a+b.jpg"))) == ["a+b.jpg"]
    assert keys(sns(sns(event))) == ["in/ü +1.jpg", "b.jpg"]


def test_events_of_eventbridge_have_names_of_their_own() -> None:
    created = eventbridge("a.jpg", size=7, etag="e1", sequencer="00AB", **{"version-id": "v1"})
    assert read(created).records == [Record("created", "uploads", "a.jpg", "v1", "e1", 7, "00AB")]
    removed = read(eventbridge("a.jpg", "Object Deleted", **{"deletion-type": "Permanently"}))
    assert [found.action for found in removed.records] == ["removed"]
    assert dict(read(eventbridge("a.jpg", "Object Tags Added")).ignored) == {"Object Tags Added": 1}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("hello", "no JSON"),
        ("[]", "a list instead of an object"),
        ('"text"', "a text instead of an object"),
        ("1", "a number instead of an object"),
        ("null", "null instead of an object"),
        ("{}", "neither an event of S3 nor one wrapped"),
        ('{"Records": {}}', "neither an event of S3"),
        ('{"Records": [7]}', "record 1: no text 'eventName'"),
        ('{"Records": [{"eventName": "ObjectCreated:Put"}]}', "no text 'eventSource'"),
        (
            '{"Records": [{"eventName": "ObjectCreated:Put", "eventSource": "aws:s3"}]}',
            "record 1: no object 's3'",
        ),
        (s3_event(record("a", source="aws:sns")), "'aws:sns', which is not S3"),
        (sns("garbage"), "no JSON"),
        ('{"Type": "SubscriptionConfirmation", "Message": "You have …"}', "confirm it"),
        ('{"detail-type": "Object Created", "detail": {}}', "no object 'object'"),
        ('{"detail-type": 5}', "no text 'detail-type'"),
        (s3_event(raw_record("")), "a key of 0 bytes"),
        (s3_event(raw_record("x" * 1_025)), "a key of 1025 bytes; S3 takes 1 to 1024"),
        (s3_event(raw_record("a%FF.jpg")), "'a%FF.jpg' is not UTF-8 when decoded"),
        (s3_event(raw_record("100%.jpg")), "has a % that encodes nothing"),
        (s3_event(raw_record("a\ud800.jpg")), "is no Unicode text"),
        (eventbridge("a\ud800.jpg"), "is no Unicode text"),
        (sns(sns(sns(sns(s3_event(record("a")))))), "over and over"),
        ("[" * 200_000, "nested too deeply"),
        ('{"Records": ' + "9" * 10_000 + "}", "no JSON"),
    ],
)
def test_what_cannot_be_read_has_a_reason_in_words(body: str, words: str) -> None:
    assert words in reason(body)


def test_a_body_that_is_no_text_has_a_reason_too() -> None:
    assert read_message(b'{"Records": "\xff"}').unreadable == ["not UTF-8 at byte 13"]
    assert keys("\ufeff" + s3_event(record("a.jpg"))) == ["a.jpg"]


def test_the_readable_records_of_a_message_stand_beside_the_unreadable() -> None:
    reading = read(s3_event(record("a.jpg"), raw_record("%FF"), 7, record("b.jpg")))
    assert [found.key for found in reading.records] == ["a.jpg", "b.jpg"]
    assert [text.partition(":")[0] for text in reading.unreadable] == ["record 2", "record 3"]


NAMES = [
    "Records",
    "s3",
    "object",
    "bucket",
    "name",
    "key",
    "eventName",
    "eventSource",
    "Type",
    "Message",
    "detail-type",
    "detail",
    "Event",
    "size",
    "sequencer",
]
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(NAMES) | st.text(max_size=5),
            inner
            | st.sampled_from(["aws:s3", "ObjectCreated:Put", "Object Created", "Notification"]),
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(SHAPES)
def test_no_json_whatever_its_shape_is_an_error(shape: Any) -> None:
    reading = read(json.dumps(shape))
    assert all(isinstance(found.key, str) for found in reading.records)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_they_are_are_an_error(body: bytes) -> None:
    read_message(body)


def created(key: str, sequencer: str = "", **values: Any) -> Record:
    return Record("created", "uploads", key, sequencer=sequencer, **values)


@pytest.mark.parametrize(
    ("early", "late"), [("0A", "0B"), ("9", "10"), ("FF", "100"), ("00FF", "100"), ("1", "0002")]
)
def test_the_greater_sequencer_is_the_later_event_in_whatever_order_they_arrive(
    early: str, late: str
) -> None:
    first, last = created("a", early), created("a", late)
    assert newest_by_key([first, last]) == {"a": last}
    assert newest_by_key([last, first]) == {"a": last}


def test_without_sequencers_the_last_one_to_arrive_counts() -> None:
    assert newest_by_key([created("a", etag="1"), created("a", "0A"), created("b")]) == {
        "a": created("a", "0A"),
        "b": created("b"),
    }
    odd = read(s3_event(record("a", sequencer="no hex"), record("a", sequencer=7))).records
    assert [found.sequencer for found in odd] == ["", ""]


@pytest.mark.parametrize(
    ("key", "refusal"),
    [
        ("in/a.jpg", None),
        ("in/made.jpg", None),
        ("in/made/a.jpg", "of outputs"),
        ("inside.jpg", "outside the prefix"),
        ("other/in/a.jpg", "outside the prefix"),
        ("in/", "of folder markers"),
        ("in/sub/", "of folder markers"),
        ("in/a\0.jpg", "of keys that are never listed"),
    ],
)
def test_the_scope_is_what_the_source_lists(key: str, refusal: str | None) -> None:
    scope = Scope("uploads", "in/", ("made/",))
    found = created(key, size=0)
    assert scope.refusal(found) == refusal
    assert scope.refusal(Record("created", "others", key)) == "of another bucket"
    if refusal is None:
        assert scope.key(found) == key.removeprefix("in/")


def test_a_slash_at_the_end_is_no_folder_marker_when_there_is_content_or_nobody_knows() -> None:
    scope = Scope("uploads", "", ())
    assert scope.refusal(created("sub/", size=3)) is None
    assert scope.refusal(created("sub/")) is None
    assert scope.refusal(created("..")) == "of keys that are never listed"
