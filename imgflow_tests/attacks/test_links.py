"""Who may put files into the source folder reads, writes and deletes nothing else by links."""

from __future__ import annotations

import ctypes
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import pytest
from fastapi.testclient import TestClient

from imgflow.api.app import create_app
from imgflow.errors import BadKey, SettingsError, SourceChanged, Trouble
from imgflow.settings.tokens import own_key, own_token
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig
from imgflow.store.folder import beneath
from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.location import parse_location
from imgflow_tests.api.library import encoded, local
from imgflow_tests.orchestration.project import Project
from imgflow_tests.pictures import jpeg
from imgflow_tests.store.folders import keys_of, put, source_of

TOKEN = "the-operators-token"  # noqa: S105 - of these tests
BEARER = {"Authorization": f"Bearer {TOKEN}"}
RENAME_EXCHANGE = 2


@pytest.fixture(params=["openat2", "openat"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system call that resolves whole paths, and on kernels that have none."""
    if request.param == "openat":
        monkeypatch.setattr(beneath, "OPENAT2", -1)


@pytest.fixture
def project(
    make_settings: Callable[..., Settings], instance: dg.DagsterInstance, tmp_path: Path
) -> Project:
    (tmp_path / "in").mkdir()
    source_url = (tmp_path / "in").as_uri()
    return Project(make_settings(source_url=source_url, api_token=TOKEN), instance)


@contextmanager
def api(project: Project) -> Iterator[TestClient]:
    with local(create_app(project.settings)) as client:
        client.headers.update(BEARER)
        yield client


def everything_said(project: Project) -> bytes:
    """All that imgflow and Dagster keep: rows, events, runs, logs and outputs."""
    with project.catalog.engine.connect() as connection:
        tables = connection.exec_driver_sql(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        )
        said = [
            repr(connection.exec_driver_sql(f'SELECT * FROM "{name}"').all()).encode()  # noqa: S608 - our own tables
            for (name,) in tables.all()
        ]
    home = project.settings.home
    files = [file for file in home.rglob("*") if file.is_file() and not file.is_symlink()]
    secrets = {home / "api-token", home / "link-key"}
    return b"\n".join([*said, *(file.read_bytes() for file in files if file not in secrets)])


def test_links_in_the_source_hand_out_nothing(project: Project, tmp_path: Path) -> None:
    home, source = project.settings.home, project.source.location.folder
    private = tmp_path / "private" / "shadow"
    put(tmp_path, "private/shadow", b"root:" + uuid.uuid4().hex.encode())
    private.chmod(0o600)
    secrets = [private.read_text(), own_token(home), own_key(home)]
    put(source, "d/good.jpg", jpeg())
    links = {
        "token.jpg": home / "api-token",
        "d/token.csv": home / "api-token",
        "key.jpg": home / "link-key",
        "shadow.jpg": private,
        "relative.jpg": Path("../private/shadow"),
        "environ.jpg": Path("/proc/self/environ"),
        "fd.jpg": Path("/proc/self/fd/0"),
        "zero.jpg": Path("/dev/zero"),
        "folder": private.parent,
        "chain.jpg": Path("shadow.jpg"),
        "root": Path("/proc/self/root"),
        "home": home,
    }
    for name, target in links.items():
        (source / name).symlink_to(target)
    os.link(home / "api-token", source / "hard.jpg")
    os.link(home / "link-key", source / "d" / "hard.csv")

    report = project.ingest()
    assert (report.listed, report.processed, report.failed) == (1, 1, 0)
    tick = project.tick()
    assert "12 symbolic links are left out" in str(tick.skip_reason)
    assert {image.key for image in project.catalog.page(limit=100)} == {"d/good.jpg"}

    with api(project) as client:
        names = [*links, "folder/shadow", "home/api-token", "hard.jpg", "d/hard.csv"]
        for name in (*names, f"root{private}"):
            answer = client.get(f"/images/{encoded(name)}/original")
            assert answer.status_code == 404, name
            assert not any(secret in answer.text for secret in secrets)
            assert project.source.stat(name) is None
    said = everything_said(project)
    assert not [secret for secret in secrets if secret.encode() in said]
    assert not [secret for secret in secrets if secret[:20].encode() in said]


def test_an_image_that_is_swapped_for_a_link_after_it_was_listed_is_not_read(
    project: Project, tmp_path: Path
) -> None:
    source = project.source.location.folder
    secret = uuid.uuid4().hex
    put(tmp_path, "private/a.jpg", secret.encode())
    for key in ("a.jpg", "d/a.jpg", "kept.jpg"):
        put(source, key, jpeg())
    project.run_requests(project.tick())
    put(source, "e/a.jpg", jpeg(seed=2))
    put(source, "b.jpg", jpeg(seed=3))
    asked = project.tick()
    for key in ("a.jpg", "b.jpg"):
        (source / key).unlink()
        (source / key).symlink_to(tmp_path / "private" / "a.jpg")
    for folder in ("d", "e"):
        (source / folder / "a.jpg").unlink()
        (source / folder).rmdir()
        (source / folder).symlink_to(tmp_path / "private", target_is_directory=True)

    project.run_requests(asked)
    with api(project) as client:
        for key in ("a.jpg", "b.jpg", "d/a.jpg", "e/a.jpg"):
            answer = client.get(f"/images/{encoded(key)}/original")
            assert answer.status_code in (404, 410), key
            assert secret not in answer.text
    states = {image.key: image.state for image in project.catalog.page(limit=10)}
    assert "b.jpg" not in states
    assert "e/a.jpg" not in states
    assert secret.encode() not in everything_said(project)


def test_uploads_and_deletions_through_a_linked_folder_change_nothing_outside(
    project: Project, tmp_path: Path
) -> None:
    source = project.source.location.folder
    put(tmp_path, "outside/theirs.jpg", b"theirs")
    (source / "out").symlink_to(tmp_path / "outside", target_is_directory=True)
    (source / "home").symlink_to(project.settings.home, target_is_directory=True)
    (source / "dangling").symlink_to(tmp_path / "nowhere", target_is_directory=True)
    put(source, "once/theirs.jpg", jpeg())
    project.ingest()
    (source / "once" / "theirs.jpg").unlink()
    (source / "once").rmdir()
    (source / "once").symlink_to(tmp_path / "outside", target_is_directory=True)

    with api(project) as client:
        for key in ("out/x.jpg", "out/new/x.jpg", "home/x.jpg", "dangling/x.jpg", "once/x.jpg"):
            answer = client.put(f"/images/{encoded(key)}/original", content=jpeg())
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_key"), answer.text
            answer = client.delete(f"/images/{encoded(key)}?source=true")
            assert answer.status_code == 404
        client.delete(f"/images/{encoded('once/theirs.jpg')}?source=true")
    assert {path.name for path in (tmp_path / "outside").iterdir()} == {"theirs.jpg"}
    assert (tmp_path / "outside" / "theirs.jpg").read_bytes() == b"theirs"
    assert not (project.settings.home / "x.jpg").exists()
    assert not (tmp_path / "nowhere").exists()
    assert project.catalog.page(limit=10, state="pending") == []


def test_an_upload_over_a_link_replaces_the_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    put(tmp_path, "theirs.jpg", b"theirs")
    put(tmp_path, "new", b"new")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").symlink_to(tmp_path / "theirs.jpg")
    source_of(folder).upload("a.jpg", tmp_path / "new")
    assert (tmp_path / "theirs.jpg").read_bytes() == b"theirs"
    assert keys_of(source_of(folder)) == ["a.jpg"]


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("follow_links", [False, True])
def test_a_folder_that_is_swapped_for_a_link_all_the_time_leads_nowhere(
    tmp_path: Path, *, follow_links: bool
) -> None:
    put(tmp_path, "outside/a.jpg", b"secret" * 100)
    put(tmp_path, "new", b"new")
    put(tmp_path, "in/real/a.jpg", b"honest")
    (tmp_path / "in" / "d").symlink_to(tmp_path / "outside", target_is_directory=True)
    done = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        libc = ctypes.CDLL(None, use_errno=True)
        folders = [os.fsencode(tmp_path / "in" / name) for name in ("d", "real")]
        while not done.is_set():
            swaps += libc.renameat2(-100, folders[0], -100, folders[1], RENAME_EXCHANGE) == 0

    thread = threading.Thread(target=swap)
    thread.start()
    source = source_of(tmp_path / "in", follow_links=follow_links)
    sizes = set()
    try:
        for _ in range(300):
            with suppress(Trouble):
                sizes |= {found.size for found in source.list_page(None, 10).objects}
            with suppress(Trouble):
                announced = source.stat("d/a.jpg")
                if announced is not None:
                    sizes.add(announced.size)
                    sizes.add(len(source.read(announced)))
            with suppress(Trouble, BadKey):
                source.upload("d/b.jpg", tmp_path / "new")
            with suppress(Trouble):
                source.delete("d/b.jpg")
    finally:
        done.set()
        thread.join()
    assert swaps > 300, "it was a race"
    assert sizes <= {len(b"honest"), len(b"new")}
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["a.jpg"]


@pytest.mark.usefixtures("kernel")
def test_a_file_that_is_swapped_for_a_link_all_the_time_is_never_another(tmp_path: Path) -> None:
    put(tmp_path, "secret", b"secret" * 100)
    put(tmp_path, "in/a.jpg", b"honest")
    (tmp_path / "in" / "b.jpg").symlink_to(tmp_path / "secret")
    done = threading.Event()

    def swap() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        files = [os.fsencode(tmp_path / "in" / name) for name in ("a.jpg", "b.jpg")]
        while not done.is_set():
            libc.renameat2(-100, files[0], -100, files[1], RENAME_EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    source = source_of(tmp_path / "in")
    read = set()
    try:
        for _ in range(1_000):
            for found in source.list_page(None, 10).objects:
                with suppress(SourceChanged):
                    read.add(source.read(found))
    finally:
        done.set()
        thread.join()
    assert read == {b"honest"}


@pytest.mark.usefixtures("kernel")
def test_the_home_is_no_source_under_any_name(tmp_path: Path) -> None:
    """By inode alone, as where it is mounted a second time: nothing is excluded by its name."""
    home = tmp_path / "in" / "second name"
    for key in ("api-token", "postgres/base/1", "logs/up.log", "dagster/dagster.yaml"):
        put(home, key)
    put(tmp_path, "in/a.jpg")
    put(tmp_path, "in/outputs/thumbnail/a.jpg")
    put(tmp_path, "new", b"new")
    os.link(home / "logs" / "up.log", tmp_path / "in" / "hard.jpg")
    os.link(tmp_path / "in" / "a.jpg", tmp_path / "backup.jpg")
    location = parse_location((tmp_path / "in").as_uri(), setting="TEST")
    outputs = tmp_path / "in" / "outputs"
    for follow_links in (False, True):
        (tmp_path / "in" / "token.jpg").unlink(missing_ok=True)
        (tmp_path / "in" / "token.jpg").symlink_to("second name/api-token")
        source = FolderSource(location, home=home, apart=[outputs], follow_links=follow_links)
        assert keys_of(source) == ["a.jpg"], "a hard link that leads elsewhere is an honest one"
        for key in ("second name/api-token", "second name/logs/up.log", "hard.jpg", "token.jpg"):
            assert source.stat(key) is None
        for key in ("second name/x", "second name/logs/x", "second name/new/x", "outputs/x"):
            with pytest.raises(BadKey):
                source.upload(key, tmp_path / "new")
            source.delete(f"{key.rpartition('/')[0]}/api-token")
    assert (home / "api-token").exists()
    assert not (home / "new").exists()


@pytest.mark.parametrize("folder", ["", "postgres", "logs/old", "outputs", "dagster"])
def test_a_source_among_imgflows_own_files_is_refused(tmp_path: Path, folder: str) -> None:
    home = tmp_path / ".imgflow"
    (home / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(home / folder)
    for url in ((home / folder).as_uri(), (tmp_path / "link").as_uri()):
        with pytest.raises(SettingsError, match="IMGFLOW_HOME"):
            StoreConfig(url, f"{tmp_path.as_uri()}/out", home=str(home)).open_source()
    location = parse_location((home / folder).as_uri(), setting="TEST")
    with pytest.raises(Trouble, match="lies in IMGFLOW_HOME"):
        FolderSource(location, home=home).list_page(None, 10)


def test_the_root_of_the_file_system_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="root of the file system"):
        StoreConfig("file:///", tmp_path.as_uri(), home=str(tmp_path / "home")).open_source()
