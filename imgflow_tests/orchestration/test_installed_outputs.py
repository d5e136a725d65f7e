"""Outputs that other packages add: the examples of the documentation, through the whole way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from imgflow.catalog.postgres.counters import read_state
from imgflow.errors import SettingsError
from imgflow.images.outputs import enabled_outputs, installed_outputs
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.status import read_status
from imgflow_tests.orchestration.project import Project
from imgflow_tests.patience import PATIENCE_SECONDS
from imgflow_tests.pictures import jpeg

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
UPLOADS = {"a.jpg": jpeg(300, 200, seed=1), "b/c.jpg": jpeg(120, 90, seed=2)}
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install modules as packages with an entry point each, as pip would."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(site))

    def add(name: str, target: str = "") -> None:
        info = site / f"example_{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: example-{name}\nVersion: 1\n")
        line = f"{name} = {target or f'{name}:OUTPUT'}"
        (info / "entry_points.txt").write_text(f"[imgflow.outputs]\n{line}\n")
        installed_outputs.cache_clear()

    yield add
    installed_outputs.cache_clear()


@pytest.fixture
def model() -> Iterator[str]:
    """A model that scores a picture by its width."""

    class Model(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with Image.open(io.BytesIO(body)) as image:
                answer = json.dumps({"score": image.width / 1000}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def output_of(project: Project, key: str, name: str) -> tuple[dict[str, Any], bytes]:
    record = dict(project.catalog.by_keys([key])[key].outputs[name])
    body = project.outputs.get(record["name"])
    assert body is not None
    return record, body


def check_blur(project: Project, _: Path) -> None:
    for key in UPLOADS:
        _, blurred = output_of(project, key, "blur")
        _, sharp = output_of(project, key, "thumbnail")
        edges = [
            np.abs(np.diff(np.asarray(Image.open(io.BytesIO(body)).convert("L"), int))).mean()
            for body in (blurred, sharp)
        ]
        assert edges[0] < edges[1]


def check_colorize(project: Project, _: Path) -> None:
    for key in UPLOADS:
        _, body = output_of(project, key, "colorize")
        red, _, blue = np.moveaxis(np.asarray(Image.open(io.BytesIO(body)), int), -1, 0)
        assert (red > blue).all()


def check_backup(project: Project, backups: Path) -> None:
    for key, upload in UPLOADS.items():
        record, body = output_of(project, key, "backup")
        copy = backups / hashlib.sha256(upload).hexdigest()
        assert copy.read_bytes() == upload
        assert json.loads(body)["copy"].endswith(copy.name)
        assert record["metadata"]["copy"].endswith(copy.name)


def check_score(project: Project, _: Path) -> None:
    for key, upload in UPLOADS.items():
        record, body = output_of(project, key, "score")
        expected = min(224, Image.open(io.BytesIO(upload)).width) / 1000
        assert record["metadata"] == json.loads(body) == {"score": expected}
        told = project.newest("photo/score", key).metadata["score"]
        assert told.value == expected


CHECKS = {
    "blur": check_blur,
    "colorize": check_colorize,
    "backup": check_backup,
    "score": check_score,
}
CHANGES = {
    "blur": {"radius": 2},
    "colorize": {"dark": "#000000"},
    "backup": {},
    "score": {"side": 99},
}


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_is_an_asset_with_no_op_and_stale_handling(
    name: str,
    install: Install,
    model: str,
    make_project: Callable[..., Project],
    tmp_path: Path,
) -> None:
    install(name)
    urls = {"backup": (tmp_path / "backups").as_uri(), "score": model}
    given = {"url": urls[name]} if name in urls else {}
    project = make_project(output_parameters=json.dumps({name: given}))
    for key, body in UPLOADS.items():
        path = project.source.location.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    first = project.ingest()
    assert (first.processed, first.failed) == (2, 0)
    assert project.statuses(f"photo/{name}") == dict.fromkeys(UPLOADS, "green")
    CHECKS[name](project, tmp_path / "backups")

    rows, stored = project.rows(), project.stored()
    again = project.ingest()
    assert (again.processed, again.unchanged) == (0, 2)
    assert (project.rows(), project.stored()) == (rows, stored)

    other = {"url": (tmp_path / "elsewhere").as_uri()} if name == "backup" else CHANGES[name]
    changed = make_project(output_parameters=json.dumps({name: {**given, **other}}))
    before = {key: dict(changed.catalog.by_keys([key])[key].outputs) for key in UPLOADS}
    changed.materialize(list(UPLOADS))
    for key in UPLOADS:
        after = changed.catalog.by_keys([key])[key].outputs
        assert after[name]["fingerprint"] != before[key][name]["fingerprint"]
        assert after["thumbnail"] == before[key]["thumbnail"]
        assert changed.newest(f"photo/{name}", key).metadata["noop"].value is False
        assert changed.newest("photo/thumbnail", key).metadata["noop"].value is True


def test_the_examples_are_short() -> None:
    found = {path.stem: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert set(found) == set(CHECKS)
    assert max(found.values()) <= 30


def test_a_model_that_is_away_keeps_its_image_waiting_and_rejects_nothing(
    install: Install, make_project: Callable[..., Project]
) -> None:
    install("score")
    project = make_project(output_parameters='{"score": {"url": "http://127.0.0.1:9"}}')
    (project.source.location.folder / "a.jpg").write_bytes(UPLOADS["a.jpg"])
    [run] = project.run_requests(project.tick())
    assert not run.success
    image = project.catalog.by_keys(["a.jpg"])["a.jpg"]
    assert (image.state, image.reason_code) == ("pending", "output_failed")
    assert "'score'" in str(image.reason)
    assert read_status(project.catalog).as_json()["reasons"] == {"output_failed": 1}
    reading = read_state(project.catalog.engine, project.catalog.source)
    assert reading.waiting == {("photo", "output_failed"): 1}


def test_every_installed_output_is_an_asset(
    install: Install, make_project: Callable[..., Project]
) -> None:
    for name in CHECKS:
        install(name)
    keys = make_project().definitions.resolve_all_asset_keys()
    assert {dg.AssetKey(["photo", name]) for name in CHECKS} <= set(keys)


@pytest.mark.parametrize(
    ("target", "part"),
    [("no_such_module:OUTPUT", "cannot be loaded"), ("blur:blur", "has to be a PhotoOutput")],
)
def test_a_package_that_cannot_be_used_is_named(install: Install, target: str, part: str) -> None:
    install("broken", target)
    with pytest.raises(SettingsError, match=f"example-broken.*{part}"):
        installed_outputs()


def test_a_name_that_is_taken_is_refused(install: Install) -> None:
    install("blur")
    install("zweimal", "blur:OUTPUT")
    with pytest.raises(SettingsError, match=r"example-zweimal.*another name"):
        installed_outputs()


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ((("blur", "radios", 1.0),), "blur.radios; known are: blur.radius"),
        ((("sharpen", "radius", 1.0),), "sharpen.radius"),
        ((("blur", "radius", "wide"),), "has to be a float"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(
    install: Install, parameters: tuple[tuple[str, str, Any], ...], part: str
) -> None:
    install("blur")
    with pytest.raises(SettingsError, match=part):
        enabled_outputs(PhotoRecipe(parameters=parameters))


def test_an_installed_output_has_a_route(install: Install) -> None:
    install("blur")
    # Routes are made when the module loads, so in a process of its own.
    script = (
        "from imgflow.api.routes.pictures import router; print([r.path for r in router.routes])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    assert "/images/{image}/blur" in done.stdout
