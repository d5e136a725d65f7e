"""`imgflow migrate`: brings imgflow's and Dagster's tables to the versions that are installed.

imgflow's own tables come forward with every start. Dagster's do so only when somebody says it,
since its processes of an earlier version must have ended by then.
"""

from __future__ import annotations

from collections.abc import Callable

from imgflow.catalog.connecting import database_url, make_engine
from imgflow.catalog.postgres import PostgresCatalog
from imgflow.doctor import running_process
from imgflow.errors import SettingsError
from imgflow.orchestration.instance import is_outdated, open_instance
from imgflow.settings import Settings
from imgflow.store.opening import StoreConfig


def migrate(settings: Settings, say: Callable[[str], None]) -> None:
    """Bring all tables forward; saying it again changes nothing.

    Args:
        settings: of this project.
        say: shows one line to a person.

    Raises:
        SettingsError: imgflow runs in this home, or the database belongs to a newer version.
        Trouble: the database does not answer.
    """
    if process := running_process(settings.home):
        raise SettingsError(
            f"`imgflow up` runs in {settings.home} (process {process}). End it first; processes on "
            "other machines too."
        )
    url = database_url(settings)
    engine = make_engine(url)
    source, _ = StoreConfig(settings.source_url, settings.output_url).locations()
    try:
        PostgresCatalog(engine, source.url).migrate()
    finally:
        engine.dispose()
    say("The tables of imgflow are up to date.")
    with open_instance(settings, url) as instance:
        if is_outdated(instance):
            instance.upgrade(say)
    say("The tables of Dagster are up to date.")
