"""The command `imgflow`; each subcommand imports what it needs, so that `--help` is quick."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from imgflow.commands import images, service, uploads
from imgflow.commands.opening import say
from imgflow.errors import ImgflowError, SettingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Every image landing in a bucket becomes materialised Dagster assets.",
)
# In the order in which `--help` lists them.
for command in (
    service.up,
    service.sign_in,
    service.migrate,
    service.ingest,
    images.status,
    images.show,
    service.doctor,
    service.alert,
    service.iam,
    uploads.upload,
    images.retry,
    images.backfill,
    images.delete,
    uploads.presign,
    images.frame,
):
    app.command()(command)


def main() -> NoReturn:
    """Run the command; what went wrong is one sentence, and a traceback only for our own errors."""
    try:
        app(standalone_mode=True)
    except SettingsError as error:
        say(f"imgflow: {error}")
        sys.exit(2)
    except ImgflowError as error:
        say(f"imgflow: {error}")
        sys.exit(1)
    sys.exit(0)
