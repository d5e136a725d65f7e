from __future__ import annotations

import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from imgflow.errors import SettingsError
from imgflow.settings.tokens import FILE_NAME, Tokens, own_token
from imgflow.settings.variables import Settings, load_settings

SECRET = "hunter2-the-token"  # noqa: S105 - of nobody


def test_a_token_has_the_scopes_that_are_written_behind_it() -> None:
    tokens = Tokens.parse("both,one:read , other:write, a:read,a:write")
    assert tokens.scopes("both") == {"read", "write"}
    assert tokens.scopes("one") == {"read"}
    assert tokens.scopes("other") == {"write"}
    assert tokens.scopes("a") == {"read", "write"}
    for unknown in ("", "on", "one:read", "ones", "Both", "\udcff"):
        assert tokens.scopes(unknown) is None


@pytest.mark.parametrize(
    "text",
    [",", f"{SECRET},", f"{SECRET}:admin", f"{SECRET}:", f"{SECRET}:read:write", f"two {SECRET}",
     f'"{SECRET}"', f"ü{SECRET}", ":read"],
)  # fmt: skip
def test_what_is_no_token_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^IMGFLOW_API_TOKEN: .*number [12] is") as caught:
        load_settings(_env_file=None, api_token=text)
    assert SECRET not in str(caught.value)
    assert "TOKEN:read" in str(caught.value)


def test_nothing_that_is_shown_has_a_token_in_it(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(api_token=SECRET)
    tokens = Tokens.parse(settings.api_token)
    for shown in (repr(settings), str(settings), repr(tokens), repr(vars(tokens))):
        assert SECRET not in shown


def test_comparing_takes_as_long_for_a_wrong_token_as_for_a_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = Tokens.parse("first,second,third")
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(left: bytes, right: bytes) -> bool:
        compared.append((len(left), len(right)))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for given in ("first", "third", "wrong", "", "f" * 10_000):
        compared.clear()
        tokens.scopes(given)
        assert compared == [(32, 32)] * 3


def test_several_processes_that_come_first_agree_on_one_token(tmp_path: Path) -> None:
    callers = 8
    barrier = Barrier(callers)

    def ask(_: int) -> str:
        barrier.wait()
        return own_token(tmp_path / "home")

    with ThreadPoolExecutor(callers) as threads:
        (token,) = set(threads.map(ask, range(callers)))
    assert len(token) >= 40
    (file,) = (tmp_path / "home").iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == (FILE_NAME, 0o600)


@pytest.mark.parametrize("content", ["", "\n", "two words", "a,b c"])
def test_a_file_without_a_token_is_named_with_the_fix(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(SettingsError, match=r"api-token cannot be used \(it holds no token\)"):
        own_token(tmp_path)
