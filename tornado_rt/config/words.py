"""What is said of each setting to people: in the command's help, in the documents. Made from the fields; knows no values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from pydantic import AliasChoices

from tornado_rt.config.settings import Settings

__all__ = ["NOT_IN_FORCE", "About", "about", "names_of", "option_of"]

# Settings that are read and checked while the part that obeys them is not built yet. A test holds this list against the code.
NOT_IN_FORCE: Final = frozenset(
    {
        "metrics_port",
        "metrics_token",
        "redis_tls_verify",
        "redis_wait_replicas",
    }
)


@dataclass(frozen=True, slots=True)
class About:
    """What is said of a setting to people. Texts may hold backquotes; ``group`` is given where a new heading begins."""

    text: str
    unit: str
    default: str
    group: str


def about(field: str) -> About:
    """The words of a setting, by its attribute name."""
    info = Settings.model_fields[field]
    extra = cast(dict[str, str], info.json_schema_extra)
    default = extra["shown_default"] or _shown(info.default)
    text = f"{info.description}{' Not in force in this version.' if field in NOT_IN_FORCE else ''}"
    return About(text=text, unit=extra["unit"], default=default, group=extra["group"])


def _shown(default: object) -> str:
    match default:
        case None | ():
            return "none"
        case bool():
            return "on" if default else "off"
        case int() | float():
            return f"{default:,g}" if isinstance(default, float) else f"{default:,}"
        case _:
            return f"`{default}`"


def names_of(field: str) -> tuple[str, ...]:
    """The environment names of a setting, the one that counts first."""
    alias = Settings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)
    return tuple(str(name) for name in alias.choices)


def option_of(field: str) -> str:
    """The command-line option of a setting: ``max_widgets`` is ``--max-widgets``."""
    return "--" + field.replace("_", "-")
