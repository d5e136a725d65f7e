"""The structure: imports point one way, private names have one place, the graph is pinned."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

import imgflow
from imgflow.assembly import build_definitions
from imgflow.settings.variables import Settings

PACKAGE = Path(imgflow.__file__).parent

# Each part may import itself and these; no part imports a later one.
ALLOWED: dict[str, set[str]] = {
    "advice": set(),
    "foreign_text": set(),
    "home": set(),
    "errors": {"foreign_text"},
    "web": {"foreign_text"},
    "depth": {"errors"},
    "images": {"errors"},
    "observability": {"errors", "foreign_text"},
    "store": {"errors", "home"},
    "fetch": {"errors", "store"},
    "settings": {
        *("errors", "foreign_text", "home", "images", "depth", "observability", "store", "fetch"),
    },
    "catalog": {"errors", "home", "depth", "store", "settings", "observability"},
    "status": {"advice", "catalog"},
    "work": {
        *("errors", "advice", "foreign_text", "images", "depth", "store", "catalog"),
        "observability",
    },
    "api": {
        *("errors", "advice", "images", "depth", "store", "catalog", "settings", "fetch"),
        *("observability", "web", "work"),
    },
    "orchestration": {
        *("errors", "advice", "foreign_text", "home", "images", "depth", "store", "catalog"),
        *("settings", "observability", "work"),
    },
    "assembly": {"settings", "orchestration"},
    "definitions": {"assembly", "settings", "orchestration", "observability"},
    "service": {
        *("errors", "foreign_text", "home", "store", "catalog", "settings", "observability"),
        *("web", "work", "status", "orchestration", "assembly", "definitions", "api"),
    },
    "doctor": {
        *("errors", "home", "images", "store", "catalog", "settings", "observability"),
        *("orchestration", "service"),
    },
    "cli": {
        *("errors", "foreign_text", "depth", "store", "catalog", "settings", "work", "status"),
        *("orchestration", "assembly", "api", "service", "doctor"),
    },
    "__main__": {"cli"},
}

MODULES_A_FOLDER = 12

# Cycles that are still there; this list may only become shorter.
CYCLES = {frozenset({"imgflow.images.outputs", "imgflow.images.photo_recipe"})}


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


def test_every_part_has_a_rule_and_the_rules_have_no_cycle() -> None:
    parts = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in modules()}
    assert parts - {"__init__"} == set(ALLOWED)
    before: set[str] = set()
    for part, others in ALLOWED.items():
        assert others <= before, f"{part} comes before {others - before}"
        before.add(part)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_modules_import_each_other_one_way() -> None:
    """Type checking and imports inside functions included."""
    names = {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file
        for file in modules()
        if file.name != "__init__.py"
    }
    graph = {name: {*imported(file)} & names.keys() - {name} for name, file in names.items()}
    components = strongly_connected(graph)
    assert {frozenset(one) for one in components if len(one) > 1} == CYCLES


def strongly_connected(graph: dict[str, set[str]]) -> list[set[str]]:
    """Modules that reach each other."""
    reached = {name: reach(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        if not any(name in one for one in found):
            found.append({name} | {other for other in reached[name] if name in reached[other]})
    return found


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for other in graph[left.pop()] - seen:
            seen.add(other)
            left.append(other)
    return seen


def test_a_folder_holds_no_more_modules_than_can_be_looked_over() -> None:
    counts = Counter(file.parent for file in modules())
    assert not {folder: n for folder, n in counts.items() if n > MODULES_A_FOLDER}


def test_a_file_name_stands_once_in_the_tree() -> None:
    names = Counter(file.name for file in modules())
    assert not {n for n, times in names.items() if times > 1} - {"__init__.py", "__main__.py"}


def test_the_api_and_the_work_know_no_dagster() -> None:
    code = (
        "import sys, imgflow.api.app, imgflow.work.batch, imgflow.work.pool;"
        "print([n for n in ('dagster', 'dagster_postgres', 'skimage') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_orchestration_and_the_ways_to_run_it_know_dagster() -> None:
    for file in modules():
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part in ("orchestration", "assembly", "definitions", "service", "doctor"):
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


def test_importing_the_assembly_has_no_side_effect() -> None:
    """Another project may log as it likes, and have variables of imgflow that are wrong."""
    code = (
        "import gc, logging, os\n"
        "os.environ |= {'IMGFLOW_LOG_FORMAT': 'json', 'IMGFLOW_RUNS': 'many'}\n"
        "import dagster\n"
        "before = logging.root.handlers[:], logging.root.level, gc.get_freeze_count()\n"
        "from imgflow.assembly import build_definitions\n"
        "from imgflow.settings.variables import Settings\n"
        "os.environ.pop('IMGFLOW_RUNS')\n"
        "settings = Settings()\n"
        "os.environ['IMGFLOW_RUNS'] = 'many'\n"
        "build_definitions(settings)\n"
        "assert before == (logging.root.handlers, logging.root.level, gc.get_freeze_count())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
