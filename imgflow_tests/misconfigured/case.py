"""A project whose settings are changed until something is wrong, and what the doctor says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg2
import pytest

from imgflow.doctor.all_checks import all_checks
from imgflow.doctor.findings import Finding, examine
from imgflow.settings.variables import Settings
from imgflow_tests.ceph import free_port

# What no line of the doctor may show, whatever is wrong.
SECRETS = ("imgflow-secret", "secret-0123456789", "s3cr3t")


@dataclass
class Case:
    """Settings that a test makes wrong, in a bucket or in folders.

    Attributes:
        make: settings of keyword arguments, see `make_settings`.
        values: of the settings so far.
        home: of this project.
        database_url: of an administrator.
        environment: sets and removes variables until the test ends.
    """

    make: Callable[..., Settings]
    home: Path
    database_url: str
    environment: pytest.MonkeyPatch
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        ports = {"dagster_port": free_port(), "api_port": free_port()}
        return self.make(**{**ports, **self.values})

    def found(self) -> dict[str, Finding]:
        """The worst finding of each part."""
        worst: dict[str, Finding] = {}
        order = ["ok", "notice", "wrong"]
        for finding in examine(all_checks(self.settings)):
            known = worst.get(finding.part)
            if known is None or order.index(finding.state) > order.index(known.state):
                worst[finding.part] = finding
            for secret in SECRETS:
                assert secret not in finding.text
        return worst

    def use_role(self, name: str, password: str = "") -> None:
        """Have another role in the URL of the database."""
        parts = urlsplit(self.database_url)
        host = parts.netloc.rpartition("@")[2]
        user = f"{name}:{quote(password)}" if password else name
        self.values["database_url"] = urlunsplit(parts._replace(netloc=f"{user}@{host}"))

    def sql(self, *statements: str) -> str:
        """Ask or change something as the administrator of the database."""
        connection = psycopg2.connect(self.database_url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            answer = str(cursor.fetchone()[0]) if cursor.description else ""
        connection.close()
        return answer

    def use_moto(self, arguments: dict[str, str]) -> None:
        """Have the variables point to moto, which has regions and queues."""
        self.environment.setenv("AWS_ENDPOINT_URL", arguments["endpoint_url"])
        self.environment.setenv("AWS_ACCESS_KEY_ID", arguments["aws_access_key_id"])
        self.environment.setenv("AWS_SECRET_ACCESS_KEY", arguments["aws_secret_access_key"])
        self.environment.setenv("AWS_DEFAULT_REGION", arguments["region_name"])

    @contextmanager
    def role(self, name: str, options: str = "") -> Iterator[None]:
        """A role that exists within the block."""
        self.sql(f"CREATE ROLE {name} LOGIN {options}")
        try:
            yield
        finally:
            self.sql(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


Fixture = Callable[[str], Any]
Arrange = Callable[[Case, Fixture], Iterator[None]]


class Misconfigurations(dict[str, tuple[str, Arrange]]):
    """By what is wrong: a piece of the fix, and how to make it so."""

    def wrong(self, name: str, advice: str) -> Callable[[Arrange], Arrange]:
        """Enter what is decorated."""

        def enter(arrange: Arrange) -> Arrange:
            self[name] = advice, arrange
            return arrange

        return enter
