"""From settings to open stores: which class serves a URL, and what a source does not list.

Parsing a single URL is in `location`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imgflow.errors import SettingsError
from imgflow.home import make_folder
from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.location import Checksums, Location, parse_location
from imgflow.store.naming import OUTPUT_FOLDERS, is_exact
from imgflow.store.objects import Source
from imgflow.store.output_store import OutputStore

# The only folder of the home that holds uploads.
SOURCE_IN_HOME = "source/"


@dataclass(frozen=True)
class StoreConfig:
    """What it takes to open the stores, small enough to send to every worker process.

    Attributes:
        source_url: Where images land.
        output_url: Where outputs are written.
        checksums: Whether uploads carry a CRC32.
        home: Folder of the embedded database and of Dagster's home; empty for none. If the source
            folder contains it, its files are not images.
        follow_links: Whether to follow links in a source folder to files below that folder.
    """

    source_url: str
    output_url: str
    checksums: Checksums = "when_supported"
    home: str = ""
    follow_links: bool = False

    def locations(self) -> tuple[Location, Location]:
        """Parse both URLs, and refuse a pair whose outputs would be processed as uploads.

        Raises:
            SettingsError: A URL cannot be parsed, or outputs would land among the images and look
                like them.
        """
        source = parse_location(self.source_url, setting="IMGFLOW_SOURCE_URL")
        output = parse_location(self.output_url, setting="IMGFLOW_OUTPUT_URL")
        if source == output:
            raise SettingsError(
                f"IMGFLOW_SOURCE_URL and IMGFLOW_OUTPUT_URL are the same ({source.url}): every "
                "output would be taken for an upload. Give the outputs a prefix of their own."
            )
        if output.scheme == "s3" and not is_exact(output.prefix + OUTPUT_FOLDERS[0] + "name"):
            raise SettingsError(
                f"IMGFLOW_OUTPUT_URL ({output.url}) has an empty part, `.`, `..` or a control "
                "character in its prefix, which outputs cannot be written under. Choose another."
            )
        inside = source.below(output)
        if inside and inside.startswith(OUTPUT_FOLDERS):
            raise SettingsError(
                f"IMGFLOW_SOURCE_URL ({source.url}) lies where outputs are written: below "
                f"IMGFLOW_OUTPUT_URL, in a folder named like an output. Choose another prefix."
            )
        self._refuse_own_files(source)
        return source, output

    def _refuse_own_files(self, source: Location) -> None:
        if source.scheme == "file" and not source.prefix:
            raise SettingsError(
                "IMGFLOW_SOURCE_URL (file:///) is the root of the file system, with all secrets of "
                "this machine. Choose a folder."
            )
        inside = source.below(self._home) if self._home else None
        if inside == "":
            raise SettingsError(
                f"IMGFLOW_SOURCE_URL ({source.url}) is IMGFLOW_HOME, where the database lies. "
                "Choose its folder `source`, or another folder, or another home."
            )
        if inside is not None and not inside.startswith(SOURCE_IN_HOME):
            raise SettingsError(
                f"IMGFLOW_SOURCE_URL ({source.url}) lies in IMGFLOW_HOME, among imgflow's own "
                "files. Choose the folder `source` in the home, or one outside of it."
            )

    def make_default_source(self) -> None:
        """Create the source folder if it is in the home; elsewhere, a disk may not be mounted."""
        source = self.locations()[0]
        if self.home and source.scheme == "file" and source.folder.is_relative_to(self.home):
            make_folder(source.folder)

    @property
    def is_remote(self) -> bool:
        """Whether bytes travel over a network."""
        return any(location.scheme == "s3" for location in self.locations())

    @property
    def _home(self) -> Location | None:
        if not self.home:
            return None
        return parse_location(Path(self.home).absolute().as_uri(), setting="IMGFLOW_HOME")

    def open_source(self) -> Source:
        """Open the source; keys below the output location and the home are never listed."""
        source, output = self.locations()
        inside = [place.below(source) for place in (output, self._home) if place is not None]
        exclude = tuple(prefix for prefix in inside if prefix)
        if source.scheme == "s3":
            from imgflow.store.s3.source_bucket import (
                S3Source,  # imports boto3, which a folder does not need
            )

            return S3Source(source, exclude, checksums=self.checksums)
        return FolderSource(
            source,
            exclude,
            home=self._home.folder if self._home else None,
            apart=[output.folder] if output.scheme == "file" else [],
            follow_links=self.follow_links,
        )

    def open_outputs(self) -> OutputStore:
        """Open the output store; a folder in the home is created for this user only."""
        output = self.locations()[1]
        if self._home is not None and output.below(self._home):
            make_folder(output.folder)
        return OutputStore(output, checksums=self.checksums)
