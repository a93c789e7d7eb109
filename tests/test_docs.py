"""The documents: complete where code can say what there is, and without a link that leads nowhere."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.write_settings_docs import EXAMPLE, PAGE, example, page
from tornado_rt import __version__, errors
from tornado_rt.cli import build_parser
from tornado_rt.config import Settings, load_settings, names_of, option_of
from tornado_rt.events import EVENTS
from tornado_rt.protocol.messages import MessageType
from tornado_rt.server import RealtimeServer

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]


def commands() -> dict[str, argparse.ArgumentParser]:
    [action] = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(action.choices)


def subclasses(kind: type[errors.Refusal]) -> Iterator[type[errors.Refusal]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


# --- settings


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    """If this fails: `make docs`."""
    assert PAGE.read_text() == page(PAGE.read_text())
    assert EXAMPLE.read_text() == example()


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_has_a_row_and_a_line(field: str) -> None:
    for name in names_of(field):
        assert f"`{name}`" in PAGE.read_text()
    assert f"`{option_of(field)}`" in PAGE.read_text()
    assert f"\n#{names_of(field)[0]}=" in EXAMPLE.read_text()


def test_the_example_holds_the_defaults(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_text(re.sub(r"(?m)^#([A-Z_]+=)", r"\1", EXAMPLE.read_text()))
    assert load_settings({}, [copy])[0] == load_settings({}, ())[0]


# --- commands


@pytest.mark.parametrize("name", commands())
def test_every_command_has_a_section_and_every_option_of_its_own_a_word(name: str) -> None:
    text = (DOCS / "commands.md").read_text()
    assert f"\n## tornado-rt {name}\n" in text
    settings = {option_of(field) for field in Settings.model_fields}
    for action in commands()[name]._actions:
        for option in action.option_strings:
            if option.startswith("--") and option != "--help" and option.replace("--no-", "--") not in settings:
                assert option in text, f"{option} of {name} is not in docs/commands.md"


def test_every_command_of_the_documents_exists() -> None:
    for path in PAGES:
        for name in re.findall(r"(?m)(?:^ {4}|`)(?:\.venv/bin/)?tornado-rt ([a-z][a-z-]*)", path.read_text()):
            assert name in commands(), f"{path.name} tells of tornado-rt {name}"


# --- protocol and embedding


def test_the_protocol_page_knows_every_type_code_and_reason() -> None:
    text = (DOCS / "protocol.md").read_text()
    for kind in MessageType:
        assert f"\n| {kind.value} |" in text
    for refusal in subclasses(errors.Refusal):
        if "code" in vars(refusal):
            assert f"`{refusal.code}`" in text
    for close in errors.Close:
        assert str(close.code) in text
        assert close.code in (*range(1000, 1008), 1009) or f"`{close.reason}`" in text


def test_the_embedding_page_knows_every_event_and_method() -> None:
    text = (DOCS / "embedding.md").read_text()
    for event in EVENTS:
        assert f"`{event}`" in text
    for method in ("apply", "broadcast", "broadcast_to_user", "send", "on", "get_stats"):
        assert callable(getattr(RealtimeServer, method))
        assert f"server.{method}(" in text


# --- all pages


def anchors_of(text: str) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_no_link_leads_nowhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors_of(there.read_text()), f"{path.name} links to {target}"


def test_every_page_is_in_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text()
    assert [path.name for path in sorted(DOCS.glob("*.md")) if f"(docs/{path.name})" not in readme] == []


def test_the_changelog_has_a_place_for_what_comes() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    assert "\n## Unreleased\n" in text
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
