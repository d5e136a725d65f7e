"""What a model test has in place of queue, pool and server, so that a story takes seconds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence

import psycopg2

from imgflow.catalog.database.embedded_postgres import EmbeddedPostgres
from imgflow.store.s3.sqs import Message
from imgflow.work import photographs
from imgflow.work.tasks import Outcome, Task, WorkerConfig


class Mailbox:
    """A queue that gives out everything at once; what is not deleted stays."""

    def __init__(self, bodies: Sequence[str]) -> None:
        self.messages = [
            Message(str(number), body.encode(), str(number)) for number, body in enumerate(bodies)
        ]

    def receive(self) -> list[Message]:
        return list(self.messages)

    def delete(self, messages: Sequence[Message]) -> int:
        self.messages = [message for message in self.messages if message not in messages]
        return 0


class InlinePool:
    """Does in this process what worker processes do; the pool has tests of its own."""

    def __init__(self, config: WorkerConfig, _workers: int) -> None:
        photographs._config[:] = [config]
        photographs.this_worker.cache_clear()

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        photographs.this_worker.cache_clear()

    def outcomes(
        self,
        tasks: Sequence[Task],
        work: Callable[[Task], Outcome],
        _seconds: float,
        *,
        together: int,
    ) -> Iterator[tuple[Task, Outcome]]:
        del together
        for task in tasks:
            yield task, work(task)


class Databases:
    """Fresh databases with all tables, which takes a second only for the first."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self._names: list[str] = []
        # Nothing is to outlast the test, and half of its time would be waiting for the disk.
        self._execute("ALTER SYSTEM SET fsync = off")
        self._execute("SELECT pg_reload_conf()")

    def _execute(self, statement: str) -> None:
        connection = psycopg2.connect(self._postgres.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def make(self) -> str:
        name = f"model{uuid.uuid4().hex[:12]}"
        template = f" TEMPLATE {self._names[0]}" if self._names else ""
        self._execute(f"CREATE DATABASE {name}{template}")
        self._names.append(name)
        return self._postgres.url.replace("/imgflow?", f"/{name}?")

    def drop(self) -> None:
        for name in self._names:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")
        self._execute("ALTER SYSTEM RESET fsync")
        self._execute("SELECT pg_reload_conf()")
