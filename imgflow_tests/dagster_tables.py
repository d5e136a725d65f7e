"""What imgflow reads of Dagster's own tables, for tests of those who do not import Dagster."""

from __future__ import annotations

import sqlalchemy as sa

STATEMENTS = (
    "CREATE TABLE instigators (status text, instigator_type text, instigator_body text)",
    "CREATE TABLE runs (status text, end_time float, update_timestamp timestamp)",
    """
    INSERT INTO instigators
    VALUES ('DECLARED_IN_CODE', 'SENSOR', '{"origin": {"job_name": "arrivals"}}')
    """,
)
RUNS = """
    INSERT INTO runs
    SELECT s, extract(epoch FROM now()) - n, now() - make_interval(secs => n)
    FROM (VALUES ('SUCCESS', 500), ('SUCCESS', 90), ('FAILURE', 5)) AS r(s, n)
"""


def add_sensor(engine: sa.Engine) -> None:
    """Let Dagster's daemon have seen the sensor `arrivals`."""
    with engine.begin() as connection:
        for statement in STATEMENTS:
            connection.exec_driver_sql(statement)


def add_runs(engine: sa.Engine) -> None:
    """Let two runs have gone well, the last one 90 seconds ago, and another have failed since."""
    with engine.begin() as connection:
        connection.exec_driver_sql(RUNS)
