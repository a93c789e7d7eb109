"""Command-line options made from the settings, so that every setting has one and none is described twice."""

from __future__ import annotations

import argparse
import sys

from tornado_rt.config import ENV_FILES, Settings, about, load_settings, names_of, option_of

__all__ = ["add_settings_options", "read_settings", "warn"]


def add_settings_options(parser: argparse.ArgumentParser, *, only: frozenset[str] | None = None) -> None:
    """An option for each setting, under the settings' own headings; values stay text, for ``load_settings`` to judge."""
    heading: argparse._ArgumentGroup | None = None
    for field, info in Settings.model_fields.items():
        words = about(field)
        if words.group:
            heading = parser.add_argument_group(words.group.lower())
        if only is not None and field not in only:
            continue
        assert heading is not None
        text = f"{words.text} Default: {words.default}. ({names_of(field)[0]})".replace("`", "").replace("%", "%%")
        if info.annotation is bool:
            heading.add_argument(option_of(field), dest=field, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            heading.add_argument(option_of(field), dest=field, metavar=words.unit.upper() or "VALUE", help=text)


def read_settings(arguments: argparse.Namespace) -> tuple[Settings, list[str]]:
    """The settings of this process, options first. Raises ``SettingsFault``."""
    given = {field: getattr(arguments, field, None) for field in Settings.model_fields}
    return load_settings(None, ENV_FILES, **given)


def warn(warnings: list[str]) -> None:
    """Print warnings for a person."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
