"""What Dagster people expect of a project: commands, launchpad, and use in their own project."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import setuptools

import imgflow
from imgflow.assembly import build_definitions
from imgflow.orchestration.dagster_storage.event_log import PARTITION_NAME_TAG
from imgflow.orchestration.resources import StoresResource, nothing_kept
from imgflow.settings.variables import Settings
from imgflow.store.naming import MARKER
from imgflow_tests.ceph import free_port
from imgflow_tests.orchestration.project import Project
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import depth_csv, jpeg

ROOT = Path(imgflow.__file__).resolve().parents[1]
SCRIPTS = Path(sysconfig.get_path("scripts"))
DOCS = ROOT / "docs" / "dagster-people.md"

Variables = dict[str, str]


@pytest.fixture
def variables(tmp_path: Path, settings: Settings) -> Variables:
    """The environment of somebody's shell, who has installed imgflow and set its database."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")},
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DAGSTER_HOME": str(home),
        "IMGFLOW_HOME": str(settings.home),
        "IMGFLOW_DATABASE_URL": settings.database_url,
    }


def call(*command: str | Path, folder: Path, variables: Variables) -> str:
    """Run a command that must end well; returns what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def started(*command: str | Path, folder: Path, variables: Variables) -> Iterator[int]:
    """A server on a port of its own within the block; it ends well at SIGINT, with its children."""
    port = free_port()
    log = (folder / "server.log") if folder != ROOT else Path(variables["DAGSTER_HOME"]) / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*map(str, command), "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env=variables,
            stdout=out,
            stderr=out,
            # A background job of a shell ignores it, and so would all that the tests start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
    children: list[psutil.Process] = []
    try:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.2)
        yield port
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        _, alive = psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
        assert not alive, log.read_text()
    finally:
        for one in children:
            if one.is_running():
                one.kill()
        if process.poll() is None:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def ask(port: int, query: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - the same
        data: dict[str, Any] = json.load(answer)["data"]
        return data


def loaded_assets(port: int) -> set[str]:
    found = ask(port, "{ assetNodes { assetKey { path } } }")["assetNodes"]
    return {"/".join(node["assetKey"]["path"]) for node in found}


@pytest.mark.long
def test_the_definitions_are_sound_for_both_commands(variables: Variables) -> None:
    said = call("dg", "check", "defs", folder=ROOT, variables=variables)
    assert "All definitions loaded successfully" in said
    command = ("dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert "Validation successful" in call(*command, folder=ROOT, variables=variables)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [("dg", "dev"), ("python", "-m", "imgflow.service.webserver", "-w", "workspace.yaml")],
    ids=" ".join,
)
def test_a_server_loads_the_assets_and_ends_with_ctrl_c(
    command: tuple[str, ...], variables: Variables
) -> None:
    with started(*command, folder=ROOT, variables=variables) as port:
        assert loaded_assets(port) >= {"photo/source", "photo/thumbnail", "depth/resized"}


def test_every_field_of_a_resource_says_in_the_launchpad_what_it_is(settings: Settings) -> None:
    resources = build_definitions(settings).get_repository_def().get_top_level_resources()
    assert set(resources) == {"catalog", "stores", "queue", "workers"}
    fields = resources["workers"].config_schema.config_type.fields  # type: ignore[union-attr]
    assert fields
    assert [name for name in fields if not fields[name].description] == []


@pytest.mark.parametrize("name", ["catalog", "stores", "queue", "io_manager"])
def test_a_run_sets_nothing_of_what_says_where_things_lie(settings: Settings, name: str) -> None:
    definitions = build_definitions(settings, resources={"io_manager": nothing_kept()})
    for job in definitions.get_repository_def().get_all_jobs():
        with pytest.raises(dg.DagsterInvalidConfigError, match=name):
            dg.validate_run_config(job, {"resources": {name: {"config": {"url": "file:///x"}}}})


def test_a_field_that_a_run_does_not_set_keeps_what_the_settings_say(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(max_side=1_000, watermark_text="")
    resources = build_definitions(settings).get_repository_def().get_top_level_resources()
    fields = resources["workers"].config_schema.config_type.fields  # type: ignore[union-attr]
    assert fields["max_side"].default_value == 1_000


def test_definitions_may_have_other_stores_than_the_settings(
    project: Project, settings: Settings, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(jpeg())
    project.instance.add_dynamic_partitions("photos", ["a.jpg"])
    stores = StoresResource(source_url=other.as_uri(), output_url=settings.output_url)
    definitions = build_definitions(settings, resources={"stores": stores})
    result = definitions.resolve_job_def("process_photos").execute_in_process(
        {"resources": {"workers": {"config": {"count": 1}}}},
        instance=project.instance,
        tags={PARTITION_NAME_TAG: "a.jpg"},
    )
    assert result.success
    assert project.rows() != []
    assert project.catalog.by_keys(["a.jpg"]) == {}, "it is an image of the other source"
    assert project.statuses("photo/thumbnail") == {"a.jpg": "green"}


def test_an_instance_with_storages_of_its_own_has_the_same_events(
    settings: Settings, tmp_path: Path
) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        project = Project(settings, instance)
        folder = project.source.location.folder
        (folder / "a.jpg").write_bytes(jpeg())
        (folder / "bad.jpg").write_bytes(b"no picture")
        (folder / "hole.csv").write_bytes(depth_csv())
        project.run_requests(project.tick())
        assert project.statuses("photo/thumbnail") == {"a.jpg": "green", "bad.jpg": "red"}
        assert project.statuses("depth/resized") == {"hole.csv": "green"}
        assert project.newest("photo/thumbnail", "a.jpg").metadata["noop"].value is False
        assert project.materialize(["a.jpg"]).success
        assert project.newest("photo/thumbnail", "a.jpg").metadata["noop"].value is True
        job = project.definitions.resolve_job_def("reconcile")
        assert job.execute_in_process(instance=instance).success
        job = project.definitions.resolve_job_def("retention")
        with pytest.raises(Exception, match="IMGFLOW_KEEP_EVENTS_DAYS=0"):
            job.execute_in_process(instance=instance)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgflow's wheel in it, and nothing else."""
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("building the wheel needs setuptools 77: pip install 'imgflow[dev]'")
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "imgflow", checkout / "imgflow", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    pip = (sys.executable, "-m", "pip")
    alone = ("--quiet", "--no-deps", "--no-index")
    variables = dict(os.environ)
    call(
        *pip, "wheel", *alone, "--no-build-isolation", "-w", folder, checkout,
        folder=folder, variables=variables,
    )  # fmt: skip
    (wheel,) = folder.glob("imgflow-*.whl")
    site = folder / "site"
    call(*pip, "install", *alone, "--target", site, wheel, folder=folder, variables=variables)
    return site


@pytest.mark.long
def test_the_wheel_holds_every_file_of_the_package(installed: Path) -> None:
    def files(folder: Path) -> set[str]:
        found = (file for file in folder.rglob("*") if file.is_file())
        return {
            file.relative_to(folder).as_posix() for file in found if "__pycache__" not in file.parts
        }

    assert files(ROOT / "imgflow") - files(installed / "imgflow") == set()


SCRIPT = """
import dagster as dg, imgflow, sys
from their_project.definitions import defs
print(imgflow.__file__)
with dg.DagsterInstance.get() as instance:
    instance.add_dynamic_partitions("photos", ["a.jpg"])
    result = defs.resolve_job_def("process_photos").execute_in_process(
        instance=instance, tags={"dagster/partition": "a.jpg"})
    assert result.success
    key = dg.AssetKey(["photo", "thumbnail"])
    result = dg.materialize(
        [defs.get_assets_def("caption")], instance=instance, partition_key="a.jpg")
    assert result.output_for_node("caption") == "Picture a.jpg"
    print(instance.get_latest_materialization_event(key).asset_materialization.partition)
"""


@pytest.fixture
def theirs(
    installed: Path, tmp_path: Path, variables: Variables, s3: Any, bucket: str
) -> tuple[Path, Variables]:
    """Another project, with the code of the documentation over a bucket of its own."""
    folder = tmp_path / "theirs"
    package = folder / "their_project"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert code is not None
    text = code[1].replace("your-uploads", bucket).replace("your-pictures", bucket)
    (package / "definitions.py").write_text(text)
    (folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\n'
        'root_module = "their_project"\ncode_location_target_module = "their_project.definitions"\n'
    )
    s3.put_object(Bucket=bucket, Key="in/a.jpg", Body=jpeg())
    database = {"PICTURES_DATABASE_URL": variables.pop("IMGFLOW_DATABASE_URL")}
    paths = f"{folder}{os.pathsep}{installed}"
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return folder, {**variables, **database, **aws, "PYTHONPATH": paths}


@pytest.mark.long
def test_the_wheel_works_in_another_project_with_its_own_stores(
    theirs: tuple[Path, Variables], installed: Path, s3: Any, bucket: str
) -> None:
    folder, variables = theirs
    said = call("dg", "check", "defs", folder=folder, variables=variables)
    assert "All definitions loaded successfully" in said
    done = call(sys.executable, "-c", SCRIPT, folder=folder, variables=variables)
    assert str(installed / "imgflow" / "__init__.py") in done
    assert "\na.jpg\n" in done
    stored = s3.list_objects_v2(Bucket=bucket, Prefix="made/")["Contents"]
    assert {entry["Key"].split("/")[1] for entry in stored} == {"grayscale", "thumbnail", MARKER}
    call(
        sys.executable, "-m", "imgflow", "doctor", "--selftest",
        folder=folder, variables=variables,
    )  # fmt: skip


def test_a_resource_of_the_same_name_is_told_when_both_are_merged(
    make_settings: Callable[..., Settings],
) -> None:
    own = dg.Definitions(resources={"stores": 1})
    with pytest.raises(dg.DagsterInvariantViolationError, match="stores"):
        dg.Definitions.merge(build_definitions(make_settings(), executor=None), own)
