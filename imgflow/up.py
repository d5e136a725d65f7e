"""`imgflow up`: database, code server, Dagster UI, daemon and API on one machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from imgflow.api.signatures import sign_in_link
from imgflow.catalog.connecting import database_url, make_engine, up_name
from imgflow.catalog.embedded import close_embedded_postgres, embedded_postgres
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.errors import SettingsError, Trouble
from imgflow.observability.traces import check_traces
from imgflow.orchestration.instance import check_storage, environment, open_instance
from imgflow.processes import Service, end_all
from imgflow.running import only_one
from imgflow.samples import upload_samples
from imgflow.settings import Settings
from imgflow.status import read_status
from imgflow.store.opening import StoreConfig, make_default_source
from imgflow.tokens import FILE_NAME, own_token

# Of what does not ask who is calling. The API does, and may listen elsewhere.
LOOPBACK = "127.0.0.1"

READY_SECONDS = 120.0
LOOK_SECONDS = 1.0
TRY_AGAIN_SECONDS = 5.0

Say = Callable[[str], None]
Answer = TypeVar("Answer")


class Interrupted(Exception):
    """SIGINT or SIGTERM arrived."""


def up(settings: Settings, say: Say, *, with_samples: bool = False) -> None:
    """Start everything, show progress, and stop everything when asked to.

    Args:
        settings: of this start.
        say: shows one line to a person.
        with_samples: put sample input into the source, for a first look.

    Raises:
        SettingsError: it runs already, a port is taken, or a part did not start.
        Trouble: the source or the database does not answer.
    """
    settings.check_api_access()
    check_traces(settings.traces)
    with _signals(), only_one(settings):
        _check_port(LOOPBACK, settings.dagster_port, "IMGFLOW_DAGSTER_PORT")
        _check_port(settings.api_host, settings.api_port, "IMGFLOW_API_PORT")
        services: list[Service] = []
        try:
            catalog = _when_reachable(
                lambda: _prepare(settings, say, with_samples=with_samples), say
            )
            services += _services(settings, database_url(settings))
            _start(settings, services, say)
            _watch(settings, services, catalog, say)
        except Interrupted:
            say("Stopping …")
        finally:
            end_all(services)
            close_embedded_postgres(settings.home)
    say("Stopped.")


def _when_reachable(prepare: Callable[[], Answer], say: Say) -> Answer:
    """Wait for what does not answer yet, saying what it is."""
    while True:
        try:
            return prepare()
        except Trouble as trouble:
            say(f"{trouble} Trying again in {TRY_AGAIN_SECONDS:g} seconds; Ctrl-C ends it.")
            time.sleep(TRY_AGAIN_SECONDS)


def _prepare(settings: Settings, say: Say, *, with_samples: bool) -> PostgresCatalog:
    """See to stores, database and Dagster home, once and before anything starts."""
    stores = StoreConfig(
        settings.source_url, settings.output_url, settings.s3_checksums, str(settings.home)
    )
    source_location, output_location = stores.locations()
    make_default_source(source_location, settings.home)
    source = stores.open_source()
    source.check()
    stores.open_outputs()
    say(f"Source    {source_location.url}")
    say(f"Outputs   {output_location.url}")
    url = database_url(settings)
    engine = make_engine(url, application=up_name(settings.home))
    catalog = PostgresCatalog(engine, source_location.url)
    catalog.migrate()
    # Makes Dagster's tables, which several processes at once would each begin to make.
    with open_instance(settings, url) as instance:
        check_storage(instance)
    if with_samples and (count := upload_samples(source)):
        say(f"{count} samples put into {source.location.url}")
    return catalog


def _services(settings: Settings, url: str) -> list[Service]:
    """The four processes beside the database."""
    variables = {**os.environ, **environment(settings, url)}
    home = settings.home / "dagster"
    code_port = _free_port()
    workspace = home / "workspace.yaml"
    server = {"host": LOOPBACK, "port": code_port, "location_name": "imgflow"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    scripts = Path(sysconfig.get_path("scripts"))
    logs = settings.home / "logs"

    is_json = settings.log_format == "json"
    dagster_log = ("--log-format", "json") if is_json else ()

    def service(name: str, *command: str | Path | int) -> Service:
        words = [str(part) for part in command]
        return Service(name, words, variables, logs / f"{name}.log", is_json=is_json)

    return [
        service(
            "code-server", scripts / "dagster", "code-server", "start",
            "-h", LOOPBACK, "-p", code_port, "-m", "imgflow.definitions",
            "--location-name", "imgflow", "--log-level", settings.log_level, *dagster_log,
        ),
        service(
            "api", sys.executable, "-m", "uvicorn", "--factory", "imgflow.api.app:create_app",
            "--host", settings.api_host, "--port", settings.api_port, "--no-server-header",
            "--log-level", settings.log_level,
        ),
        service(
            "daemon", scripts / "dagster-daemon", "run", "-w", workspace,
            "--log-level", settings.log_level, *dagster_log,
        ),
        service(
            "webserver", scripts / "dagster-webserver", "-w", workspace,
            "-h", LOOPBACK, "-p", settings.dagster_port,
            "--dagster-log-level", settings.log_level, *dagster_log,
        ),
    ]  # fmt: skip


def _start(settings: Settings, services: list[Service], say: Say) -> None:
    """Start the services, and wait until both pages answer."""
    is_first = not (settings.home / FILE_NAME).exists()
    code_server, *others = services
    code_server.start()
    port = int(code_server.command[code_server.command.index("-p") + 1])
    _wait(services, code_server, lambda: _listens(port))
    for service in others:
        service.start()
    pages = {
        "webserver": f"http://127.0.0.1:{settings.dagster_port}",
        "api": settings.api_url,
    }
    for service in others:
        if service.name in pages:
            page = f"{pages[service.name]}/{'health/' if service.name == 'api' else 'server_info'}"
            _wait(services, service, partial(_answers, page))
    say(f"Dagster   {pages['webserver']}")
    say(f"Gallery   {sign_in_link(settings)}")
    say("          signs in once, within 15 minutes; `imgflow sign-in` prints a new link")
    say(f"API       {settings.links_url}/docs")
    say(f"Token     {_place_of_token(settings)}, which API calls need")
    if is_first and not settings.api_token:
        say(f"          {own_token(settings.home)} (shown this once)")
    say(f"Logs      {code_server.log.parent}")
    say("Ready. Ctrl-C stops everything.")


def _place_of_token(settings: Settings) -> str:
    """Where the API's token is to be found; its value is shown at the first start only.

    The API has made the one in the home when it started.
    """
    return "IMGFLOW_API_TOKEN" if settings.api_token else str(settings.home / FILE_NAME)


def _wait(services: list[Service], service: Service, is_ready: Callable[[], bool]) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while not is_ready():
        for other in services:
            if other.process is not None and other.has_ended() is not None:
                raise SettingsError(_ended(other))
        if time.monotonic() > give_up:
            raise SettingsError(
                f"The {service.name} did not answer within {READY_SECONDS:g} seconds; its log, "
                f"{service.log}, ends:\n{service.tail()}"
            )
        time.sleep(0.1)


def _watch(settings: Settings, services: list[Service], catalog: PostgresCatalog, say: Say) -> None:
    """Restart what ends, and say what became of the images, until a signal comes."""
    shown = ""
    while True:
        if _interrupted:  # raised within a finaliser, an exception gets lost
            raise Interrupted
        for service in services:
            if service.has_ended() is None:
                continue
            if service.is_hopeless():
                raise SettingsError(_ended(service))
            say(f"The {service.name} ended with {service.has_ended()} and is started again.")
            service.start()
        try:
            line = read_status(catalog).line()
        except Trouble as trouble:
            line = str(trouble)
            if not settings.database_url:
                embedded_postgres(settings.home).ensure_running()
        if line != shown:
            say(line)
            shown = line
        time.sleep(LOOK_SECONDS)


def _ended(service: Service) -> str:
    return (
        f"The {service.name} ended with {service.has_ended()}; its log, {service.log}, ends:\n"
        f"{service.tail()}"
    )


_interrupted: list[bool] = []
"""Holds something once a signal came."""


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`, and ignore further ones."""

    def interrupt(_number: int, _frame: object) -> None:
        _interrupted.append(True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Interrupted

    _interrupted.clear()
    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_port(host: str, port: int, setting: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"Port {port} cannot be used ({error.strerror}); end what uses it, or set "
                f"{setting}."
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own pages
            return True
    except (urllib.error.URLError, OSError):
        return False
