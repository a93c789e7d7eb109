"""Settings: what counts, what is refused in which words, and what is warned about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import tornado_rt
from tornado_rt.config import Settings, SettingsFault, about, load_settings, names_of, option_of
from tornado_rt.config.words import NOT_IN_FORCE
from tornado_rt.errors import StartFault

PRODUCTION = {"RT_ENV": "production", "RT_ALLOW_INSECURE_AUTH": "1", "RT_ALLOWED_HOSTS": "dash.example.com"}
SECRET = "0123456789abcdef0123456789abcdef"


def load(environ: dict[str, str], **overrides: object) -> Settings:
    return load_settings(environ, (), **overrides)[0]


def mistakes_of(environ: dict[str, str], **overrides: object) -> list[str]:
    with pytest.raises(SettingsFault) as caught:
        load_settings(environ, (), **overrides)
    return caught.value.mistakes


def warnings_of(environ: dict[str, str]) -> list[str]:
    return load_settings(environ, ())[1]


# --- what is read, and from where


def test_defaults_are_those_of_the_protocol() -> None:
    settings = load({})
    assert (settings.port, settings.host, settings.env) == (3000, "127.0.0.1", "development")
    assert settings.store == "sqlite:///tornado_rt.db"
    assert (settings.auth, settings.allow_insecure_auth) == ("trust", False)
    assert (settings.heartbeat_interval_seconds, settings.heartbeat_timeout_seconds) == (25, 60)
    assert (settings.max_connections, settings.max_connections_per_user, settings.max_connections_per_ip) == (20_000, 50, 0)
    assert (settings.rate_limit_per_second, settings.rate_burst, settings.user_rate_limit_per_second) == (50, 100, 200)
    assert settings.max_message_bytes == 262_144
    assert (settings.max_widgets, settings.max_layouts, settings.layout_history) == (1_000, 20, 50)
    assert (settings.max_fields, settings.max_document_bytes, settings.max_dashboard_bytes) == (500, 65_536, 4_194_304)
    assert (settings.slow_consumer_timeout_seconds, settings.accept_rate_per_second) == (30, 500)
    assert settings.shutdown_grace_seconds == 10
    assert (settings.conflict_strategy, settings.conflict_detection) == ("manual", True)
    assert settings.demo is True
    assert (settings.public_url, settings.metrics_token, settings.metrics_port) == (None, None, None)


@pytest.mark.parametrize(
    ("names", "field", "first", "second"),
    [
        (("RT_ENV", "NODE_ENV"), "env", "test", "development"),
        (("RT_STORE", "REDIS_URL"), "store", "memory://", "redis://localhost:6379"),
        (("HOST", "HOSTNAME"), "host", "192.0.2.7", "::1"),
        (("RT_PUBLIC_URL", "NEXT_PUBLIC_WS_URL"), "public_url", "ws://a.test/api/realtime", "ws://b.test/api/realtime"),
    ],
)
def test_the_first_name_counts_and_the_fallback_stands_in(names: tuple[str, str], field: str, first: str, second: str) -> None:
    assert getattr(load({names[0]: first, names[1]: second}), field) == first
    assert getattr(load({names[1]: second}), field) == second


def test_an_empty_variable_is_not_set() -> None:
    assert load({"PORT": "", "RT_STORE": "", "REDIS_URL": "redis://r"}).store == "redis://r"


def test_options_win_over_environment_and_that_over_files(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1001\nRT_MAX_WIDGETS=1\nRT_MAX_LAYOUTS=1\nRT_MAX_FIELDS=1\n")
    (tmp_path / ".env.local").write_text('PORT=1002\nRT_MAX_WIDGETS=2\nexport RT_MAX_LAYOUTS="2"\n')
    files = [tmp_path / ".env", tmp_path / ".env.local", tmp_path / ".env.missing"]
    settings, _ = load_settings({"PORT": "1003", "RT_MAX_WIDGETS": "3"}, files, port="1004", max_fields=None)
    assert (settings.port, settings.max_widgets, settings.max_layouts, settings.max_fields) == (1004, 3, 2, 1)


def test_a_file_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe")
    with pytest.raises(SettingsFault, match=r"\.env cannot be read"):
        load_settings({}, [tmp_path / ".env"])


def test_making_settings_directly_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "4000")
    assert Settings().port == 3000
    assert Settings(port=5).port == 5


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load({}).port = 1


# --- platforms


@pytest.mark.parametrize("name", ["3f2a91c0d7e5", "web-1.internal"])
def test_the_machines_own_name_is_no_bind_address(name: str) -> None:
    assert load({"HOSTNAME": name}).host == "127.0.0.1"


@pytest.mark.parametrize("name", ["localhost", "0.0.0.0", "::"])
def test_an_address_in_hostname_is_honoured(name: str) -> None:
    assert load({"HOSTNAME": name}).host == name


def test_production_binds_all_addresses_and_hides_the_demo() -> None:
    settings = load(PRODUCTION)
    assert (settings.host, settings.demo) == ("0.0.0.0", False)
    assert load({**PRODUCTION, "RT_DEMO": "1", "HOST": "127.0.0.1"}).demo is True


def test_a_dyno_is_production_behind_one_proxy() -> None:
    settings = load({**PRODUCTION, "RT_ENV": "", "DYNO": "web.1", "REDIS_URL": "rediss://h"})
    assert (settings.env, settings.trusted_proxies) == ("production", 1)
    assert load({"DYNO": "web.1", "NODE_ENV": "test", "RT_TRUSTED_PROXIES": "2"}).env == "test"
    assert load({"DYNO": "web.1", "NODE_ENV": "test", "RT_TRUSTED_PROXIES": "0"}).trusted_proxies == 0


@pytest.mark.parametrize("store", ["sqlite:///x.db", "memory://"])
def test_a_store_that_a_dyno_loses_is_served_with_a_loud_warning(store: str) -> None:
    [warning] = warnings_of({**PRODUCTION, "DYNO": "web.1", "RT_STORE": store})
    assert "LOST" in warning
    assert warnings_of({**PRODUCTION, "DYNO": "web.1", "REDIS_URL": "rediss://h"}) == []


# --- hosts, origins, addresses


def test_hosts_are_loopback_a_bound_address_and_the_public_one() -> None:
    assert load({}).allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert load({"HOST": "192.0.2.7"}).allowed_hosts == ("localhost", "127.0.0.1", "[::1]", "192.0.2.7")
    assert load({"HOST": "0.0.0.0", "RT_PUBLIC_URL": "wss://D.example.com:8443"}).allowed_hosts[-1] == "d.example.com"
    given = load({"RT_ALLOWED_HOSTS": "A.test, b.test:80 ,[::1]:3000,::2,*.d.test,", "RT_PUBLIC_URL": "wss://c.test"})
    assert given.allowed_hosts == ("a.test", "b.test", "[::1]", "[::2]", "*.d.test", "c.test")


@pytest.mark.parametrize("host", ["a.*", "http://a.test", "a.test/x", "a b"])
def test_what_is_no_host_name_is_refused(host: str) -> None:
    [mistake] = mistakes_of({"RT_ALLOWED_HOSTS": host})
    assert mistake.startswith("RT_ALLOWED_HOSTS is ")


def test_in_production_the_hosts_must_be_known() -> None:
    [mistake] = mistakes_of({**PRODUCTION, "RT_ALLOWED_HOSTS": ""})
    assert "RT_ALLOWED_HOSTS" in mistake
    assert "RT_PUBLIC_URL" in mistake
    assert load({**PRODUCTION, "RT_ALLOWED_HOSTS": "", "RT_PUBLIC_URL": "wss://a.test"}).env == "production"


def test_origins_are_brought_into_a_browsers_spelling() -> None:
    assert load({"RT_ALLOWED_ORIGINS": "https://App.Example.com/, http://localhost:5173"}).allowed_origins == (
        "https://app.example.com",
        "http://localhost:5173",
    )


@pytest.mark.parametrize("origin", ["https://*", "app.example.com", "https://a.test/path", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    assert "is not an origin" in mistakes_of({"RT_ALLOWED_ORIGINS": origin})[0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("https://a.test", "wss://a.test/api/realtime"),
        ("http://a.test:81/", "ws://a.test:81/api/realtime"),
        ("wss://a.test/api/realtime/", "wss://a.test/api/realtime"),
        ("wss://a.test/behind/api/realtime", "wss://a.test/behind/api/realtime"),
    ],
)
def test_the_public_address_is_completed(given: str, told: str) -> None:
    assert load({"RT_PUBLIC_URL": given}).public_url == told


@pytest.mark.parametrize("store", ["memory://", "sqlite:///a.db", "sqlite:////var/lib/a.db", "redis://h:1/0", "rediss://h"])
def test_stores_that_have_the_right_shape(store: str) -> None:
    assert load({"RT_STORE": store}).store == store


@pytest.mark.parametrize("store", ["sqlite://", "sqlite:///", "sqlite://a.db", "memory", "redis://", "postgres://h", "/a.db"])
def test_stores_that_have_not(store: str) -> None:
    assert mistakes_of({"RT_STORE": store})[0].startswith(f"RT_STORE is {store!r}: it must be memory://, sqlite:///")


def test_the_file_of_a_sqlite_store() -> None:
    assert load({"RT_STORE": "sqlite:///var/a.db"}).sqlite_path == Path("var/a.db")
    assert load({"RT_STORE": "sqlite:////var/a.db"}).sqlite_path == Path("/var/a.db")
    assert load({"RT_STORE": "memory://"}).sqlite_path is None


# --- mistakes


def test_all_mistakes_are_reported_at_once_each_by_the_name_that_was_used() -> None:
    environ = {
        "PORT": "http",
        "NODE_ENV": "staging",
        "RT_RATE_LIMIT": "nan",
        "RT_MAX_WIDGETS": "-1",
        "RT_LOG_LEVEL": "loud",
        "RT_DEMO": "perhaps",
    }
    assert mistakes_of(environ, rate_burst="1.5") == [
        "NODE_ENV is 'staging': it must be development, production or test",
        "PORT is 'http': it must be a whole number",
        "RT_MAX_WIDGETS is '-1': it must be at least 0",
        "RT_RATE_LIMIT is 'nan': it must be a number",
        "--rate-burst is '1.5': it must be a whole number",
        "RT_DEMO is 'perhaps': it must be 1 or 0 (or true, false, yes, no, on, off)",
        "RT_LOG_LEVEL is 'loud': it must be debug, info, warning or error",
    ]


def test_the_fault_reads_as_a_list_and_ends_the_start() -> None:
    with pytest.raises(StartFault, match=r"2 settings are wrong:\n  - PORT is '70000'.*\n  - RT_STORE is 'x'"):
        load({"PORT": "70000", "RT_STORE": "x"})
    with pytest.raises(StartFault, match=r"^One setting is wrong:\n  - PORT is "):
        load({"PORT": "x"})


def test_mistakes_never_show_secrets() -> None:
    told = "\n".join(mistakes_of({"RT_JWT_SECRET": "hush", "RT_STORE": "redus://user:p/a@ss@h", "RT_AUTH": "jwt"}))
    assert "hush" not in told
    assert "ss@" not in told
    assert "user" not in told
    assert "RT_JWT_SECRET is wrong: it must be at least 32 bytes long" in told


def test_a_long_value_is_cut() -> None:
    assert len(mistakes_of({"PORT": "9" * 10_000})[0]) < 200


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"RT_HEARTBEAT_TIMEOUT": "25"}, "RT_HEARTBEAT_TIMEOUT is '25': it must be longer than RT_HEARTBEAT_INTERVAL"),
        ({"RT_RATE_BURST": "0"}, "RT_RATE_BURST is '0': it must be at least 1 while RT_RATE_LIMIT is on"),
        ({"RT_METRICS_PORT": "3000"}, "RT_METRICS_PORT is '3000': it must differ from PORT"),
        ({"RT_PUBLIC_URL": "dash.example.com"}, "RT_PUBLIC_URL is 'dash.example.com': it must be an address such as"),
        ({"RT_MAX_CONNECTIONS": "inf"}, "RT_MAX_CONNECTIONS is 'inf': it must be a whole number"),
        ({"RT_SHUTDOWN_GRACE": "inf"}, "RT_SHUTDOWN_GRACE is 'inf': it must be a number"),
    ],
)
def test_settings_that_do_not_fit_together(environ: dict[str, str], said: str) -> None:
    [mistake] = mistakes_of(environ)
    assert mistake.startswith(said)


def test_zero_turns_limits_off() -> None:
    names = ["RT_RATE_LIMIT", "RT_RATE_BURST", "RT_USER_RATE_LIMIT", "RT_MAX_CONNECTIONS", "RT_MAX_CONNECTIONS_PER_USER"]
    settings = load({**dict.fromkeys(names, "0"), "RT_HEARTBEAT_TIMEOUT": "0"})
    assert settings.rate_limit_per_second == settings.rate_burst == settings.max_connections == 0


# --- authentication


def test_trust_is_refused_in_production_unless_asked_for() -> None:
    [mistake] = mistakes_of({**PRODUCTION, "RT_ALLOW_INSECURE_AUTH": "0"})
    assert "RT_ALLOW_INSECURE_AUTH=1" in mistake
    assert load(PRODUCTION).auth == "trust"


def test_tokens_need_exactly_one_key() -> None:
    assert "none is set" in mistakes_of({"RT_AUTH": "jwt"})[0]
    assert "2 are set" in mistakes_of({"RT_AUTH": "jwt", "RT_JWT_SECRET": SECRET, "RT_JWT_PUBLIC_KEY": "pem"})[0]
    assert load({"RT_AUTH": "jwt", "RT_JWT_SECRET": SECRET}).jwt_algorithms == ("HS256",)
    assert load({"RT_AUTH": "jwt", "RT_JWKS_URL": "https://a.test/k"}).jwt_algorithms == ("RS256",)


@pytest.mark.parametrize("algorithms", ["none", "RS256", "HS256,RS256"])
def test_a_secret_takes_algorithms_of_its_own_family_alone(algorithms: str) -> None:
    environ = {"RT_AUTH": "jwt", "RT_JWT_SECRET": SECRET, "RT_JWT_ALGORITHMS": algorithms}
    assert mistakes_of(environ)[0].endswith("with a secret it may name HS256, HS384, HS512")


def test_a_secret_that_could_be_guessed_is_refused_in_production() -> None:
    guessable = {**PRODUCTION, "RT_AUTH": "jwt", "RT_JWT_SECRET": "changechange" * 4}
    [mistake] = mistakes_of(guessable)
    assert mistake.startswith("RT_JWT_SECRET is wrong: it repeats itself")
    assert load({**guessable, "RT_ENV": "development"}).auth == "jwt"
    assert load({**guessable, "RT_JWT_SECRET": SECRET}).auth == "jwt"


def test_keys_come_by_a_safe_way_in_production() -> None:
    """Whoever stands between could put in a key of his own, and be anybody."""
    environ = {**PRODUCTION, "RT_AUTH": "jwt", "RT_JWKS_URL": "http://login.example.com/keys"}
    [mistake] = mistakes_of(environ)
    assert "it must begin with https://" in mistake
    for url in ("https://login.example.com/keys", "http://localhost:8080/keys", "http://[::1]/keys"):
        assert load({**environ, "RT_JWKS_URL": url}).jwks_url == url
    assert load({**environ, "RT_ENV": "development"}).auth == "jwt"


def test_settings_that_nothing_obeys_yet_are_warned_about_unless_they_are_off() -> None:
    assert warnings_of({"RT_REDIS_WAIT_REPLICAS": "2"}) == [
        "RT_REDIS_WAIT_REPLICAS is set, but this version does not act on it yet"
    ]
    assert warnings_of({"RT_REDIS_WAIT_REPLICAS": "0", "RT_MAX_WIDGETS": "3"}) == []


def test_the_list_of_settings_that_nothing_obeys_is_true() -> None:
    used = set()
    for name in ("app.py", "lifecycle.py"):
        tree = ast.parse((Path(tornado_rt.__file__).parent / name).read_text())
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
        used |= {node.attr for node in attributes if node.value.id == "settings"}
    for_the_start_alone = {"env", "allow_insecure_auth", "log_level", "log_format"}
    assert Settings.model_fields.keys() - used - for_the_start_alone == NOT_IN_FORCE


def test_secrets_do_not_show_in_the_settings_text() -> None:
    text = repr(load({"RT_JWT_SECRET": SECRET, "RT_METRICS_TOKEN": "hush-hush", "RT_STORE": "redis://:pass@h"}))
    assert SECRET not in text
    assert "hush" not in text
    assert "pass@" not in text


# --- misspelt names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RT_RATELIMIT", "RT_RATE_LIMIT"),
        ("RT_PORT", "PORT"),
        ("RT_ALLOWED_ORIGIN", "RT_ALLOWED_ORIGINS"),
        ("RT_HEARTBEAT_INTERVALL", "RT_HEARTBEAT_INTERVAL"),
    ],
)
def test_a_misspelt_name_is_warned_about_with_the_nearest(name: str, meant: str) -> None:
    assert warnings_of({name: "1"}) == [f"{name} is not a setting and is ignored; did you mean {meant}?"]


def test_other_variables_are_nobodys_business() -> None:
    assert warnings_of({"PATH": "/bin", "PORTS": "1", "NODE_OPTIONS": "x"}) == []


# --- the table itself


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_described_with_names_and_a_unit_where_it_counts(field: str) -> None:
    words = about(field)
    assert words.text.endswith(".")
    assert words.default
    assert re.fullmatch(r"--[a-z-]+", option_of(field))
    assert all(re.fullmatch(r"[A-Z][A-Z_]+", name) for name in names_of(field))
    if re.search(r"_(seconds|per_second|bytes)$|^max_", field):
        assert words.unit
