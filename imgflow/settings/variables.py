"""Every setting of imgflow in one class: environment variable, type, default, range and meaning.

Settings come from the environment and from `.env` in the working directory. Loading them connects
to nothing and creates nothing, so definitions load without a bucket or a database. AWS credentials,
region and endpoint are not settings of imgflow: they come from the standard `AWS_*` variables.
Types with checks of their own are in `imgflow.settings.values`.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from imgflow.depth.depth_recipe import DepthRecipe
from imgflow.depth.limits import (
    FREE_ROWS,
    FREE_SECONDS,
    ROWS_PER_UPLOADED_BYTE,
    UPLOADED_BYTES_PER_SECOND,
    DepthLimits,
)
from imgflow.errors import SettingsError
from imgflow.images.formats.decoding import Limits
from imgflow.images.formats.pillow import MEDIA_TYPES
from imgflow.images.photo_recipe import PhotoRecipe
from imgflow.images.watermark import font_digest
from imgflow.observability.logs import LogFormat, LogLevel
from imgflow.settings.values import (
    ApiTokens,
    BrokerUrl,
    Channels,
    DatabaseUrl,
    FetchHosts,
    FontFile,
    Formats,
    Home,
    LinkKey,
    ListenAddress,
    Origins,
    OutputParameters,
    QueueUrl,
    WebUrl,
    absolute_home,
)

if TYPE_CHECKING:
    from imgflow.store.config import StoreConfig

PREFIX = "IMGFLOW_"

OnDelete = Literal["keep", "tombstone", "delete"]


class Settings(BaseSettings):
    """All settings; the field name in capitals behind `IMGFLOW_` is the environment variable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Annotated[
        Home,
        Field(description="Folder of the embedded database, the local buckets and Dagster's home."),
    ] = Path(".imgflow")
    source_url: Annotated[
        str,
        Field(
            description="Where images land: `s3://bucket/prefix` or `file:///folder`. "
            "Default: the folder `source` in the home."
        ),
    ] = ""
    output_url: Annotated[
        str,
        Field(
            description="Where outputs go: `s3://bucket/prefix` or `file:///folder`. "
            "Default: the folder `outputs` in the home."
        ),
    ] = ""
    follow_links: Annotated[
        bool,
        Field(
            description="For a source folder that is made of symbolic links: take links for the "
            "files below the folder that they end at. All others, and links to folders, are left "
            "out and warned of either way."
        ),
    ] = False
    database_url: Annotated[
        DatabaseUrl,
        Field(
            description="`postgresql://user:password@host:port/database` for the catalogue and "
            "Dagster's storage. Default: a PostgreSQL that imgflow starts in the home.",
            repr=False,
        ),
    ] = ""
    broker_url: Annotated[
        BrokerUrl,
        Field(
            description="`redis://…` of a cluster: runs go to the workers that listen there (see "
            "docs/cluster.md). Default: each run is a process of this machine.",
            repr=False,
        ),
    ] = ""
    api_token: Annotated[
        ApiTokens,
        Field(
            description="Token that API calls need (`Authorization: Bearer`); several with commas, "
            "`TOKEN:read` or `TOKEN:write` for one scope only. "
            "Default: a random one in the file `api-token` in the home.",
            repr=False,
        ),
    ] = ""
    api_host: Annotated[
        ListenAddress,
        Field(
            description="Address that the API listens on. Other than loopback it needs "
            "`IMGFLOW_API_TOKEN`."
        ),
    ] = "127.0.0.1"
    open_reading: Annotated[
        bool,
        Field(
            description="Anyone who reaches the API may read everything, without a token; changing "
            "something needs one all the same. Web pages that a visitor of the machine opens may "
            "reach it too."
        ),
    ] = False
    link_key: Annotated[
        LinkKey,
        Field(
            description="Secret of 32 characters or more that signs picture links, sign-in links "
            "and sessions, the same for all processes of the API. "
            "Default: a random one in the file `link-key` in the home.",
            repr=False,
        ),
    ] = ""
    fetch_hosts: Annotated[
        FetchHosts,
        Field(
            description="Servers besides S3 that `POST /process` fetches from, with commas: `host` "
            "and `*.domain` by https, or an origin such as `http://host:port`."
        ),
    ] = ()
    fetch_seconds: Annotated[
        float, Field(gt=0, le=3_600, description="Most seconds that such a fetch takes.")
    ] = 30.0
    cors_origins: Annotated[
        Origins,
        Field(
            description="Web origins whose pages may use the API (`https://app.example.org`), with "
            "commas. Empty: none but its own."
        ),
    ] = ()
    upload_bytes: Annotated[
        PositiveInt, Field(description="Most bytes of an upload through the API.")
    ] = 2 * 1024**3
    workers: Annotated[
        int,
        Field(ge=0, le=256, description="Worker processes of a run; 0: one for each usable core."),
    ] = 0
    batch_size: Annotated[
        int, Field(ge=1, le=25_000, description="Most images in one run that the sensor asks for.")
    ] = 5_000
    batch_seconds: Annotated[
        float,
        Field(gt=0, le=86_400, description="What such a run should take, by the pace of the last."),
    ] = 60.0
    runs: Annotated[
        int,
        Field(
            ge=1,
            le=1_000,
            description="Most runs of each kind that the sensor has queued or going on at a time; "
            "with IMGFLOW_BROKER_URL in the whole cluster: as many as there are workers.",
        ),
    ] = 2
    sensor_seconds: Annotated[
        float,
        Field(
            ge=0.1,
            le=3_600,
            description="Minimum seconds between two looks for uploads, in a folder between two "
            "ticks of the sensor.",
        ),
    ] = 1.0
    tick_pages: Annotated[
        int,
        Field(ge=1, le=1_000, description="Most pages of 1,000 objects that one tick lists."),
    ] = 20
    hot_partitions: Annotated[
        int,
        Field(
            ge=10,
            description="Most partitions of each kind in Dagster. Beyond it the images that are "
            "unchanged for longest are sealed: they lose their partition and nothing else, and get "
            "it again when they are uploaded again or asked for.",
        ),
    ] = 100_000
    seal_days: Annotated[
        int,
        Field(
            ge=0,
            le=36_500,
            description="Images unchanged for so many days are sealed every night; 0: none.",
        ),
    ] = 0
    sqs_queue_url: Annotated[
        QueueUrl,
        Field(
            description="URL of an SQS queue that gets the S3 event notifications of the source: "
            "uploads are then seen at once. Empty: only the listing finds them."
        ),
    ] = ""
    on_delete: Annotated[
        OnDelete,
        Field(
            description="What a deleted upload does to its image: `keep` leaves it as it is, "
            "`tombstone` deletes outputs and partition, `delete` the row too."
        ),
    ] = "keep"
    keep_events_days: Annotated[
        int,
        Field(
            ge=0,
            le=3_650,
            description="Days after which the nightly retention deletes events that decide no "
            "status any more, and their runs; 0: Dagster's event log is kept whole.",
        ),
    ] = 30
    freshness_hours: Annotated[
        int,
        Field(
            ge=0,
            le=8_760,
            description="Hours without a new or changed image after which Dagster calls the tables "
            "overdue, and warns after half of them; 0: never, as uploads may pause.",
        ),
    ] = 0
    dagster_port: Annotated[
        int, Field(ge=1, le=65_535, description="Port of the Dagster UI, on loopback.")
    ] = 3000
    dagster_url: Annotated[
        WebUrl,
        Field(
            description="Where people reach the Dagster UI (`https://dagster.example.org`): for "
            "links of the gallery, and the one host besides loopback that the UI answers to. "
            "Default: this machine only, at its port."
        ),
    ] = ""
    alert_urls: Annotated[
        Channels,
        Field(
            description="Where people are told of failed runs: URLs of "
            "[Apprise](https://appriseit.com/services/) with commas, such as `jsons://host/path` "
            "(a webhook) or `mailtos://user:password@example.org`. Empty: failures are only logged "
            "by the sensor `failures`.",
            repr=False,
        ),
    ] = ()
    alert_minutes: Annotated[
        float,
        Field(
            ge=0,
            le=10_080,
            description="Minimum minutes between two such messages; what fails meanwhile is in the "
            "next.",
        ),
    ] = 10.0
    api_port: Annotated[int, Field(ge=1, le=65_535, description="Port of the API.")] = 8000
    public_url: Annotated[
        WebUrl,
        Field(
            description="Where people reach the API and the gallery, for links in the Dagster UI "
            "(`https://images.example.org`). Default: this machine's address of the API."
        ),
    ] = ""
    log_format: Annotated[
        LogFormat,
        Field(
            description="`json`: logs with one object a line, and a line for each upload with the "
            "id of its trace; `text`: for people."
        ),
    ] = "text"
    log_level: Annotated[
        LogLevel, Field(description="What is logged: `debug`, `info`, `warning` or `error`.")
    ] = "info"
    traces: Annotated[
        bool,
        Field(
            description="Send traces by OpenTelemetry, as the standard variables `OTEL_…` say; "
            "needs `pip install 'imgflow[traces]'`."
        ),
    ] = False

    thumbnail_size: Annotated[
        PositiveInt, Field(le=4_096, description="Longest side of a thumbnail in pixels.")
    ] = 256
    thumbnail_quality: Annotated[
        int,
        Field(
            ge=1,
            le=100,
            description="Quality of thumbnails as JPEG. 95 keeps an SSIM of 0.98; 85 takes less "
            "than half of the bytes.",
        ),
    ] = 95
    watermark_text: Annotated[
        str,
        Field(max_length=200, description="Text on proofs; empty: no proofs are made."),
    ] = ""
    watermark_font: Annotated[
        FontFile,
        Field(
            description="File of a TrueType or OpenType font for that text, with all its letters, "
            "the same on every machine. Empty: fonts of imgflow, which have those of every script."
        ),
    ] = ""
    output_parameters: Annotated[
        OutputParameters,
        Field(
            description="Parameters of outputs that other packages add, as JSON: "
            '`{"blur": {"radius": 4}}`.'
        ),
    ] = {}
    depth_width: Annotated[
        PositiveInt, Field(le=65_500, description="Width of a resized depth image in pixels.")
    ] = 150
    resize_order: Annotated[
        int,
        Field(
            ge=0,
            le=5,
            description="Spline order of the depth resize: 0 nearest, 1 linear, … 5 bi-quintic.",
        ),
    ] = 1

    max_bytes: Annotated[
        PositiveInt, Field(description="A photograph of more bytes is rejected unread.")
    ] = 200 * 1024 * 1024
    max_pixels: Annotated[
        PositiveInt, Field(description="A photograph of more pixels is rejected undecoded.")
    ] = 100_000_000
    max_side: Annotated[
        int,
        Field(ge=1, description="A photograph with a longer side, in pixels, is rejected."),
    ] = 65_500
    max_frames: Annotated[
        int,
        Field(ge=1, description="A photograph of more frames or pages is rejected."),
    ] = 10_000
    formats: Annotated[
        Formats,
        Field(
            description="Formats that are decoded, with commas; others are rejected by name. "
            f"Known: {', '.join(MEDIA_TYPES)}."
        ),
    ] = tuple(MEDIA_TYPES)
    worker_memory: Annotated[
        int,
        Field(
            ge=64,
            le=1_048_576,
            description="MiB that a worker may take for one image (on Linux); one that needs more "
            "is rejected.",
        ),
    ] = 3_072
    decode_seconds: Annotated[
        float,
        Field(
            gt=0, le=3_600, description="Processor time; a photograph that takes more is rejected."
        ),
    ] = 60.0
    depth_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=86_400,
            description="Most seconds of processor time; a depth image that takes more is "
            f"rejected. It has {FREE_SECONDS:g}, and one more for each "
            f"{UPLOADED_BYTES_PER_SECOND:,} bytes of the upload.",
        ),
    ] = 3_600.0
    depth_max_rows: Annotated[
        int,
        Field(
            ge=1,
            le=5_000_000,
            description="A depth image of more rows is rejected; each takes 608 bytes in the "
            "database at the default width. Nor may it have more than "
            f"{ROWS_PER_UPLOADED_BYTE} for each byte uploaded, beyond {FREE_ROWS:,}.",
        ),
    ] = 2_000_000
    s3_checksums: Annotated[
        Literal["when_supported", "when_required"],
        Field(description="Whether uploads carry CRC32; some S3-compatible servers refuse them."),
    ] = "when_supported"

    @model_validator(mode="before")
    @classmethod
    def _local_buckets(cls, values: Any) -> Any:
        """Default both locations to folders in the home, so that every part sees the same URLs."""
        if isinstance(values, dict):
            try:
                home = absolute_home(Path(values.get("home") or ".imgflow"))
            except (TypeError, ValueError):
                return values  # the field reports what is wrong
            for name, folder in (("source_url", "source"), ("output_url", "outputs")):
                if not values.get(name):
                    values = {**values, name: (home / folder).as_uri()}
        return values

    @property
    def is_api_local(self) -> bool:
        """Whether the API listens on loopback only."""
        return self.api_host == "localhost" or ip_address(self.api_host).is_loopback

    @property
    def api_url(self) -> str:
        """Base URL of the API for programs on this machine."""
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on here
        host = anywhere.get(self.api_host, self.api_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.api_port}"

    @property
    def links_url(self) -> str:
        """What links to the API and the gallery start with, without a final slash."""
        return (self.public_url or self.api_url).rstrip("/")

    @property
    def dagster_page(self) -> str:
        """URL where people reach the Dagster UI: the setting, or its port on this machine."""
        return self.dagster_url or f"http://127.0.0.1:{self.dagster_port}"

    def check_api_access(self) -> None:
        """Raise `SettingsError` if other machines can reach the API and no token is set."""
        if not self.is_api_local and not self.api_token:
            raise SettingsError(
                f"IMGFLOW_API_HOST={self.api_host} lets other machines reach the API, so it does "
                "not start without IMGFLOW_API_TOKEN. Set a token, or listen on 127.0.0.1."
            )

    @property
    def stores(self) -> StoreConfig:
        """Where images land and outputs go."""
        from imgflow.store.config import StoreConfig  # imports obstore, only needed to open stores

        return StoreConfig(
            self.source_url,
            self.output_url,
            self.s3_checksums,
            str(self.home),
            self.follow_links,
        )

    @property
    def worker_count(self) -> int:
        """Number of worker processes: the setting, or the cores that this process may use."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def photo_recipe(self) -> PhotoRecipe:
        """The settings that decide a photograph's outputs; reads the watermark's font, if set."""
        return PhotoRecipe(
            thumbnail_size=(self.thumbnail_size, self.thumbnail_size),
            thumbnail_quality=self.thumbnail_quality,
            watermark_text=self.watermark_text or None,
            watermark_font=self.watermark_font,
            watermark_font_sha256=font_digest(self.watermark_font) if self.watermark_font else "",
            parameters=tuple(
                (output, name, value)
                for output, values in sorted(self.output_parameters.items())
                for name, value in sorted(values.items())
            ),
        )

    @property
    def photo_limits(self) -> Limits:
        """What a photograph may cost before it is rejected."""
        return Limits(
            max_bytes=self.max_bytes,
            max_pixels=self.max_pixels,
            max_side=self.max_side,
            max_frames=self.max_frames,
            formats=self.formats,
            max_memory=self.worker_memory * 2**20,
        )

    @property
    def depth_limits(self) -> DepthLimits:
        """What a depth image may cost before it is rejected."""
        return DepthLimits(max_rows=self.depth_max_rows)

    @property
    def depth_recipe(self) -> DepthRecipe:
        """The settings that decide a depth image's outputs."""
        return DepthRecipe(width=self.depth_width, order=self.resize_order)


def load_settings(**overrides: Any) -> Settings:
    """Load the settings, or raise a `SettingsError` that names the variable and its meaning."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _explain(error: ValidationError) -> str:
    sentences = []
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else ""
        known = Settings.model_fields.get(field)
        meaning = f" It is: {known.description}" if known else ""
        # Without a field, the input is all settings, including passwords.
        is_secret = not known or not known.repr
        given = "" if is_secret else f" (given: {problem['input']!r})"
        name = f"{PREFIX}{field.upper()}" if known else "Settings"
        sentences.append(f"{name}: {problem['msg']}{given}.{meaning}")
    return " ".join(sentences)
