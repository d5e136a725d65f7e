"""Processes that bring one database's schema forward at the same moment."""

from __future__ import annotations

import subprocess
import sys

from imgflow_tests.patience import PATIENCE_SECONDS

MIGRATE = """
import sys
from imgflow.catalog.database.engine import make_engine
from imgflow.catalog.postgres.postgres_catalog import PostgresCatalog
sys.stdin.readline()
PostgresCatalog(make_engine(sys.argv[1]), "file:///in/").migrate()
"""


def migrate_at_once(database_url: str) -> None:
    """Have three processes migrate when all of them run; each must end well."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", MIGRATE, database_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=PATIENCE_SECONDS)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
