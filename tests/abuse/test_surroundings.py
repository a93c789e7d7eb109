"""What stands around every answer: headers, CORS, errors without secrets; and a start that is refused where it is not safe."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.abuse.fortress import PAGE, Fortress
from tests.auth.forgery import SECRET, pem, private_pem
from tests.conftest import PROJECT, THIS_PYTHON, clean_environment

Env = dict[str, str]

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Vary": "Origin",
}
ANSWERS = [
    ("/", 200),
    ("/static/index.html", 200),
    ("/api/realtime", 200),
    ("/api/realtime/stats", 200),
    ("/api/realtime/schema", 200),
    ("/api/realtime/openapi", 200),
    ("/healthz", 200),
    ("/readyz", 200),
    ("/nothing", 404),
    ("/static/nothing.js", 404),
    ("/api/realtime/revoke", 405),
]


@pytest.mark.parametrize(("path", "status"), ANSWERS)
@pytest.mark.parametrize("origin", [None, PAGE])
async def test_every_answer_has_its_headers(fortress: Fortress, path: str, status: int, origin: str | None) -> None:
    """What a browser may do with it; and which page may read it: exactly the one that asked, if it is allowed to."""
    headers = fortress.bearer("boss", {"*": "admin"}) | ({"Origin": origin} if origin else {})
    answer = await fortress.process.fetch(path, headers=headers)
    assert answer.code == status
    assert {name: answer.headers.get(name) for name in ALWAYS} == ALWAYS
    assert answer.headers.get_list("Vary") == ["Origin"]
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy.keys() >= {"default-src", "frame-ancestors", "base-uri", "form-action"}
    assert policy["default-src"] in ("'self'", "'none'")
    assert "unsafe" not in str(policy)
    assert not {"Server", "X-Powered-By", "Set-Cookie"} & set(answer.headers)
    assert answer.headers.get("Access-Control-Allow-Origin") == origin
    assert answer.headers.get("Access-Control-Allow-Credentials") == ("true" if origin else None)
    if not path.startswith("/static"):
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_page_is_told_what_it_may_send(fortress: Fortress) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = await fortress.process.fetch("/api/realtime", method="OPTIONS", headers=asked)
    assert (answer.code, answer.headers["Access-Control-Allow-Origin"]) == (204, PAGE)
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert answer.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type"


async def test_errors_say_nothing_of_the_inside(fortress: Fortress) -> None:
    for path in ("/nothing", "/static/nothing", "/api/realtime/stats", "/api/realtime"):
        body = (await fortress.process.fetch(path)).body.decode()
        assert set(json.loads(body)) == {"error", "code"}
        assert not [word for word in ("Traceback", ".py", "sqlite", "tornado", SECRET) if word in body]


# A start that is not safe


SAFE: Env = {"RT_ENV": "production", "RT_AUTH": "jwt", "RT_JWT_SECRET": SECRET, "RT_ALLOWED_HOSTS": "dash.example.com"}

UNSAFE: dict[str, tuple[Env, str]] = {
    "nobody is asked who he is": ({"RT_AUTH": "trust"}, "RT_ALLOW_INSECURE_AUTH=1"),
    "nothing is said": ({"RT_AUTH": "", "RT_JWT_SECRET": ""}, "RT_AUTH=jwt"),
    "no key": ({"RT_JWT_SECRET": ""}, "none is set"),
    "two keys": ({"RT_JWT_PUBLIC_KEY": "x"}, "2 are set"),
    "a short secret": ({"RT_JWT_SECRET": "hush-hush"}, "at least 32 bytes"),
    "a guessable secret": ({"RT_JWT_SECRET": "password" * 8}, "could be guessed"),
    "a secret too short for its algorithm": ({"RT_JWT_ALGORITHMS": "HS512", "RT_JWT_SECRET": SECRET[:40]}, "RT_JWT_SECRET"),
    "no signature": ({"RT_JWT_ALGORITHMS": "none"}, "RT_JWT_ALGORITHMS"),
    "a key of two families": ({"RT_JWT_ALGORITHMS": "HS256,RS256"}, "RT_JWT_ALGORITHMS"),
    "keys over http": ({"RT_JWT_SECRET": "", "RT_JWKS_URL": "http://login.example.com/keys"}, "https://"),
    "a private key": ({"RT_JWT_SECRET": "", "RT_JWT_PUBLIC_KEY": private_pem("RSA")}, "RT_JWT_PUBLIC_KEY"),
    "a weak key": ({"RT_JWT_SECRET": "", "RT_JWT_PUBLIC_KEY": pem("weak RSA")}, "RT_JWT_PUBLIC_KEY"),
    "no key at all": ({"RT_JWT_SECRET": "", "RT_JWT_PUBLIC_KEY": "open sesame"}, "RT_JWT_PUBLIC_KEY"),
    "any host": ({"RT_ALLOWED_HOSTS": ""}, "RT_ALLOWED_HOSTS"),
    "an origin that is none": ({"RT_ALLOWED_ORIGINS": "app.example.com"}, "RT_ALLOWED_ORIGINS"),
}


# Most of the time goes into starting Python: one that has read the code makes the processes, each with its own environment.
STARTER = """
import json, os, sys
import tornado_rt.lifecycle
from tornado_rt.cli import main
for case, folder, argv, env in json.load(sys.stdin):
    pid = os.fork()
    if not pid:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        said = os.open("said", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.exit(main(argv))
    print(json.dumps([case, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]), flush=True)
"""


def attempt(folder: Path, cases: dict[str, tuple[list[str], Env]]) -> dict[str, tuple[int, str, set[str]]]:
    """Of each case the exit status, what was said, and which files were made beside it."""
    orders = []
    for case, (argv, env) in cases.items():
        (folder / case).mkdir()
        orders.append([case, str(folder / case), argv, clean_environment(**{**SAFE, "HOST": "127.0.0.1", **env})])
    starter = [THIS_PYTHON[0], "-c", STARTER]
    found = subprocess.run(starter, cwd=PROJECT, input=json.dumps(orders), capture_output=True, text=True, timeout=100)
    statuses = dict(json.loads(line) for line in found.stdout.splitlines())
    files = {case: {path.name for path in (folder / case).iterdir()} - {"said"} for case in statuses}
    return {case: (statuses[case], (folder / case / "said").read_text(), files[case]) for case in statuses}


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, set[str]]]:
    serve = ["serve", "--port", "0"]
    cases = {case: (serve, env) for case, (env, _) in UNSAFE.items()}
    return attempt(tmp_path_factory.mktemp("unsafe"), {**cases, "all is well": (["check"], {})})


@pytest.mark.parametrize("case", UNSAFE)
def test_production_does_not_start_unsafely(attempts: dict[str, tuple[int, str, set[str]]], case: str) -> None:
    """It ends with status 2 and one sentence that names the setting, and no secret; nothing was opened."""
    status, said, files = attempts[case]
    assert (status, files) == (2, set())
    assert UNSAFE[case][1] in said
    assert "Traceback" not in said
    assert "listening" not in said
    assert len([line for line in said.splitlines() if line.startswith(("tornado-rt:", "  - "))]) in (1, 2)
    assert [
        secret for secret in (SECRET, "hush-hush", "password" * 8, "open sesame", "PRIVATE KEY-----\n") if secret in said
    ] == []


def test_it_starts_where_all_is_well(attempts: dict[str, tuple[int, str, set[str]]]) -> None:
    """Else the cases above would prove nothing. `check` judges alike, and opens no port."""
    status, said, _ = attempts["all is well"]
    assert (status, SECRET in said) == (0, False)
