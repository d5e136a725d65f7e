"""`imgflow up`: runs database, code server, Dagster UI, daemon and API on one machine until Ctrl-C.

Restarting what fails is in `supervision`; the home's lock and signals are in `up_lock`.
"""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import yaml

from imgflow.api.backend.signatures import sign_in_link
from imgflow.catalog.database.embedded_postgres import close_embedded_postgres, embedded_postgres
from imgflow.catalog.database.engine import database_url, make_engine, up_name
from imgflow.catalog.postgres.ownership import claim
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
from imgflow.catalog.postgres.sensing import expect_ticks, sensor_names
from imgflow.errors import SettingsError, Trouble
from imgflow.observability.traces import check_traces
from imgflow.orchestration.dagster_storage.instance import check_storage, environment, open_instance
from imgflow.service.code_socket import code_socket
from imgflow.service.supervision.alarm import Alarm
from imgflow.service.supervision.probes import (
    DAEMON_SILENT_SECONDS,
    DaemonBeats,
    Probe,
    ask_code_server,
    ask_page,
)
from imgflow.service.supervision.processes import Service, end_all
from imgflow.service.supervision.supervisor import Supervisor, ended
from imgflow.service.supervision.watching import Watch
from imgflow.service.up_lock import (
    Interrupted,
    ignore_further,
    interrupted,
    interruptible,
    only_one,
)
from imgflow.settings.tokens import FILE_NAME, own_token
from imgflow.settings.variables import Settings
from imgflow.store.disks import places

# For services without access control. The API has it, and may listen elsewhere.
LOOPBACK = "127.0.0.1"

# Threads of the code server: enough that ticks, run starts and probes never wait for each other.
CODE_THREADS = 16

READY_SECONDS = 120.0
LOOK_SECONDS = 1.0
TRY_AGAIN_SECONDS = 5.0

Say = Callable[[str], None]
Answer = TypeVar("Answer")


def up(settings: Settings, say: Say, *, with_samples: bool = False) -> None:
    """Start everything, show progress with `say`, and stop everything at a signal.

    Raises:
        SettingsError: imgflow runs already, a port is taken, or a part did not start.
        Trouble: The source or the database does not answer.
    """
    settings.check_api_access()
    check_traces(settings.traces)
    with interruptible(), only_one(settings):
        _check_port(LOOPBACK, settings.dagster_port, "IMGFLOW_DAGSTER_PORT")
        _check_port(settings.api_host, settings.api_port, "IMGFLOW_API_PORT")
        services: list[Service] = []
        with code_socket(settings.home) as code:
            try:
                catalog = _when_reachable(
                    lambda: _prepare(settings, say, with_samples=with_samples), say
                )
                services += _services(settings, database_url(settings), code)
                _start(settings, services, code, say)
                _watch(settings, services, code, catalog, say)
            except Interrupted:
                say("Stopping …")
            finally:
                ignore_further()
                end_all(services)
                close_embedded_postgres(settings.home)
    say("Stopped.")


def _when_reachable(prepare: Callable[[], Answer], say: Say) -> Answer:
    """Retry until everything external answers, showing what does not."""
    while True:
        try:
            return prepare()
        except Trouble as trouble:
            say(f"{trouble} Trying again in {TRY_AGAIN_SECONDS:g} seconds; Ctrl-C ends it.")
            time.sleep(TRY_AGAIN_SECONDS)


def _prepare(settings: Settings, say: Say, *, with_samples: bool) -> PostgresCatalog:
    """Prepare stores, database and Dagster's home, once and before anything starts."""
    stores = settings.stores
    source_location, output_location = stores.locations()
    stores.make_default_source()
    source = stores.open_source()
    source.check()
    outputs = stores.open_outputs()
    say(f"Source    {source_location.url}")
    say(f"Outputs   {output_location.url}")
    url = database_url(settings)
    engine = make_engine(url, application=up_name(settings.home))
    catalog = PostgresCatalog(engine, source_location.url)
    catalog.migrate()
    claim(catalog, outputs)
    # Makes Dagster's tables now, since otherwise several processes would try at the same time.
    with open_instance(settings, url) as instance:
        check_storage(instance)
    # Count overdue ticks only from now on, not from the last time that imgflow stopped.
    expect_ticks(engine, source_location.url, sensor_names(settings))
    if with_samples:
        from imgflow.service.samples import upload_samples  # and numpy, at this one start only

        if count := upload_samples(source):
            say(f"{count} samples put into {source.location.url}")
    return catalog


def _services(settings: Settings, url: str, code: Path) -> list[Service]:
    """Return the four processes besides the database."""
    variables = {**os.environ, **environment(settings, url)}
    home = settings.home / "dagster"
    workspace = home / "workspace.yaml"
    server = {"socket": str(code), "location_name": "imgflow"}
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
            # `dagster code-server start` would start this process too, but not restart it.
            "code-server", scripts / "dagster", "api", "grpc",
            "--socket", code, "-m", "imgflow.definitions", "--max-workers", CODE_THREADS,
            "--location-name", "imgflow", "--log-level", settings.log_level, *dagster_log,
        ),
        service(
            "api", sys.executable, "-m", "imgflow.api",
        ),
        service(
            "daemon", scripts / "dagster-daemon", "run", "-w", workspace,
            "--log-level", settings.log_level, *dagster_log,
        ),
        service(
            "webserver", sys.executable, "-m", "imgflow.service.webserver", "-w", workspace,
            "-h", LOOPBACK, "-p", settings.dagster_port,
            "--dagster-log-level", settings.log_level, *dagster_log,
        ),
    ]  # fmt: skip


def _start(settings: Settings, services: list[Service], code: Path, say: Say) -> None:
    """Start the services, and wait until both pages answer."""
    is_first = not (settings.home / FILE_NAME).exists()
    questions = _questions(settings, code)
    code_server, *others = services
    code_server.start()
    _wait(services, code_server, questions["code-server"])
    for service in others:
        service.start()
    for service in others:
        if service.name in questions:
            _wait(services, service, questions[service.name])
    say(f"Dagster   {_dagster_page(settings)}")
    say(f"Gallery   {sign_in_link(settings)}")
    say("          signs in once, within 15 minutes; `imgflow sign-in` prints a new link")
    say(f"API       {settings.links_url}/docs")
    say(f"Token     {_place_of_token(settings)}, which API calls need")
    if is_first and not settings.api_token:
        say(f"          {own_token(settings.home)} (shown this once)")
    say(f"Logs      {code_server.log.parent}")
    say("Ready. Ctrl-C stops everything.")


def _questions(settings: Settings, code: Path) -> dict[str, Callable[[], None]]:
    """Return a question for each service that has one; it raises until the service is ready."""
    return {
        "code-server": partial(ask_code_server, f"unix:{code}"),
        "webserver": partial(ask_page, f"{_dagster_page(settings)}/server_info"),
        "api": partial(ask_page, f"{settings.api_url}/health/"),
    }


def _dagster_page(settings: Settings) -> str:
    return f"http://{LOOPBACK}:{settings.dagster_port}"


def _place_of_token(settings: Settings) -> str:
    """Return where to find the API's token; only the first start shows its value.

    The API made the one in the home when it started.
    """
    return "IMGFLOW_API_TOKEN" if settings.api_token else str(settings.home / FILE_NAME)


def _wait(services: list[Service], service: Service, question: Callable[[], None]) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while not _answers(question):
        for other in services:
            if other.process is not None and other.has_ended() is not None:
                raise SettingsError(ended(other))
        if time.monotonic() > give_up:
            raise SettingsError(
                f"The {service.name} did not answer within {READY_SECONDS:g} seconds; its log, "
                f"{service.log}, ends:\n{service.tail()}"
            )
        time.sleep(0.1)


def _watch(
    settings: Settings, services: list[Service], code: Path, catalog: PostgresCatalog, say: Say
) -> None:
    """Restart what does not work, and show what becomes of the images, until a signal comes."""
    embedded = None if settings.database_url else embedded_postgres(settings.home)
    probes = {name: Probe(question) for name, question in _questions(settings, code).items()}
    probes["daemon"] = Probe(DaemonBeats(catalog.engine), silent_seconds=DAEMON_SILENT_SECONDS)
    supervisor = Supervisor(services, probes, embedded.processes if embedded else tuple, say)
    watch = Watch(
        catalog,
        sensor_names(settings),
        places(settings.home, *settings.stores.locations()),
        embedded,
        Alarm(settings.alert_urls, settings.alert_minutes, say),
    )
    try:
        watch.start()
        for probe in probes.values():
            probe.start()
        while True:
            if interrupted():  # exceptions raised within a finaliser get lost
                raise Interrupted
            supervisor.look(is_hard=watch.is_hard)
            for line in watch.news():
                say(line)
            if watch.do_ticks_hang:
                watch.ticks_were_restarted()
                for name in ("code-server", "daemon"):
                    supervisor.restart(name, "lets no tick of the sensors end")
            time.sleep(LOOK_SECONDS)
    finally:
        watch.stop()
        for probe in probes.values():
            probe.stop()


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


def _answers(question: Callable[[], None]) -> bool:
    try:
        question()
    except (OSError, grpc.RpcError):  # from a page or socket, and from the code server
        return False
    return True
