"""Writes the tables of docs/configuration.md, and .env.example, from the fields of ``Settings``. `make docs` runs it."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tornado_rt.config import Settings, about, names_of, option_of

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / ".env.example"
BEGIN = "<!-- The tables are made by `make docs` from tornado_rt/config/settings.py. -->\n"
END = "<!-- End of the tables. -->\n"

TABLE_HEAD = ("| variable | option | default | unit | meaning |", "| --- | --- | --- | --- | --- |")
EXAMPLE_HEAD = """\
# Settings of tornado_rt. Copy this file to .env (or .env.local) and take the # off the lines that you change.
# Variables of the environment win over these files, options of the command win over both.
"""


def tables() -> str:
    """The tables of docs/configuration.md, one for each group of settings."""
    lines: list[str] = []
    for field in Settings.model_fields:
        words = about(field)
        if words.group:
            lines += ["", f"### {words.group}", "", *TABLE_HEAD]
        names = " or ".join(f"`{name}`" for name in names_of(field))
        lines.append(f"| {names} | `{option_of(field)}` | {words.default} | {words.unit} | {words.text} |")
    return "\n".join(lines).lstrip("\n") + "\n"


def example() -> str:
    """The whole of .env.example."""
    blocks = [EXAMPLE_HEAD]
    for field, info in Settings.model_fields.items():
        words = about(field)
        if words.group:
            blocks.append(f"# ---- {words.group}\n")
        unit = f" Unit: {words.unit}." if words.unit else ""
        said = f"{words.text} Default: {words.default}.{unit}"
        comment = textwrap.fill(said, 100, initial_indent="# ", subsequent_indent="# ")
        blocks.append(f"{comment}\n#{names_of(field)[0]}={_plain(info.default)}\n")
    return "\n".join(blocks)


def page(text: str) -> str:
    """The configuration page with its tables written anew."""
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n{tables()}\n{END}{tail}"


def _plain(default: object) -> str:
    """A default as one writes it into an environment; nothing where it is made from other settings."""
    match default:
        case bool():
            return str(int(default))
        case int() | float():
            return f"{default:.10g}"
        case str():
            return default
        case _:
            return ""


def main() -> None:
    PAGE.write_text(page(PAGE.read_text()))
    EXAMPLE.write_text(example())
    print(f"{PAGE.relative_to(ROOT)} and {EXAMPLE.relative_to(ROOT)} are written")


if __name__ == "__main__":
    main()
