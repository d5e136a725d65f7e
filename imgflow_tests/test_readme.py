"""The list of all settings in `docs/settings.md` is that of the class."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from imgflow.settings.variables import PREFIX, Settings

WIDTH = 120
PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
LIST = re.compile(r"(<!-- settings: .*? -->\n)(.*?)(<!-- end of settings -->)", re.DOTALL)


def settings() -> str:
    """All settings, as the class declares them: name, default, what it is."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        default = field.default
        default = ",".join(default) if isinstance(default, tuple) else default
        shown = "" if default in ("", {}) else f" (`{default}`)"
        line = f"- `{PREFIX}{name.upper()}`{shown}: {field.description}"
        lines += textwrap.wrap(
            line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    return "\n".join(lines) + "\n"


def test_the_list_of_settings_is_that_of_the_class() -> None:
    found = LIST.search(PAGE.read_text())
    assert found is not None
    assert found.group(2) == settings(), "run `python -m imgflow_tests.test_readme`"


if __name__ == "__main__":
    PAGE.write_text(LIST.sub(lambda m: m.group(1) + settings() + m.group(3), PAGE.read_text()))
