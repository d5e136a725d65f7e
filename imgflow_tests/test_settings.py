from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic_core import PydanticUndefined

from imgflow.errors import SettingsError
from imgflow.settings.variables import PREFIX, Settings, load_settings
from imgflow_tests.patience import PATIENCE_SECONDS

PASSWORD = "hunter2-in-the-url"  # noqa: S105 - of nobody


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, and no settings in the environment."""
    import os

    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_every_setting_is_described_and_has_a_default() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
        assert field.default is not PydanticUndefined, name


def test_nothing_has_to_be_set(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.home == tmp_path / ".imgflow"
    assert settings.source_url == f"{tmp_path.as_uri()}/.imgflow/source"
    assert settings.output_url == f"{tmp_path.as_uri()}/.imgflow/outputs"
    assert settings.database_url == ""
    assert settings.worker_count >= 1
    assert list(tmp_path.iterdir()) == []


def test_the_environment_goes_before_the_file_and_the_file_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "IMGFLOW_WORKERS=3\nIMGFLOW_BATCH_SIZE=7\nIMGFLOW_THUMBNAIL_SIZE=\nOTHER=1\nIMGFLOW_X=1\n"
    )
    monkeypatch.setenv("IMGFLOW_BATCH_SIZE", "9")
    monkeypatch.setenv("IMGFLOW_DEPTH_WIDTH", "")
    settings = load_settings()
    assert (settings.workers, settings.worker_count) == (3, 3)
    assert settings.batch_size == 9
    assert (settings.thumbnail_size, settings.depth_width) == (256, 150)
    assert load_settings(batch_size=11).batch_size == 11


def test_the_file_may_be_absent_or_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "other.env").write_text('IMGFLOW_WATERMARK_TEXT="© proof # 1"\n', "utf-8")
    assert load_settings(_env_file=None).watermark_text == ""
    assert load_settings(_env_file="other.env").watermark_text == "© proof # 1"


@pytest.mark.parametrize("name", ["a b", "100%", "ü", "what?#1", "a%20b"])
def test_local_buckets_lie_in_the_home_whatever_its_name(tmp_path: Path, name: str) -> None:
    from imgflow.store.config import StoreConfig

    settings = load_settings(home=tmp_path / name)
    source, output = StoreConfig(settings.source_url, settings.output_url).locations()
    assert source.folder == tmp_path / name / "source"
    assert output.folder == tmp_path / name / "outputs"


def test_a_home_may_begin_at_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("IMGFLOW_HOME", "~/images")
    settings = load_settings()
    assert settings.home == tmp_path / "me" / "images"
    assert settings.source_url == f"{tmp_path.as_uri()}/me/images/source"


def test_a_location_that_is_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGFLOW_SOURCE_URL", "s3://bucket/in")
    settings = load_settings()
    assert settings.source_url == "s3://bucket/in"
    assert settings.output_url.endswith("/.imgflow/outputs")


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("WORKERS", "many", "Worker processes"),
        ("WORKERS", "-1", "Worker processes"),
        ("BATCH_SIZE", "0", "Most images"),
        ("API_PORT", "70000", "Port of the API"),
        ("THUMBNAIL_SIZE", "1.5", "Longest side"),
        ("RESIZE_ORDER", "6", "Spline order"),
        ("DECODE_SECONDS", "0", "is rejected"),
        ("S3_CHECKSUMS", "never", "CRC32"),
        ("OUTPUT_PARAMETERS", "radius=4", "as JSON"),
        ("PUBLIC_URL", "images.example.org", "reach the API"),
        ("HOME", "~nobody-of-this-name/x", "Folder of the embedded database"),
    ],
)
def test_an_error_names_the_variable_what_was_given_and_what_it_is(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, meaning: str
) -> None:
    monkeypatch.setenv(f"IMGFLOW_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    text = str(caught.value)
    assert text.startswith(f"IMGFLOW_{name}: ")
    assert repr(value) in text
    assert meaning in text
    assert caught.value.__cause__ is None


def test_all_errors_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGFLOW_WORKERS", "x")
    monkeypatch.setenv("IMGFLOW_API_PORT", "y")
    with pytest.raises(SettingsError, match=r"IMGFLOW_WORKERS.*IMGFLOW_API_PORT"):
        load_settings()


def test_of_parameters_as_json_the_part_that_is_wrong_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IMGFLOW_OUTPUT_PARAMETERS", '{"blur": 4, "edge": {"width": 1}}')
    with pytest.raises(SettingsError, match=r"^IMGFLOW_OUTPUT_PARAMETERS: .*given: 4.*as JSON"):
        load_settings()


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{PASSWORD}@host/db",
        f"sqlite:///{PASSWORD}.db",
        f"postgresql+asyncpg://me:{PASSWORD}@host/db",
        f"postgresql://me:{PASSWORD}@host:port/db",
        f"postgresql://me:{PASSWORD}/@host:port:5432/db",
        f"postgresql:/me:{PASSWORD}@host/db",
        f" {PASSWORD}",
    ],
)
def test_a_wrong_database_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("IMGFLOW_DATABASE_URL", url)
    with pytest.raises(SettingsError, match=r"^IMGFLOW_DATABASE_URL") as caught:
        load_settings()
    assert PASSWORD not in str(caught.value)
    assert "postgresql://user:password@host:port/database" in str(caught.value)


def test_an_error_elsewhere_does_not_tell_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMGFLOW_DATABASE_URL", f"postgresql://me:{PASSWORD}@host/db")
    monkeypatch.setenv("IMGFLOW_WORKERS", "x")
    monkeypatch.setenv("IMGFLOW_HOME", "~nobody-of-this-name/x")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert PASSWORD not in str(caught.value)


def test_settings_that_are_shown_hide_the_password() -> None:
    settings = load_settings(database_url=f"postgresql://me:{PASSWORD}@host/db")
    assert PASSWORD not in repr(settings)
    assert PASSWORD not in str(settings)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgres://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql+psycopg2://me@host/db", "postgresql+psycopg2://me@host/db"),
        ("postgresql://me:postgres%3A@host/db", "postgresql://me:postgres%3A@host/db"),
        ("postgresql:///db?host=/run/socket", "postgresql:///db?host=/run/socket"),
    ],
)
def test_the_ways_to_write_a_postgresql_url_are_understood(url: str, kept: str) -> None:
    assert load_settings(database_url=url).database_url == kept


def test_a_password_with_odd_characters_is_written_encoded() -> None:
    url = f"postgresql://me:{quote('p@:/w?#', safe='')}@host:5432/db"
    assert load_settings(database_url=url).database_url == url


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().workers = 3  # type: ignore[misc]


def test_recipes_and_limits_follow_the_settings() -> None:
    settings = load_settings(
        thumbnail_size=99, watermark_text="proof", depth_width=7, resize_order=0, max_pixels=5
    )
    assert settings.photo_recipe.thumbnail_size == (99, 99)
    assert settings.photo_recipe.watermark_text == "proof"
    assert load_settings().photo_recipe.watermark_text is None
    assert (settings.depth_recipe.width, settings.depth_recipe.order) == (7, 0)
    assert settings.photo_limits.max_pixels == 5


def test_reading_settings_connects_to_nothing_and_is_quick() -> None:
    """Definitions load with them; `boto3` and `obstore` come when a store is opened."""
    code = (
        "import sys; from imgflow.settings.variables import load_settings; "
        "load_settings(database_url='postgresql://me@192.0.2.1/db', source_url='s3://b/in'); "
        "print(sorted({'boto3', 'obstore', 'dagster'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_every_limit_of_photographs_is_a_setting(make_settings, monkeypatch):
    monkeypatch.setenv("IMGFLOW_FORMATS", "jpeg, png")
    settings = make_settings(max_side=10, max_frames=3, worker_memory=100, max_bytes=7)
    limits = settings.photo_limits
    assert (limits.max_side, limits.max_frames, limits.max_bytes) == (10, 3, 7)
    assert limits.max_memory == 100 * 2**20
    assert limits.formats == ("JPEG", "PNG")


@pytest.mark.parametrize("formats", ["EPS", ",", "jpeg,psd"])
def test_a_format_that_cannot_be_decoded_is_a_wrong_setting(monkeypatch, formats):
    monkeypatch.setenv("IMGFLOW_FORMATS", formats)
    with pytest.raises(SettingsError, match=r"IMGFLOW_FORMATS.*known are JPEG"):
        load_settings()
