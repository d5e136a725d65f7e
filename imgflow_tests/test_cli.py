"""The command `imgflow`, as a process of its own; `up` has a file of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pytest
from PIL import Image

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.store.naming import source_part
from imgflow_tests.ceph import free_port
from imgflow_tests.conftest import S3Server
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import depth_csv, jpeg

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `imgflow` in a folder and home of its own, with nothing else running."""

    def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment: Mapping[str, str] = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith("IMGFLOW_")
            },
            "IMGFLOW_HOME": str(tmp_path / "home"),
            "IMGFLOW_WORKERS": "2",
            **variables,
        }
        return subprocess.run(
            [sys.executable, "-m", "imgflow", *arguments],
            cwd=tmp_path,
            env=dict(environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    return command


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "source"
    folder.parent.mkdir(mode=0o700)  # as imgflow makes it
    folder.mkdir()
    return folder


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_ingest_works_headless_and_prints_one_json_object_last(run: Run, source: Path) -> None:
    for number in range(5):
        (source / f"{number}.jpg").write_bytes(jpeg(seed=number))
    (source / "hole.csv").write_bytes(depth_csv())
    (source / "bad.png").write_bytes(b"no picture")

    done = run("ingest", "--json")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    report = last_line(done)
    assert set(report) == {"listed", "processed", "unchanged", "rejected", "failed", "seconds"}
    assert (report["listed"], report["processed"], report["rejected"]) == (7, 6, 1)
    assert "bad.png" in done.stderr, "rejected images are listed"
    assert not (source.parent / "postgres" / "postmaster.pid").exists(), "the database was left on"

    again = last_line(run("ingest", "--json"))
    assert (again["listed"], again["processed"], again["unchanged"]) == (7, 0, 7)

    status = last_line(run("status", "--json"))
    assert status["photo"] == {"pending": 0, "ready": 5, "rejected": 1, "deleted": 0}
    assert status["depth"]["ready"] == 1
    assert "photo" in run("status").stdout

    shown = last_line(run("show", "bad.png", "--json"))
    assert shown["state"] == "rejected"
    assert "text" in shown["reason"]
    assert {event["outcome"] for event in shown["history"]} == {"failed"}
    assert "photo/thumbnail: made  run " in run("show", "3.jpg").stdout

    frame = source.parent / "frame.png"
    made = run(
        "frame", "hole.csv", "--depth-min", "9000.2", "--depth-max", "9000.9", "-o", str(frame)
    )
    assert made.returncode == 0, made.stderr
    with Image.open(frame) as picture:
        assert picture.size == (150, 8)
    array = source.parent / "frame.npy"
    assert run("frame", "hole.csv", "-o", str(array)).returncode == 0
    assert np.load(array).shape == (40, 150)


def test_ingest_from_a_bucket_into_a_bucket(
    run: Run, s3_server: S3Server, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="in/a b.jpg", Body=jpeg())
    urls = {
        "IMGFLOW_SOURCE_URL": f"s3://{bucket}/in",
        "IMGFLOW_OUTPUT_URL": f"s3://{bucket}/out",
        **s3_server.variables(),
    }
    done = run("ingest", "--json", **urls)
    assert last_line(done)["processed"] == 1, done.stderr
    names = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    part = source_part(f"s3://{bucket}/in/")
    assert sorted(name.split("@")[0] for name in names) == [
        "in/a b.jpg",
        f"out/grayscale/{part}/a b.jpg/",
        "out/imgflow.json",
        f"out/thumbnail/{part}/a b.jpg/",
    ]
    (thumbnail,) = (name for name in names if "/thumbnail/" in name)
    assert s3.head_object(Bucket=bucket, Key=thumbnail)["ContentType"] == "image/jpeg"
    assert last_line(run("ingest", "--json", **urls))["unchanged"] == 1
    assert s3_server.secret_key not in done.stderr


def test_doctor_says_what_to_advice_and_ends_with_1(run: Run, source: Path) -> None:
    ports = {"IMGFLOW_DAGSTER_PORT": str(free_port()), "IMGFLOW_API_PORT": str(free_port())}
    done = run("doctor", **ports)
    assert done.returncode == 0, done.stdout
    assert f"    ok  source: {source.as_uri()}/ can be listed" in done.stdout

    done = run("doctor", "--json", **ports, IMGFLOW_SOURCE_URL="s3://a_b!")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    found = last_line(done)
    assert found["ok"] is False
    (wrong,) = (part for part in found["findings"] if part["part"] == "source")
    assert (wrong["state"], "IMGFLOW_SOURCE_URL" in wrong["text"]) == ("wrong", True)

    done = run("doctor", "--json", IMGFLOW_WORKERS="many")
    assert done.returncode == 1
    assert "IMGFLOW_WORKERS" in last_line(done)["findings"][0]["text"]


def test_ingest_of_nothing_does_nothing(run: Run) -> None:
    assert last_line(run("ingest", "--json"))["listed"] == 0


def test_a_source_folder_that_is_missing_is_named_and_not_made(run: Run, tmp_path: Path) -> None:
    done = run("ingest", IMGFLOW_SOURCE_URL=(tmp_path / "unmounted").as_uri())
    assert done.returncode == 1
    assert str(tmp_path / "unmounted") in done.stderr
    assert not (tmp_path / "unmounted").exists()


@pytest.fixture
def tcp_postgres(tmp_path: Path, postgres: EmbeddedPostgres) -> Iterator[str]:
    """A server like any other: TCP, a password with odd characters, a database of its own."""
    assert postgres  # its start has made the system user and readable binaries
    password, port, data = "p@ss/w%rd", free_port(), tmp_path / "data"
    binaries: Path = postgres._server.bin_path
    user = "pgserver" if os.geteuid() == 0 else None
    data.mkdir()
    for folder in [data, *data.parents]:
        if folder.stat().st_uid == os.geteuid() and user:
            folder.chmod(folder.stat().st_mode | 0o055)
    secret = tmp_path / "password"
    secret.write_text(password)
    if user:
        shutil.chown(data, user)
        shutil.chown(secret, user)

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(data), *arguments]
        subprocess.run(command, user=user, cwd="/", check=True, capture_output=True)

    call("initdb", "--auth=scram-sha-256", "--username=me", f"--pwfile={secret}")
    listen = f"-c listen_addresses=127.0.0.1 -p {port} -k {data}"
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [str(binaries / "postgres"), "-D", str(data), *listen.split()],
            user=user,
            cwd="/",
            stdout=log,
            stderr=log,
        )
    quoted = urllib.parse.quote(password, safe="")
    url = f"postgresql://me:{quoted}@127.0.0.1:{port}/postgres"
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            psycopg2.connect(url).close()
            break
        except psycopg2.OperationalError:
            assert time.monotonic() < give_up, (tmp_path / "server.log").read_text()
            time.sleep(0.1)
    yield url
    server.send_signal(signal.SIGINT)  # fast shutdown
    server.wait(30)


def test_a_url_switches_to_any_other_postgresql(run: Run, source: Path, tcp_postgres: str) -> None:
    (source / "a.jpg").write_bytes(jpeg())
    (source / "hole.csv").write_bytes(depth_csv())
    done = run("ingest", "--json", IMGFLOW_DATABASE_URL=tcp_postgres)
    assert last_line(done)["processed"] == 2, done.stderr
    assert not (source.parent / "postgres").exists()
    with psycopg2.connect(tcp_postgres) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM images WHERE state = 'ready'")
        assert cursor.fetchone() == (2,)
        cursor.execute("SELECT count(*) FROM event_logs WHERE partition IS NOT NULL")
        assert (cursor.fetchone() or (0,))[0] > 0
    connection.close()
    assert "ss/w%rd" not in done.stderr
    assert "p%40ss" not in done.stderr


def test_delete_says_what_goes_and_may_be_said_twice(run: Run, source: Path) -> None:
    (source / "a.jpg").write_bytes(jpeg())
    (source / "b.jpg").write_bytes(jpeg(seed=1))
    (source / "hole.csv").write_bytes(depth_csv())
    run("ingest")
    keys = ("a.jpg", "a.jpg", "hole.csv", "--source")
    for arguments, said in (
        ((*keys, "--dry-run"), "2 images, 4 outputs and 2 uploads would be deleted."),
        (("a.jpg",), "1 images, 2 outputs and 0 uploads deleted."),
        (keys, "1 images, 2 outputs and 2 uploads deleted."),
        (keys, "0 images, 0 outputs and 0 uploads deleted."),
    ):
        done = run("delete", *arguments)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
    assert [file.name for file in source.iterdir()] == ["b.jpg"]
    assert run("delete", "b.jpg", "none.jpg").returncode == 2
    assert last_line(run("ingest", "--json"))["unchanged"] == 1, "nothing of it was deleted"


def test_an_unknown_image_is_named(run: Run) -> None:
    done = run("show", "nothing.jpg")
    assert done.returncode == 2
    assert "no image 'nothing.jpg'" in done.stderr


def test_an_unreachable_database_is_one_sentence_without_its_password(run: Run) -> None:
    url = f"postgresql://me:hidden-word@127.0.0.1:{free_port()}/images"
    done = run("status", IMGFLOW_DATABASE_URL=url)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "hidden-word" not in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unreachable_bucket_is_one_sentence(run: Run) -> None:
    done = run(
        "ingest",
        IMGFLOW_SOURCE_URL="s3://uploads/in",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}",
        AWS_ACCESS_KEY_ID="someone",
        AWS_SECRET_ACCESS_KEY="hidden-word",  # noqa: S106 - of nobody
        AWS_DEFAULT_REGION="us-east-1",
    )
    assert done.returncode == 1
    assert "s3://uploads/in/" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IMGFLOW_SOURCE_URL", "bucket/prefix"),
        ("IMGFLOW_OUTPUT_URL", "s3://"),
        ("IMGFLOW_DATABASE_URL", "sqlite:///x.db"),
        ("IMGFLOW_DEPTH_WIDTH", "0"),
        ("IMGFLOW_RESIZE_ORDER", "9"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(run: Run, name: str, value: str) -> None:
    done = run("ingest", **{name: value})
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_uploads_of_folders_keep_their_names_and_skip_what_is_there(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "summer"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg())
    (folder / "deep" / "b c.jpg").write_bytes(jpeg(seed=1))
    assert "2 uploaded, 0 unchanged" in run("upload", str(folder)).stderr
    source = tmp_path / "home" / "source"
    assert (source / "summer" / "deep" / "b c.jpg").read_bytes() == jpeg(seed=1)
    (folder / "a.jpg").write_bytes(jpeg(seed=2))
    assert "1 uploaded, 1 unchanged" in run("upload", str(folder)).stderr
