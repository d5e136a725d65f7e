"""Other users of the machine look into nothing that imgflow keeps."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.doctor.machine_checks import check_home
from imgflow.home import make_home
from imgflow.orchestration.dagster_storage.instance import prepare_dagster_home
from imgflow.service.supervision.processes import Service
from imgflow.settings.tokens import own_token
from imgflow.settings.variables import Settings
from imgflow.store.config import StoreConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def nobody() -> Iterator[None]:
    """As another user, where the tests run as root."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65_534)
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def test_folders_that_imgflow_makes_are_for_its_user_only(
    make_settings: Callable[..., Settings], home: Path
) -> None:
    settings = make_settings()
    own_token(home)
    prepare_dagster_home(settings)
    stores = StoreConfig(settings.source_url, settings.output_url, home=str(home))
    stores.make_default_source()
    stores.open_outputs()
    service = Service("true", ["true"], os.environ, home / "logs" / "true.log")
    service.start()
    assert service.process is not None
    service.process.wait()
    for folder in (home, *(home / name for name in ("dagster", "source", "outputs", "logs"))):
        assert mode(folder) == 0o700, folder


def test_a_home_that_others_could_look_into_is_named_and_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    own_token(home)
    home.chmod(0o755)
    (finding,) = check_home(home)
    assert finding.state == "wrong"
    assert "every user of this machine" in finding.text
    make_home(home)
    assert mode(home) == 0o700
    (finding,) = check_home(home)
    assert finding.state == "ok"


def test_a_folder_that_is_a_home_by_mistake_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o777)
    (tmp_path / "shared").chmod(0o1777)
    make_home(tmp_path / "shared")
    assert mode(tmp_path / "shared") == 0o1777


def test_the_database_in_the_home_opens_it_to_nobody_else(tmp_path: Path) -> None:
    """The server of root runs as another user, and pgserver would let everybody pass."""
    home = tmp_path / "home"
    server = EmbeddedPostgres(home)
    try:
        assert mode(home) & 0o007 == 0
        (finding,) = check_home(home)
        assert finding.state == "ok"
        (home / "api-token").write_text("secret")
        with nobody(), pytest.raises(PermissionError):
            (home / "api-token").stat()
        server.ensure_running()
        assert mode(home) & 0o007 == 0
    finally:
        server.close()


def test_secrets_of_the_compose_file_are_for_their_owner_only(tmp_path: Path) -> None:
    with (tmp_path / ".env").open("w") as file:
        subprocess.run(["sh", ROOT / "deploy" / "make-env.sh"], stdout=file, check=True)
    assert mode(tmp_path / ".env") == 0o600
    assert "POSTGRES_PASSWORD=" in (tmp_path / ".env").read_text()
