"""Messages to people: real web and mail servers, well and unwell, and no secret in any text."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import pytest

from imgflow.errors import SettingsError
from imgflow.settings.channels import check_channel, parse_channels, send, without_secrets
from imgflow_tests.receivers import mailbox, webhook

TEXT = "Run 1 failed.\n  a.jpg: it is cut short. Upload it again - whole, é."
MESSAGE = ("imgflow: 1 run failed", TEXT)


def test_a_webhook_gets_title_and_text_as_json() -> None:
    with webhook() as hook:
        assert send({hook.url: MESSAGE}) == {hook.url: None}
    (message,) = hook.messages
    assert message["title"] == "imgflow: 1 run failed"
    assert message["message"] == TEXT
    assert message["type"] == "failure"


def test_a_mail_is_plain_text_with_its_lines() -> None:
    with mailbox() as box:
        assert send({box.url: MESSAGE}) == {box.url: None}
    (message,) = box.messages
    assert box.recipients == ["operators@example.org"]
    assert message["Subject"] == "imgflow: 1 run failed"
    assert message.get_content_type() == "text/plain"
    assert [line.strip() for line in message.get_content().splitlines()] == [
        line.strip() for line in TEXT.splitlines()
    ]


def test_in_a_chat_a_key_is_no_link_and_calls_nobody() -> None:
    text = "[open](http://evil.test/) failed\n@here.jpg, @Everyone.jpg, a@allison.jpg[1].jpg"
    with webhook() as hook:
        chat = f"mmost://127.0.0.1:{hook.port}/abcdefghijklmnopqrstuvwx"
        assert send({chat: ("t", text), hook.url: ("t", text)}) == {chat: None, hook.url: None}
    shown = next(message["text"] for message in hook.messages if "text" in message)
    exact = next(message["message"] for message in hook.messages if "message" in message)
    assert "](" not in shown
    assert "@here" not in shown
    assert "@Everyone" not in shown
    assert "http://evil.test/" in shown, "nothing is left out"
    assert exact == text, "programs get it as it is"


@pytest.mark.parametrize("status", [500, 404, 302])
def test_an_answer_other_than_success_is_a_failure_that_names_no_secret(
    status: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with webhook() as hook, caplog.at_level(logging.INFO):
        hook.status = status
        reason = send({hook.url: MESSAGE})[hook.url]
    assert reason is not None
    assert str(status) in reason
    shown = reason + "".join(capfd.readouterr()) + caplog.text
    assert "s3cr3t" not in shown
    assert hook.requests == ["POST /hook/s3cr3t-token"], "a redirect is not followed"


def test_a_channel_that_hangs_keeps_neither_the_others_nor_the_caller() -> None:
    with webhook() as hanging, webhook() as well:
        hanging.status = 0
        began = time.monotonic()
        outcomes = send({hanging.url: MESSAGE, well.url: MESSAGE}, seconds=1)
        assert time.monotonic() - began < 3
        assert outcomes == {hanging.url: "it did not answer within 1 seconds", well.url: None}


def test_a_channel_without_a_server_is_a_failure_in_words() -> None:
    with webhook() as hook:
        pass
    assert "onnection" in (send({hook.url: MESSAGE})[hook.url] or "")


def test_long_messages_are_split_rather_than_refused() -> None:
    with webhook() as hook:
        send({hook.url: ("title", "line of text\n" * 10_000)})
    assert len(hook.messages) > 1
    assert sum(len(message["message"]) for message in hook.messages) > 100_000


def test_urls_are_separated_by_blanks_or_commas_and_may_hold_commas() -> None:
    text = "json://h/a, mailto://u:p@x.org?to=a@b.c,d@e.f\n slack://A/B/C"
    assert parse_channels(text) == (
        "json://h/a",
        "mailto://u:p@x.org?to=a@b.c,d@e.f",
        "slack://A/B/C",
    )
    assert parse_channels(" ") == ()
    with pytest.raises(ValueError, match="part 1 is no URL") as caught:
        parse_channels("json://h/a, hooks.example.org/secret json://x")
    assert "secret" not in str(caught.value)


def test_a_url_that_apprise_does_not_know_is_a_wrong_setting() -> None:
    check_channel("json://host/path")
    with pytest.raises(SettingsError, match=r"IMGFLOW_ALERT_URLS.*nonsense://") as caught:
        check_channel("nonsense://host/secret")
    assert "secret" not in str(caught.value)


def test_nothing_of_a_url_is_left_in_what_is_told() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/p%40ssword/#general"
    told = "refused T1JJ3T3L2 and A1BRTD4JD, p@ssword, p%40ssword"
    assert without_secrets(told, url) == "refused … and …, …, …"


def test_apprise_is_imported_only_to_send() -> None:
    code = (
        "import sys, imgflow.settings.channels, imgflow.settings.variables;"
        "print('apprise' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
