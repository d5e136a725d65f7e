"""The Typer app of the command `imgflow`, with all subcommands.

Each subcommand imports what it needs itself, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from imgflow.cli import image_commands, service_commands, upload_commands
from imgflow.cli.common import say
from imgflow.errors import ImgflowError, SettingsError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Every image landing in a bucket becomes materialised Dagster assets.",
)
# `--help` lists them in this order.
for command in (
    service_commands.up,
    service_commands.sign_in,
    service_commands.migrate,
    service_commands.ingest,
    image_commands.status,
    image_commands.show,
    service_commands.doctor,
    service_commands.alert,
    service_commands.iam,
    upload_commands.upload,
    image_commands.retry,
    image_commands.backfill,
    image_commands.delete,
    upload_commands.presign,
    image_commands.frame,
):
    app.command()(command)


def main() -> NoReturn:
    """Run the command; errors print one sentence, and only bugs of imgflow print a traceback."""
    try:
        app(standalone_mode=True)
    except SettingsError as error:
        say(f"imgflow: {error}")
        sys.exit(2)
    except ImgflowError as error:
        say(f"imgflow: {error}")
        sys.exit(1)
    sys.exit(0)
