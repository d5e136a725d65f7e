"""The structure: imports point one way, private names have one place, the graph is pinned."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

import imgflow
from imgflow.definitions import build_definitions
from imgflow.settings.variables import Settings

PACKAGE = Path(imgflow.__file__).parent

# Each part may import itself and these.
ALLOWED = {
    "foreign_text": set(),
    "errors": {"foreign_text"},
    "amazon": set(),
    "same_origin": {"foreign_text"},
    "webserver": {"errors", "http_server", "same_origin", "settings"},
    "mends": set(),
    "home": set(),
    "channels": {"errors", "foreign_text"},
    "images": {"errors"},
    "depth": {"errors"},
    "tokens": {"errors", "home"},
    "fetch": {"errors", "amazon"},
    "http_clients": set(),
    "http_server": {"http_clients"},
    "observability": {"errors", "foreign_text"},
    "setting_values": {"images", "tokens", "fetch", "channels"},
    "settings": {"errors", "images", "depth", "observability", "setting_values", "store"},
    "store": {"errors", "amazon", "home"},
    "catalog": {"errors", "home", "depth", "store", "settings", "observability"},
    "lifecycle": {"errors", "store", "catalog", "settings"},
    "orchestration": {
        *("errors", "images", "depth", "store", "catalog", "settings", "lifecycle", "mends"),
        *("channels", "observability", "amazon", "foreign_text", "home"),
    },
    "api": {
        *("errors", "images", "depth", "store", "catalog", "settings", "lifecycle", "tokens"),
        *("fetch", "orchestration", "mends", "observability", "http_server", "foreign_text"),
    },
    "definitions": {"settings", "orchestration", "observability"},
    "celery_app": {"errors", "settings", "catalog", "store", "orchestration", "definitions"},
}


def imported(file: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def files(part: str) -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part: str) -> None:
    for file in files(part):
        for name in imported(file):
            if name.startswith("imgflow."):
                other = name.split(".")[1]
                assert other in ALLOWED[part] | {part}, f"{file} imports {name}"


def test_of_orchestration_the_api_uses_what_knows_no_dagster() -> None:
    used = {
        name.split(".")[2]
        for file in files("api")
        for name in imported(file)
        if name.startswith("imgflow.orchestration.")
    }
    assert used == {"batch", "counting", "image_log", "pool", "tasks", "worker"}
    code = (
        "import sys, imgflow.api.app;"
        "print([n for n in ('dagster', 'dagster_postgres', 'skimage') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_orchestration_and_the_assembly_know_dagster() -> None:
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ("orchestration", "definitions", "celery_app", "cli", "up", "webserver"):
            continue
        assert not [name for name in imported(file) if name.split(".")[0].startswith("dagster")]


def test_private_names_of_dagster_live_in_one_module() -> None:
    users = {
        file.name
        for file in PACKAGE.rglob("*.py")
        for name in imported(file)
        if name.startswith(("dagster._", "dagster_shared"))
    }
    assert users == {"event_log.py"}


def test_tests_use_private_names_of_dagster_only_where_nothing_public_says_it() -> None:
    users = {
        file.name
        for file in Path(__file__).parent.rglob("*.py")
        for name in imported(file)
        if name.startswith(("dagster._", "dagster_shared"))
    }
    of_the_event_log = {"test_event_log.py", "test_event_rows.py"}
    assert users == of_the_event_log | {"test_tick_storage.py", "ui_state.py"}


def test_init_files_import_nothing() -> None:
    for file in PACKAGE.rglob("__init__.py"):
        assert not list(imported(file)), file


def test_a_pool_worker_imports_neither_dagster_nor_pandas_nor_a_database_driver() -> None:
    code = (
        "import sys, imgflow.work.photographs, imgflow.depth.depth_recipe;"
        "print([n for n in ('dagster','pandas','skimage','sqlalchemy','psycopg2','fastapi','numpy')"
        " if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def definitions(make_settings: Callable[..., Settings]) -> Callable[..., dg.Definitions]:
    return lambda **values: build_definitions(make_settings(**values))


def test_the_graph_is_the_contract(definitions: Callable[..., dg.Definitions]) -> None:
    defs = definitions()
    assert {key.to_user_string() for key in defs.resolve_all_asset_keys()} == {
        "photo/source",
        "photo/grayscale",
        "photo/thumbnail",
        "photo/metadata",
        "depth/source",
        "depth/resized",
        "depth/preview",
        "depth/metadata",
    }
    repository = defs.get_repository_def()
    assert {job.name for job in repository.get_all_jobs()} == {
        "__ASSET_JOB",
        "process_photos",
        "process_depth_images",
        "backfill_stale",
        "reconcile",
        "retention",
        "audit",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "nightly_backfill_stale",
        "nightly_reconcile",
        "nightly_retention",
        "nightly_audit",
    }
    assert {check.to_user_string() for check in repository.asset_graph.asset_check_keys} == {
        "photo/grayscale:readable",
        "photo/grayscale:nothing_private",
        "photo/thumbnail:readable",
        "photo/thumbnail:fits_box",
        "photo/thumbnail:nothing_private",
        "photo/metadata:agreement",
        "depth/resized:depths_rise",
        "depth/preview:readable",
        "depth/metadata:agreement",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {"arrivals", "failures"}
    sets = {
        defs.get_assets_def(key).partitions_def.name  # type: ignore[union-attr]
        for key in (dg.AssetKey(["photo", "thumbnail"]), dg.AssetKey(["depth", "resized"]))
    }
    assert sets == {"photos", "depth_images"}


def test_proofs_are_assets_only_when_a_watermark_is_set(
    definitions: Callable[..., dg.Definitions],
) -> None:
    assert (
        dg.AssetKey(["photo", "proof"])
        in definitions(watermark_text="© me").resolve_all_asset_keys()
    )


def test_a_changed_setting_changes_the_code_version_of_what_it_touches_only(
    definitions: Callable[..., dg.Definitions],
) -> None:
    def versions(**values: object) -> dict[str, str | None]:
        defs = definitions(**values)
        return {
            key.to_user_string(): spec.code_version
            for key, spec in ((spec.key, spec) for spec in defs.resolve_all_asset_specs())
        }

    before, after = versions(), versions(thumbnail_size=64)
    assert {key for key in before if before[key] != after[key]} == {"photo/thumbnail"}
    after = versions(thumbnail_size=256, depth_width=64)
    assert {key for key in before if before[key] != after[key]} == {
        "depth/resized",
        "depth/preview",
    }


def test_loading_definitions_connects_to_nothing(tmp_path: Path) -> None:
    code = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('a connection while loading')\n"
        "socket.socket.connect = refuse\n"
        "import imgflow.definitions\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin",
            "IMGFLOW_SOURCE_URL": "s3://no-such-bucket/in",
            "IMGFLOW_OUTPUT_URL": "s3://no-such-bucket/out",
            "IMGFLOW_DATABASE_URL": "postgresql://nobody@192.0.2.1/none",
        },
    )
    assert not list(tmp_path.iterdir())


def test_tables_are_overdue_only_when_a_setting_says_so(
    definitions: Callable[..., dg.Definitions],
) -> None:
    def policies(**values: object) -> dict[str, dg.FreshnessPolicy]:
        return {
            spec.key.to_user_string(): spec.freshness_policy
            for spec in definitions(**values).resolve_all_asset_specs()
            if spec.freshness_policy
        }

    assert policies() == {}
    window = dg.FreshnessPolicy.time_window(timedelta(hours=36), timedelta(hours=18))
    assert policies(freshness_hours=36) == {"photo/metadata": window, "depth/metadata": window}
