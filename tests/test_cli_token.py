"""``tornado-rt token``: a token alone on standard output, which a server with the same secret takes and never shows."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.test_cli import environment
from tests.test_cli import run as run  # the fixture
from tornado_rt.cli import main
from tornado_rt.cli.token import parse_life
from tornado_rt.errors import StartFault

SECRET = "correct horse battery staple, and then some more of it to sign by"
Run = Callable[..., subprocess.CompletedProcess[str]]


def claims_of(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert (ended.returncode, ended.stdout.count("\n")) == (0, 1), ended.stderr
    found: dict[str, Any] = jwt.decode(ended.stdout.strip(), SECRET, ["HS256"], {"verify_aud": False})
    return found


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command within this process, which is quicker."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RT_") or name in ("PORT", "HOSTNAME", "NODE_ENV", "DYNO")]:
        monkeypatch.delenv(name)

    def run_here(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return run_here


def test_it_says_what_it_was_told(here: Run) -> None:
    arguments = ("--user", "anna", "--dashboard", "sales", "--dashboard", "ops-*", "--role", "viewer", "--ttl", "2h")
    settings = {"RT_JWT_SECRET": SECRET, "RT_JWT_AUDIENCE": "realtime", "RT_JWT_ISSUER": "me", "RT_AUTH": "jwt"}
    ended = here("token", *arguments, **settings)
    claims = claims_of(ended)
    assert ended.stderr == ""
    assert (claims["sub"], claims["dashboards"]) == ("anna", {"sales": "viewer", "ops-*": "viewer"})
    assert (claims["aud"], claims["iss"], claims["exp"] - claims["iat"]) == ("realtime", "me", 7_200)
    assert claims["jti"] != claims_of(here("token", *arguments, **settings))["jti"]


def test_the_defaults_are_one_hour_as_an_editor_of_the_default_dashboard(here: Run) -> None:
    ended = here("token", "--user", "anna", RT_JWT_SECRET=SECRET)
    claims = claims_of(ended)
    assert (claims["dashboards"], claims["exp"] - claims["iat"]) == ({"default": "editor"}, 3_600)
    assert "RT_AUTH is trust" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ((), {}, "RT_JWT_SECRET is not set"),
        ((), {"RT_JWT_SECRET": "short-and-hush"}, "at least 32 bytes"),
        (("--jwt-algorithms", "HS512"), {"RT_JWT_SECRET": SECRET[:40] + "hush"}, "at least 64 bytes"),
        (("--dashboard", "a\nb"), {"RT_JWT_SECRET": SECRET}, "is no name"),
        (("--dashboard", ""), {"RT_JWT_SECRET": SECRET}, "is no name"),
        (("--role", "owner"), {"RT_JWT_SECRET": SECRET}, "invalid choice"),
        (("--ttl", "0"), {"RT_JWT_SECRET": SECRET}, "a second at least"),
        (("--ttl", "31d"), {"RT_JWT_SECRET": SECRET}, "30 days at most"),
        (("--ttl", "soon"), {"RT_JWT_SECRET": SECRET}, "is no time"),
        (tuple(f"--dashboard={n}{'x' * 120}" for n in range(60)), {"RT_JWT_SECRET": SECRET}, "name fewer dashboards"),
    ],
    ids=range(10),
)
def test_what_no_server_would_take_is_refused(
    here: Run, arguments: tuple[str, ...], settings: dict[str, str], said: str
) -> None:
    ended = here("token", "--user", "anna", *arguments, **settings)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "hush" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_user_must_be_named(here: Run) -> None:
    assert "--user" in here("token", RT_JWT_SECRET=SECRET).stderr
    assert "is no name" in here("token", "--user", "", RT_JWT_SECRET=SECRET).stderr


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("8h", 28_800), ("7d", 604_800)])
def test_times(text: str, seconds: int) -> None:
    assert parse_life(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1 h", "1w", "1hh", "\u0661h", "9" * 10])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(StartFault):
        parse_life(text)


def test_a_server_takes_it_and_shows_neither_it_nor_the_secret(run: Run, start_server: Any) -> None:
    settings = {"RT_AUTH": "jwt", "RT_JWT_SECRET": SECRET}
    server = start_server("--store", "memory://", "--log-level", "debug", env=environment(**settings))
    good = run("token", "--user", "anna", **settings).stdout.strip()
    viewer = run("token", "--user", "bert", "--role", "viewer", **settings).stdout.strip()
    sent = run("send", "w1", "value=42", "--url", server.url, "--token", good)
    assert sent.returncode == 0, sent.stderr
    refused = run("send", "w1", "value=42", "--url", server.url, "--token", viewer)
    assert (refused.returncode, "not change it" in refused.stderr) == (1, True)

    forged = jwt.encode({"sub": "anna", "exp": int(time.time()) + 60, "dashboards": {}}, "x" * 32, "HS256")
    for text in (forged, good, viewer):
        for way in (f"?token={text}", ""):
            request = urllib.request.Request(f"{server.url}/api/realtime{way}", headers={"Authorization": f"Bearer {text}"})
            assert status_of(request) == (401 if text is forged else 200)
    assert server.stop() == 0
    log = json.dumps(server.log)
    assert "token refused: signature" in log
    for secret in (SECRET, *(part for text in (forged, good, viewer) for part in text.split(".")[1:])):
        assert secret not in log
