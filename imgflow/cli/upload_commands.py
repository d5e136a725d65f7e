"""Commands about objects in the source, which need no catalogue: upload, presign."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from imgflow.cli.common import people, put, read_settings, say
from imgflow.errors import SettingsError


def upload(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", exists=True)],
    prefix: Annotated[str, typer.Option(help="Put before every key.")] = "",
) -> None:
    """Upload files and folders into the source; those that are there unchanged are skipped."""
    from imgflow.cli.bulk_upload import upload_all

    settings = read_settings()
    settings.stores.make_default_source()
    source = settings.stores.open_source()
    done = upload_all(source, paths, prefix=prefix, progress=partial(put, console=people))
    say(f"{done.uploaded} uploaded, {done.skipped} unchanged, to {source.location.url}")


def presign(
    key: Annotated[str, typer.Argument(help="Object key below the source's prefix.")],
    expires: Annotated[
        int, typer.Option(min=1, max=604_800, help="Seconds for which the URL works.")
    ] = 3_600,
) -> None:
    """Print a URL under which anyone can read an uploaded object for a while."""
    from imgflow.store.s3.source_bucket import S3Source

    source = read_settings().stores.open_source()
    if not isinstance(source, S3Source):
        raise SettingsError(
            f"{source.location.url} is a folder; only objects of a bucket have presigned URLs. "
            "Set IMGFLOW_SOURCE_URL to s3://bucket/prefix."
        )
    print(source.presign(key, expires))
