"""Reads settings from the environment and ``.env`` files, and says in sentences what is wrong or looks misspelt.

Knows the platform's habits (``DYNO``, ``HOSTNAME``); what a setting means is ``settings``'s.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from tornado_rt.config.settings import Settings, is_address
from tornado_rt.config.words import NOT_IN_FORCE, names_of, option_of
from tornado_rt.errors import StartFault

__all__ = ["ENV_FILES", "SettingsFault", "load_settings", "mask_password"]

ENV_FILES: Final = (".env", ".env.local")
SECRET_FIELDS: Final = frozenset({"jwt_secret", "jwt_public_key", "metrics_token"})
MAX_SHOWN_CHARACTERS: Final = 80


class SettingsFault(StartFault):
    """The settings are wrong. ``mistakes`` has one sentence for each, naming the variable and its value, never a secret."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        count = "One setting is" if len(mistakes) == 1 else f"{len(mistakes)} settings are"
        super().__init__("\n".join([f"{count} wrong:", *(f"  - {mistake}" for mistake in mistakes)]))


def load_settings(
    environ: Mapping[str, str] | None = None, env_files: Iterable[str | os.PathLike[str]] = ENV_FILES, **overrides: Any
) -> tuple[Settings, list[str]]:
    """Settings, and warnings as sentences.

    ``overrides`` (by attribute name; None is not given) win over the environment, which wins over later ``env_files``, which
    win over earlier ones. Raises ``SettingsFault`` with all mistakes at once.
    """
    process = dict(os.environ if environ is None else environ)
    found = {name: value for name, value in {**_read_files(env_files), **process}.items() if value}
    if not _is_bind_address(found.get("HOSTNAME", "")):
        found.pop("HOSTNAME", None)
    platform = {"RT_ENV": "production", "RT_TRUSTED_PROXIES": "1"} if "DYNO" in found else {}
    source = EnvSettingsSource(Settings, case_sensitive=True)
    source.env_vars = {**_unless_named(platform, found), **found}
    given = {field: value for field, value in overrides.items() if value is not None}
    try:
        settings = Settings(**{**source(), **{names_of(field)[0]: value for field, value in given.items()}})
    except ValidationError as fault:
        # A default that is made from other settings is not to blame if one of those is wrong.
        mistakes = [error for error in fault.errors() if error["type"] != "default_factory_not_called"]
        raise SettingsFault([_mistake(error, given, source.env_vars) for error in mistakes]) from None
    return settings, [*_misspelt(found), *_doubtful(settings, on_dyno="DYNO" in found)]


def mask_password(url: str) -> str:
    """The address with ``***`` in place of a user and password."""
    return re.sub(r"//.*@", "//***@", url)


def _read_files(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for path in paths:
        try:
            source = DotEnvSettingsSource(Settings, env_file=Path(path), env_file_encoding="utf-8", case_sensitive=True)
        except (OSError, UnicodeDecodeError) as fault:
            raise SettingsFault([f"{os.fspath(path)} cannot be read: {fault}"]) from None
        values.update(source.env_vars)
    return values


def _is_bind_address(text: str) -> bool:
    return text == "localhost" or is_address(text)


def _unless_named(defaults: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """Platform defaults, less those of settings that were given under any of their names."""
    given = {names[0] for names in map(names_of, Settings.model_fields) if any(name in found for name in names)}
    return {name: value for name, value in defaults.items() if name not in given}


def _mistake(error: ErrorDetails, given: Mapping[str, Any], found: Mapping[str, str | None]) -> str:
    field = next(field for field in Settings.model_fields if error["loc"][0] in (field, *names_of(field)))
    if error["type"] == "sentence":
        return error["msg"]
    if field in given:
        name, value = option_of(field), given[field]
    else:
        name = next((name for name in names_of(field) if name in found), names_of(field)[0])
        value = found.get(name, error["input"])
    if field in SECRET_FIELDS:
        return f"{name} is wrong: {_expectation(error)}"
    shown = mask_password(str(value))
    if len(shown) > MAX_SHOWN_CHARACTERS:
        shown = shown[:MAX_SHOWN_CHARACTERS] + "..."
    return f"{name} is {shown!r}: {_expectation(error)}"


def _expectation(error: ErrorDetails) -> str:
    """What a value must be, in a person's words instead of pydantic's."""
    context = error.get("ctx", {})
    match error["type"]:
        case "wrong":
            return error["msg"]
        case "int_parsing" | "int_from_float" | "int_type" | "int_parsing_size":
            return "it must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            return "it must be a number"
        case "bool_parsing" | "bool_type":
            return "it must be 1 or 0 (or true, false, yes, no, on, off)"
        case "greater_than_equal":
            return f"it must be at least {context['ge']:g}"
        case "less_than_equal":
            return f"it must be at most {context['le']:g}"
        case "literal_error":
            return f"it must be {str(context['expected']).replace(chr(39), '')}"
        case _:
            return error["msg"]


def _misspelt(found: Mapping[str, str]) -> list[str]:
    known = {name for field in Settings.model_fields for name in names_of(field)}
    warnings = []
    for name in sorted(name for name in found if name.startswith("RT_") and name not in known):
        bare = name.removeprefix("RT_")
        nearest = [bare] if bare in known else difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "no setting has a similar name"
        warnings.append(f"{name} is not a setting and is ignored; {hint}")
    return warnings


def _doubtful(settings: Settings, *, on_dyno: bool) -> list[str]:
    """What is allowed and served, and all the same hardly meant."""
    warnings = []
    if on_dyno and settings.env == "production" and settings.store.startswith(("sqlite:", "memory:")):
        warnings.append(
            f"RT_STORE is {settings.store!r}, and this platform's disk and memory are lost at each restart: "
            "EVERY DASHBOARD WILL BE LOST WITH THEM; set RT_STORE or REDIS_URL to a Redis server"
        )
    idle = sorted(field for field in settings.model_fields_set & NOT_IN_FORCE if getattr(settings, field))
    warnings += [f"{names_of(field)[0]} is set, but this version does not act on it yet" for field in idle]
    return warnings
