"""`imgflow alert` and what `imgflow doctor` says of the channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from imgflow.cli.main import app
from imgflow.doctor.findings import Finding
from imgflow.doctor.machine_checks import check_alerts
from imgflow.errors import SettingsError
from imgflow.settings.variables import Settings
from imgflow_tests.receivers import webhook


def test_the_command_says_which_channel_took_a_test_message(
    make_settings: Callable[..., Settings],
) -> None:
    with webhook() as well, webhook() as broken:
        broken.status = 500
        make_settings(alert_urls=well.url)
        assert CliRunner().invoke(app, ["alert"]).exit_code == 0
        make_settings(alert_urls=f"{well.url},{broken.url}")
        done = CliRunner().invoke(app, ["alert"])
    assert done.exit_code == 1
    assert "Channel 1 (json) took the message" in done.output
    assert "Channel 2 (json) did not take it" in done.output
    assert "s3cr3t" not in done.output
    assert len(well.messages) == 2


def test_without_a_channel_the_command_names_the_setting(
    make_settings: Callable[..., Settings],
) -> None:
    make_settings()
    done = CliRunner().invoke(app, ["alert"])
    assert isinstance(done.exception, SettingsError)
    assert "IMGFLOW_ALERT_URLS" in str(done.exception)


def test_the_doctor_looks_at_the_channels_without_sending(
    make_settings: Callable[..., Settings],
) -> None:
    assert next(check_alerts(make_settings())).state == "ok"
    with webhook() as hook:
        (found,) = check_alerts(make_settings(alert_urls=hook.url))
        assert not hook.requests
    assert found == Finding(
        "alerts", "ok", "failures are told by json; `imgflow alert` sends a test message"
    )
    with pytest.raises(SettingsError, match="understands no nonsense://"):
        list(check_alerts(make_settings(alert_urls="nonsense://s3cr3t")))


def test_a_wrong_setting_is_refused_without_being_shown(
    make_settings: Callable[..., Settings],
) -> None:
    with pytest.raises(SettingsError, match="IMGFLOW_ALERT_URLS") as caught:
        make_settings(alert_urls="hooks.example.org/s3cr3t")
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in repr(make_settings(alert_urls="json://host/s3cr3t"))
