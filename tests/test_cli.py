"""The command as a person meets it: real processes, what they print, and the status that they end with."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tornado_rt.cli import parse
from tornado_rt.cli.send import parse_fields
from tornado_rt.cli.serve import announcement
from tornado_rt.cli.watch import describe
from tornado_rt.client import Change
from tornado_rt.config import Settings, load_settings, option_of
from tornado_rt.errors import StartFault

SECRET = "0123456789abcdef0123456789abcdef"
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**settings: str) -> dict[str, str]:
    """Nothing but what a process needs, so that no setting of this machine counts."""
    root = str(Path(__file__).parent.parent)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": root, **settings}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command to its end, in a directory of its own."""

    def run_command(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tornado_rt", *arguments],
            cwd=tmp_path,
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run_command


# --- serve


def test_serve_answers_until_sigterm_and_ends_with_0(start_server: Any) -> None:
    server = start_server("--store", "memory://")
    with urllib.request.urlopen(f"{server.url}/healthz") as answer:
        assert answer.status == 200
    assert server.stop() == 0
    assert "stopped" in [line["event"] for line in server.log]


def test_ctrl_c_ends_serve_in_peace(start_server: Any) -> None:
    server = start_server("--store", "memory://")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=20) == 0


def test_a_port_in_use_is_a_sentence_and_status_2(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run("serve", "--port", str(taken.getsockname()[1]), "--store", "memory://")
    assert ended.returncode == 2
    assert "is in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_wrong_settings_are_all_told_at_once_with_status_2(run: Run) -> None:
    ended = run("serve", "--max-widgets", "many", PORT="http", RT_STORE="floppy://a")
    assert ended.returncode == 2
    assert "3 settings are wrong" in ended.stderr
    for named in ("--max-widgets is 'many'", "PORT is 'http'", "RT_STORE is 'floppy://a'"):
        assert named in ended.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"RT_STORE": "redis://user:hush@localhost"}, "not built yet"),
        ({"RT_AUTH": "jwt", "RT_JWT_PUBLIC_KEY": "hush"}, "RT_JWT_PUBLIC_KEY cannot be used with RT_JWT_ALGORITHMS=RS256"),
    ],
)
def test_what_this_version_cannot_do_is_a_sentence(run: Run, settings: dict[str, str], said: str) -> None:
    for command in ("serve", "check"):
        ended = run(command, **settings)
        assert (ended.returncode, said in ended.stderr) == (2, True)
        assert "hush" not in ended.stdout + ended.stderr


def test_a_misspelt_setting_is_warned_about(run: Run) -> None:
    assert "did you mean RT_MAX_WIDGETS?" in run("check", RT_MAX_WIDGET="3", RT_STORE="memory://").stderr


def test_the_announcement_says_where_on_what_and_who(run: Run) -> None:
    text = announcement(load_settings({"PORT": "3001"}, ())[0])
    assert "http://localhost:3001" in text
    assert "ws://localhost:3001/api/realtime" in text
    assert "sqlite:///tornado_rt.db: an acknowledged change is on disk" in text
    assert "ANYONE" in text


def test_the_announcement_of_production_shows_the_public_address_and_no_demo() -> None:
    settings = Settings(env="production", allow_insecure_auth=True, public_url="wss://a.test", store="redis://u:hush@h")
    assert "open " not in announcement(settings)
    assert "wss://a.test/api/realtime" in announcement(settings)
    assert "hush" not in announcement(settings)


def test_serve_has_an_option_for_every_setting(run: Run) -> None:
    text = run("serve", "--help").stdout
    for name in Settings.model_fields:
        assert option_of(name) in text


# --- check


def test_check_looks_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    ended = run("check")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "will be made at the first start" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_check_finds_a_folder_that_is_not_there(run: Run) -> None:
    ended = run("check", "--store", "sqlite:///nowhere/a.db")
    assert ended.returncode == 2
    assert "nowhere" in ended.stderr
    assert "does not exist" in ended.stderr


def test_check_finds_a_file_that_is_no_store(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, only some words that are long enough to be read as a header")
    assert run("check", "--store", "sqlite:///text.db").returncode == 2
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE a(b)")
    other.close()
    ended = run("check", "--store", "sqlite:///other.db")
    assert (ended.returncode, "not one of tornado_rt" in ended.stderr) == (2, True)


# --- send, watch, backup, new-epoch, against a real server


def test_the_first_try_in_two_terminals(run: Run, start_server: Any, tmp_path: Path) -> None:
    server = start_server()
    watch = subprocess.Popen(
        [sys.executable, "-m", "tornado_rt", "watch", "--count", "4", "--url", server.url, "--user-id", "bert"],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    assert watch.stdout.readline() == "dashboard default: 0 widgets, 0 layouts\n"
    for arguments in (
        ("widget-1", "value=42", "title=Orders today", 'tags=["a", null]'),
        ("widget-1", "--unset", "title"),
        ("grid", "--layout", "left=1", "--replace"),
        ("widget-1", "--delete"),
    ):
        sent = run("send", *arguments, "--url", server.url, "--user-id", "anna")
        assert (sent.returncode, sent.stderr) == (0, "")
    assert sent.stdout == "widget widget-1: deleted as change 4 of dashboard default\n"
    told, _ = watch.communicate(timeout=20)
    assert watch.returncode == 0
    assert [line.split(" ", 1)[1] for line in told.splitlines()] == [
        '#1 anna widget-1 value=42 title="Orders today" tags=["a", null]',
        "#2 anna widget-1 -title",
        "#3 anna layout grid replaced: left=1",
        "#4 anna widget-1 deleted",
    ]
    assert run("send", "widget-1", "--delete", "--url", server.url).stdout == "widget widget-1: there was nothing to do\n"


def test_send_says_why_it_was_refused(run: Run, start_server: Any) -> None:
    server = start_server("--store", "memory://", "--max-fields", "1")
    ended = run("send", "widget-1", "a=1", "b=2", "--url", server.url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "LIMIT_EXCEEDED" in ended.stderr


def test_send_without_a_server_gives_up_with_a_sentence(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = run("send", "w", "a=1", "--timeout", "1", "--url", f"ws://127.0.0.1:{silent.getsockname()[1]}")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "no answer within 1 s" in ended.stderr


def test_a_backup_beside_a_running_server_holds_everything_in_another_epoch(
    run: Run, start_server: Any, tmp_path: Path
) -> None:
    server = start_server()
    assert run("send", "widget-1", "value=42", "--url", server.url).returncode == 0
    assert run("check").returncode == 0
    assert run("backup", "copy.db").returncode == 0
    again = run("backup", "copy.db")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    refused = run("new-epoch")
    assert (refused.returncode, "in use" in refused.stderr) == (2, True)
    assert server.stop() == 0

    restored = start_server("--store", "sqlite:///copy.db")
    watched = run("watch", "--count", "0", "--url", restored.url)
    assert watched.stdout == "dashboard default: 1 widgets, 0 layouts\n  widget-1 value=42\n"
    assert epoch_of(tmp_path / "copy.db") != epoch_of(tmp_path / "tornado_rt.db")


def test_new_epoch_marks_a_file_that_no_server_has(run: Run, start_server: Any, tmp_path: Path) -> None:
    assert start_server().stop() == 0
    before = epoch_of(tmp_path / "tornado_rt.db")
    assert run("new-epoch").returncode == 0
    assert epoch_of(tmp_path / "tornado_rt.db") != before


def epoch_of(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        [epoch] = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
    connection.close()
    return str(epoch)


@pytest.mark.parametrize("command", [("backup", "copy.db"), ("new-epoch",)])
def test_care_for_a_file_wants_a_file(run: Run, command: tuple[str, ...]) -> None:
    missing = run(*command)
    assert (missing.returncode, "There is no file" in missing.stderr) == (2, True)
    memory = run(*command, RT_STORE="memory://")
    assert (memory.returncode, "SQLite stores alone" in memory.stderr) == (2, True)


# --- words


def test_values_are_json_where_they_read_as_json() -> None:
    given = ["a=42", "b=true", "c=null", 'd={"x": [1]}', "e=Orders today", "f=", "g=1=2", 'h="42"', "i=NaN", "j=01"]
    assert parse_fields(given) == {
        "a": 42,
        "b": True,
        "c": None,
        "d": {"x": [1]},
        "e": "Orders today",
        "f": "",
        "g": "1=2",
        "h": "42",
        "i": "NaN",
        "j": "01",
    }


@pytest.mark.parametrize("text", ["value", "=42"])
def test_a_field_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(StartFault, match="name=value"):
        parse_fields([text])


@pytest.mark.parametrize("arguments", [["w"], ["w", "--delete", "a=1"], ["w", "--delete", "--layout"]])
def test_send_wants_something_that_makes_sense(arguments: list[str]) -> None:
    parsed = parse(["send", *arguments])
    with pytest.raises(StartFault):
        parsed.run(parsed)


def test_options_may_stand_between_the_fields() -> None:
    parsed = parse(["send", "w", "--layout", "a=1", "--unset", "b", "c=2"])
    assert (parsed.id, parsed.fields, parsed.unset) == ("w", ["a=1", "c=2"], ["b"])


@pytest.mark.parametrize("arguments", [["send", "w", "a=1", "--lay-out", "b=1"], ["check", "a=1"], ["paint"]])
def test_what_is_no_argument_is_an_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2


def change(kind: str, payload: dict[str, Any]) -> Change:
    return Change(kind, 7, "anna", "2024-11-24T10:00:00.000Z", payload, (("widget", "w"),))


def test_a_change_cannot_paint_the_terminal() -> None:
    payload = {"widgetId": "w", "data": {"a\x1b[2J": "\x1b]0;x\x07\n"}, "unset": ["\x9b"]}
    [line] = describe(change("WIDGET_UPDATE", payload))
    assert line.isprintable()


def test_a_batch_is_a_line_for_each_part_and_a_long_value_is_cut() -> None:
    parts = [
        {"type": "WIDGET_UPDATE", "payload": {"widgetId": "a", "data": {"text": "x" * 500}}},
        {"type": "LAYOUT_RESTORE", "payload": {"layoutId": "l", "layout": {"x": 1}, "restoredFrom": 3}},
    ]
    first, second = describe(change("WIDGET_BATCH", {"operations": parts}))
    assert len(first) < 120
    assert second.endswith("#7 anna layout l restored from #3 x=1")
