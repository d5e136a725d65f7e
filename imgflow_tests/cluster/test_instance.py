"""Dagster's own configuration: one source, the settings, on one machine and in a cluster."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_celery.launcher import CeleryRunLauncher

from imgflow.errors import SettingsError
from imgflow.orchestration.dagster_storage.instance import open_instance, prepare_dagster_home
from imgflow.orchestration.families import KIND_TAG, QUEUE_TAG
from imgflow.settings.variables import Settings, load_settings
from imgflow_tests.orchestration.project import Project

BROKER = "redis://:secret-of-the-broker@192.0.2.1:6379/0"  # of which nothing is asked here


@pytest.fixture
def written(make_settings: Callable[..., Settings]) -> Callable[..., dict[str, Any]]:
    def write(**values: Any) -> dict[str, Any]:
        text = (prepare_dagster_home(make_settings(**values)) / "dagster.yaml").read_text()
        assert "secret-of-the-broker" not in text
        loaded: dict[str, Any] = yaml.safe_load(text)
        return loaded

    return write


def test_one_machine_has_the_default_launcher(written: Callable[..., dict[str, Any]]) -> None:
    assert "run_launcher" not in written()


def test_a_broker_makes_it_a_cluster_and_its_password_stays_out_of_the_file(
    written: Callable[..., dict[str, Any]],
) -> None:
    config = written(broker_url=BROKER, runs=3)
    assert config["run_launcher"]["class"] == "ClusterRunLauncher"
    assert config["run_launcher"]["config"]["broker"] == {"env": "IMGFLOW_BROKER_URL"}
    assert config["run_coordinator"]["config"]["tag_concurrency_limits"][0]["limit"] == 3
    assert config["event_log_storage"]["class"] == "BulkPostgresEventLogStorage"


def test_the_file_follows_the_settings_until_somebody_changes_it(
    written: Callable[..., dict[str, Any]], settings: Settings
) -> None:
    assert "run_launcher" not in written()
    assert "run_launcher" in written(broker_url=BROKER)
    file = settings.home / "dagster" / "dagster.yaml"
    file.write_text(file.read_text() + "# mine\n")
    kept = written(broker_url=BROKER, runs=7)["run_coordinator"]["config"]
    assert kept["max_concurrent_runs"] == 8
    assert [entry.name for entry in file.parent.iterdir()] == ["dagster.yaml"]


def test_dagster_takes_the_configuration(
    make_settings: Callable[..., Settings], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(broker_url=BROKER)
    monkeypatch.setenv("DAGSTER_HOME", "")  # put back afterwards
    with open_instance(settings, database_url) as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, CeleryRunLauncher)
        assert launcher.celery.conf.broker_url == BROKER
        assert launcher.celery.conf.worker_disable_prefetch is True
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None
        assert limits.max_concurrent_runs == 8


def test_without_the_extra_the_setting_says_what_to_install(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(broker_url=BROKER)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "imgflow.orchestration.dagster_storage.instance.find_spec",
        lambda name: None if name == "dagster_celery" else find(name),
    )
    with pytest.raises(SettingsError, match=r"imgflow\[cluster\]"):
        prepare_dagster_home(settings)


def test_another_kind_of_broker_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMGFLOW_BROKER_URL", "amqp://guest:hunter2@host//")
    with pytest.raises(SettingsError, match="redis://") as raised:
        load_settings(_env_file=None)
    assert "hunter2" not in str(raised.value)


def test_each_kind_of_images_has_runs_with_a_queue_and_a_limit_of_their_own(
    project: Project,
) -> None:
    for job, kind in (("process_photos", "photo"), ("process_depth_images", "depth")):
        tags = project.definitions.resolve_job_def(job).tags
        assert {KIND_TAG: kind, QUEUE_TAG: kind}.items() <= tags.items()


@pytest.fixture
def project(settings: Settings, instance: dg.DagsterInstance) -> Project:
    return Project(settings, instance)
