"""The table of all settings in `docs/settings.md` is that of the class."""

from __future__ import annotations

import re
from pathlib import Path

from imgflow.settings import PREFIX, Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
TABLE = re.compile(r"(<!-- settings: .*? -->\n)(.*?)(<!-- end of settings -->)", re.DOTALL)


def table() -> str:
    """All settings, as the class declares them."""
    lines = ["| variable | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        default = ",".join(default) if isinstance(default, tuple) else default
        shown = "" if default in ("", {}) else f"`{default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines) + "\n"


def test_the_settings_table_is_that_of_the_class() -> None:
    found = TABLE.search(PAGE.read_text())
    assert found is not None
    assert found.group(2) == table(), "run `python -m imgflow_tests.test_readme`"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda m: m.group(1) + table() + m.group(3), PAGE.read_text()))
