"""Every row of the table in `docs/doctor.md` is made for real; the doctor names it and its fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import moto.settings
import pytest

from imgflow.cli.iam import policy
from imgflow.settings.variables import Settings
from imgflow_tests.misconfigured.case import Case
from imgflow_tests.misconfigured.databases import DATABASES
from imgflow_tests.misconfigured.processes import PROCESSES
from imgflow_tests.misconfigured.queues import QUEUES, as_moto_user, wired
from imgflow_tests.misconfigured.stores import STORES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
Row = tuple[str, str, str]

ARRANGED = {**STORES, **QUEUES, **DATABASES, **PROCESSES}


def table() -> dict[str, Row]:
    """The rows of the documentation: part, state and fix of each misconfiguration."""
    rows = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[2] in ("`wrong`", "`notice`"):
            rows[cells[0].strip()] = cells[1].strip("`"), cells[2].strip("`"), cells[3]
    return rows


@pytest.fixture
def case(
    make_settings: Callable[..., Settings],
    home: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Case:
    return Case(make_settings, home, database_url, monkeypatch)


def test_the_table_and_these_tests_have_the_same_rows() -> None:
    assert list(table()) == list(ARRANGED)
    assert len(ARRANGED) >= 15


@pytest.mark.parametrize("name", ARRANGED)
def test_it_is_named_with_its_fix(name: str, case: Case, request: pytest.FixtureRequest) -> None:
    part, state, documented = table()[name]
    advice, arrange = ARRANGED[name]
    with contextmanager(arrange)(case, request.getfixturevalue):
        found = case.found()
    matching = [one for of, one in found.items() if re.fullmatch(part.replace("…", ".*"), of)]
    (finding,) = [one for one in matching if one.state == state] or matching[:1]
    assert (finding.state, advice in finding.text) == (state, True), finding
    for piece in re.findall(r"`([^`…]+)`", documented):
        assert piece in finding.text


def test_a_bucket_that_tells_the_queue_of_uploads_is_well(
    case: Case, request: pytest.FixtureRequest
) -> None:
    for prefix in ("in/", ""):
        wired(case, request.getfixturevalue, prefix)
        found = case.found()
        assert found["events"].state == "ok"
    assert [part for part, finding in found.items() if finding.state == "wrong"] == []


def test_the_queue_needs_both_actions_of_the_policy_and_no_more(
    case: Case, request: pytest.FixtureRequest
) -> None:
    arguments, inbox = request.getfixturevalue("moto"), request.getfixturevalue("inbox")
    inbox.send("a message")
    case.values["sqs_queue_url"] = inbox.url
    ((_, actions),) = [(one["Sid"], one["Action"]) for one in policy(case.settings)["Statement"]]
    states = {}
    for allowed in (actions, actions[:1], actions[1:]):
        as_moto_user(case, arguments, allowed)
        states[tuple(allowed)] = case.found()["queue"].state
        case.environment.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", float("inf"))
    assert list(states.values()) == ["ok", "wrong", "wrong"]
    assert inbox.counts() == (1, 0), "the message is still there"
