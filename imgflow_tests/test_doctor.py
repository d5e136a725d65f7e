"""`imgflow doctor`: each part that is wrong is named with its fix, and hides no other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml

from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.doctor.all_checks import all_checks, local_checks
from imgflow.doctor.findings import Finding, as_json, examine, ok
from imgflow.doctor.machine_checks import check_home
from imgflow.settings.variables import Settings
from imgflow_tests.ceph import free_port
from imgflow_tests.pictures import jpeg


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.part: finding for finding in examine(all_checks(settings))}


def wrong(found: dict[str, Finding]) -> dict[str, str]:
    return {part: finding.text for part, finding in found.items() if finding.state == "wrong"}


@pytest.fixture
def ports() -> dict[str, int]:
    return {"dagster_port": free_port(), "api_port": free_port()}


@pytest.mark.usefixtures("instance")
def test_a_sound_project_has_nothing_to_advice_and_keeps_no_probe(
    make_settings: Callable[..., Settings],
    ports: dict[str, int],
    home: Path,
) -> None:
    settings = make_settings(**ports)
    for name in ("source", "outputs"):
        (home / name).mkdir()
    (home / "source" / "a.jpg").write_bytes(jpeg())
    PostgresCatalog(_engine(settings), "file:///").migrate()

    found = findings(settings)

    assert wrong(found) == {}
    assert "listed and read" in found["source"].text
    assert "written, read and deleted" in found["outputs"].text
    assert "up to date" in found["schema"].text
    assert "bulk event log" in found["dagster.yaml"].text
    assert "up to date" in found["dagster"].text
    assert found["daemon"].state == "notice"
    assert not [path for path in (home / "outputs").rglob("*") if path.is_file()]


def _engine(settings: Settings) -> Any:
    from imgflow.catalog.database.engine import make_engine

    return make_engine(settings.database_url)


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(
    make_settings: Callable[..., Settings], ports: dict[str, int], home: Path
) -> None:
    settings = make_settings(**ports, database_url="")
    assert wrong(findings(settings)) == {}
    assert not home.exists()


def test_everything_that_is_wrong_is_named_at_once(
    make_settings: Callable[..., Settings], home: Path, tmp_path: Path
) -> None:
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {}}))
    away, file = tmp_path / "unmounted", tmp_path / "file"
    file.write_text("no folder")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = wrong(
            findings(
                make_settings(
                    source_url=away.as_uri(),
                    output_url=(file / "outputs").as_uri(),
                    database_url=f"postgresql://nobody@127.0.0.1:{free_port()}/none",
                    dagster_port=port,
                    api_port=free_port(),
                    sqs_queue_url=f"http://127.0.0.1:{free_port()}/1/queue",
                )
            )
        )
    assert set(found) >= {
        "source",
        "outputs",
        "database",
        "dagster.yaml",
        f"port {port}",
        "queue",
    }
    assert str(away) in found["source"]
    assert "IMGFLOW_OUTPUT_URL" in found["outputs"]
    assert "IMGFLOW_DAGSTER_PORT" in found[f"port {port}"]
    assert "BulkPostgresEventLogStorage" in found["dagster.yaml"]
    assert "IMGFLOW_SQS_QUEUE_URL" in found["queue"]


@pytest.mark.usefixtures("instance")
def test_run_monitoring_that_is_off_is_named(
    make_settings: Callable[..., Settings],
    home: Path,
    ports: dict[str, int],
) -> None:
    file = home / "dagster" / "dagster.yaml"
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**config, "run_monitoring": {"enabled": False}}))
    found = wrong(findings(make_settings(**ports)))
    assert set(found) == {"dagster.yaml"}
    assert "run_monitoring" in found["dagster.yaml"]


@pytest.mark.usefixtures("instance")
def test_a_broker_that_the_operators_own_dagster_yaml_does_not_use_is_named(
    make_settings: Callable[..., Settings],
    home: Path,
    ports: dict[str, int],
) -> None:
    file = home / "dagster" / "dagster.yaml"
    file.write_text(file.read_text() + "# mine\n")
    found = wrong(findings(make_settings(**ports, broker_url="redis://192.0.2.1/0")))
    assert "ClusterRunLauncher" in found["dagster.yaml"]


def test_a_schema_of_a_newer_imgflow_is_told_from_an_older_one(
    make_settings: Callable[..., Settings], ports: dict[str, int], database_url: str
) -> None:
    settings = make_settings(**ports)
    PostgresCatalog(_engine(settings), "file:///").migrate()

    def at(version: str) -> Finding:
        with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE imgflow_schema_version SET version_num = %s", (version,))
        connection.close()
        return findings(settings)["schema"]

    older, newer = at("0002"), at("9999")
    assert (older.state, newer.state) == ("notice", "wrong")
    assert "0002" in older.text
    assert "newer imgflow" in newer.text


def test_a_bucket_that_does_not_exist_is_named(
    make_settings: Callable[..., Settings], s3: Any, ports: dict[str, int], bucket: str
) -> None:
    settings = make_settings(
        **ports, source_url="s3://no-such-bucket-here", output_url=f"s3://{bucket}/out"
    )
    found = {finding.part: finding for finding in examine(local_checks(settings))}
    assert "s3://no-such-bucket-here" in found["source"].text
    assert found["source"].state == "wrong"
    assert found["outputs"].state == "ok"
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket), "the probe is gone"


@pytest.mark.usefixtures("s3")
def test_a_wrong_secret_is_named_by_its_variable(
    make_settings: Callable[..., Settings],
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    settings = make_settings(source_url=f"s3://{bucket}/in", output_url=f"s3://{bucket}/out")
    found = {finding.part: finding for finding in examine(local_checks(settings))}
    assert "AWS_SECRET_ACCESS_KEY" in found["source"].text
    assert found["outputs"].state == "wrong"


def test_outputs_inside_the_source_are_said_to_be_left_out(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    settings = make_settings(source_url=folder.as_uri(), output_url=(folder / "made").as_uri())
    found = {finding.part: finding for finding in examine(local_checks(settings))}
    assert "listing leaves them out" in found["outputs"].text
    same = make_settings(source_url=folder.as_uri(), output_url=folder.as_uri())
    found = {finding.part: finding for finding in examine(local_checks(same))}
    assert "are the same" in found["outputs"].text


def test_a_part_that_hangs_or_breaks_hides_no_other() -> None:
    release = threading.Event()

    def hang() -> list[Finding]:
        release.wait(30)
        return []

    def breaks() -> list[Finding]:
        raise ZeroDivisionError("a defect")

    checks = {"hangs": hang, "breaks": breaks, "well": lambda: [ok("well", "it is")]}
    found = list(examine(checks, seconds=0.2))
    release.set()
    assert [(finding.part, finding.state) for finding in found] == [
        ("hangs", "wrong"),
        ("breaks", "wrong"),
        ("well", "ok"),
    ]
    assert "0.2 seconds" in found[0].text
    assert as_json(found)["ok"] is False
    assert as_json(found[2:]) == {
        "ok": True,
        "findings": [{"part": "well", "state": "ok", "text": "it is"}],
    }


def test_a_home_without_room_or_that_is_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    (found,) = check_home(file)
    assert (found.state, "IMGFLOW_HOME" in found.text) == ("wrong", True)
    monkeypatch.setattr("imgflow.doctor.machine_checks.LEAST_FREE_BYTES", 10**18)
    (found,) = check_home(tmp_path)
    assert (found.state, "make room" in found.text) == ("wrong", True)


def test_a_watermark_that_cannot_be_drawn_is_wrong_and_named(
    make_settings: Callable[..., Settings], ports: dict[str, int]
) -> None:
    sound = findings_of(make_settings(**ports, watermark_text="© 写真"))
    assert sound["recipe"].text.endswith("grayscale, thumbnail, proof")
    found = wrong(findings_of(make_settings(**ports, watermark_text="\ue123")))
    assert "U+E123" in found["recipe"]


def findings_of(settings: Settings) -> dict[str, Finding]:
    return {finding.part: finding for finding in examine(local_checks(settings))}


def test_an_api_that_others_reach_without_a_token_is_wrong(
    make_settings: Callable[..., Settings],
) -> None:
    def found(**values: str) -> Finding:
        check = local_checks(make_settings(**values))["access"]
        (finding,) = examine({"access": check})
        return finding

    assert (found().state, found().text) == (
        "ok",
        "the API listens on 127.0.0.1 and asks everyone for a token",
    )
    open_to_all = found(api_host="192.0.2.1")
    assert open_to_all.state == "wrong"
    assert "does not start without IMGFLOW_API_TOKEN" in open_to_all.text
    assert found(api_host="192.0.2.1", api_token="a-token").state == "ok"  # noqa: S106
    chosen = found(open_reading="true")
    assert chosen.state == "notice"
    assert "IMGFLOW_OPEN_READING" in chosen.text


class ToAnybody(BaseHTTPRequestHandler):
    """A proxy that lists images to whoever asks, or asks people to sign in itself."""

    answer = b'{"items": [], "next": null}'

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.answer)


@pytest.mark.parametrize(
    ("answer", "state"), [(ToAnybody.answer, "wrong"), (b"<h1>Sign in with us</h1>", "ok")]
)
def test_a_public_url_that_shows_images_to_strangers_is_wrong(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
    state: str,
) -> None:
    monkeypatch.setattr(ToAnybody, "answer", answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), ToAnybody) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        (finding,) = local_checks(make_settings(public_url=url))["access"]()
        proxy.shutdown()
    assert finding.state == state
    assert (f"anyone reads: {url}/images" in finding.text) == (state == "wrong")
