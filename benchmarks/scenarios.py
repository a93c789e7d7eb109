"""What is measured: the scenarios, how one run of each is made, and the figures that are read from them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Figure
from benchmarks.sides import BenchFault, Cores, Load, Options, Running, SideName, begin_load, fresh_directory, served, start

# Beyond what a run is told to take: connecting, settling, draining, a slow machine.
GRACE_SECONDS = 120
STATS_PATH = "/api/realtime/stats"
BOTH: tuple[SideName, ...] = ("node", "durable")
ALL: tuple[SideName, ...] = ("node", "durable", "memory")
GUARDED: tuple[SideName, ...] = (*ALL, "guarded")
SLOW_MEMBERS = 50
MEMORY_FIELDS = ("outboxBytes", "bufferedBytes")


@dataclass(frozen=True, slots=True)
class Scenario:
    """``run(side, cores, quick)`` makes one run on a fresh server. ``long`` ones are not repeated unless asked for."""

    name: str
    sides: tuple[SideName, ...]
    run: Callable[[SideName, Cores, bool], dict[str, Any]]
    long: bool = False


def _loaded(options: Options, quick: Options) -> Callable[..., dict[str, Any]]:
    """A run that is one call of the load client; ``quick`` says what a quick look changes."""

    def run(side: SideName, cores: Cores, is_quick: bool) -> dict[str, Any]:
        chosen = {**options, **(quick if is_quick else {})}
        with served(side, cores) as server:
            return begin_load(server, cores, chosen).finish(_seconds(chosen))

    return run


def _seconds(options: Options) -> float:
    return GRACE_SECONDS + sum(float(options.get(name, 0)) for name in ("secs", "warm", "drain-secs"))


def _catch_up(spread: bool) -> Callable[..., dict[str, Any]]:
    """Clients were at operation 1,000 and left; 10,000 more followed; the server was started anew; all come back at once.

    With ``spread`` they had left one after the other, each at an operation of its own, so that hardly two are owed the same.
    """

    def run(side: SideName, cores: Cores, is_quick: bool) -> dict[str, Any]:
        before, missed, conns, widgets = (100, 1_000, 100, 40) if is_quick else (1_000, 10_000, 1_000, 40)
        with fresh_directory() as directory:
            written = _write(start(side, directory, cores), cores, before + missed, widgets)
            server = start(side, directory, cores)
            try:
                options: Options = {"mode": "resume", "conns": conns, "widgets": widgets, "secs": 60}
                options |= {
                    "since": before,
                    "epoch": written["epoch"],
                    "target": written["seq"],
                    "spread": missed if spread else 0,
                }
                measured = begin_load(server, cores, options).finish(GRACE_SECONDS)
                stats = server.get_json(STATS_PATH)
            finally:
                server.stop()
        # Two dashboards were opened: theirs, and that of the probe.
        reads = stats.get("storeReads")
        measured["store_reads_per_dashboard"] = reads / 2 if isinstance(reads, int) else None
        measured["unconverged"] = conns - measured["converged"]
        lag = stats.get("loopLag")
        measured["loop_lag_max_ms"] = lag["max"] * 1000 if isinstance(lag, dict) and "max" in lag else None
        return measured

    return run


def _write(server: Running, cores: Cores, operations: int, widgets: int) -> dict[str, Any]:
    """Writes ``operations`` to one dashboard and stops the server."""
    try:
        load = begin_load(server, cores, {"mode": "publish", "ops": operations, "widgets": widgets, "window": 32})
        written = load.finish(GRACE_SECONDS)
    finally:
        server.stop()
    if written["seq"] != operations:
        raise BenchFault(f"Of {operations} operations {written['seq']:.0f} were written.")
    return written


def _slow_reader(side: SideName, cores: Cores, is_quick: bool) -> dict[str, Any]:
    """The same load without and with a member that reads 1 kB/s, each on a fresh server."""
    options: Options = {"mode": "slow", "conns": SLOW_MEMBERS, "rate": 500, "widgets": 40}
    options |= {"secs": 5, "warm": 1, "drain-secs": 30} if is_quick else {"secs": 60, "warm": 5, "drain-secs": 120}
    with served(side, cores) as server:
        without, _ = _watched(server, begin_load(server, cores, options), _seconds(options))
    with served(side, cores) as server:
        measured, held_bytes = _watched(server, begin_load(server, cores, options | {"slow": 1}), _seconds(options))
    measured["each_delivery_without"] = without["each_delivery"]
    measured["p99_added_ms"] = measured["each_delivery"]["p99_ms"] - without["each_delivery"]["p99_ms"]
    measured["rss_growth_added_kb"] = measured["rss_growth_kb"] - without["rss_growth_kb"]
    measured["held_kb"] = None if held_bytes is None else held_bytes / 1024
    measured["unconverged"] = 1 - measured["slow_converged"]
    return measured


def _watched(server: Running, load: Load, timeout_seconds: float) -> tuple[dict[str, Any], int | None]:
    """What ``load`` measures, and the most that the server said it held for any one client (None: it does not say)."""
    most: int | None = None
    deadline = time.monotonic() + timeout_seconds
    while load.is_running and time.monotonic() < deadline:
        for client in server.get_json(STATS_PATH).get("clients", []):
            held = next((client[name] for name in MEMORY_FIELDS if name in client), None)
            if held is not None:
                most = max(most or 0, held)
        time.sleep(1)
    return load.finish(max(1.0, deadline - time.monotonic())), most


_CLOSED: Options = {"mode": "fanout", "conns": 1000, "secs": 4, "warm": 1}
_BY_CLOCK: Options = {"mode": "fanout", "conns": 1000, "rate": 10, "secs": 20, "warm": 2}
_IDLE: Options = {"mode": "idle", "conns": 10_000, "secs": 75, "warm": 2}
_BRIEF: Options = {"secs": 1, "warm": 0.5}
_BRIEF_IDLE: Options = {"conns": 1_000, "secs": 5}

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("fanout-1000-w4", GUARDED, _loaded({**_CLOSED, "window": 4}, _BRIEF)),
    Scenario("fanout-1000-w4-last", ALL, _loaded({**_CLOSED, "window": 4, "pace": "last"}, _BRIEF)),
    Scenario("fanout-1000-w1", ALL, _loaded({**_CLOSED, "window": 1}, _BRIEF)),
    Scenario("fanout-10", ALL, _loaded({**_CLOSED, "conns": 10, "window": 4}, _BRIEF)),
    Scenario("ack-100x8", GUARDED, _loaded({"mode": "ack", "conns": 100, "window": 8, "secs": 4, "warm": 1}, _BRIEF)),
    Scenario("latency-1000", BOTH, _loaded(_BY_CLOCK, {"secs": 3, "warm": 1})),
    Scenario("handshakes", BOTH, _loaded({"mode": "handshake", "conns": 5_000}, {"conns": 1_000})),
    Scenario("idle-own", BOTH, _loaded({**_IDLE, "room": "own"}, _BRIEF_IDLE), long=True),
    Scenario("idle-one", BOTH, _loaded({**_IDLE, "room": "one"}, _BRIEF_IDLE), long=True),
    Scenario("catch-up", ("durable",), _catch_up(spread=False)),
    Scenario("catch-up-spread", ("durable",), _catch_up(spread=True)),
    Scenario("slow-reader", BOTH, _slow_reader, long=True),
)


def _delivery(title: str, scenario: str, limit: float, memory_limit: float | None) -> tuple[Figure, Figure]:
    """CPU per delivery, for both of our stores."""
    return (
        Figure(title, scenario, "durable", "us_per_delivery", "us", limit, "node"),
        Figure(title, scenario, "memory", "us_per_delivery", "us", memory_limit, None if memory_limit is None else "node"),
    )


def _idle(scenario: str, what: str) -> tuple[Figure, Figure]:
    return (
        Figure(f"memory per idle connection, 10,000 {what}", scenario, "durable", "kb_per_conn", "kB", 20, digits=1),
        Figure(f"CPU at rest with heartbeats, 10,000 {what}", scenario, "durable", "server_cpu_share", "core", 0.1, digits=3),
    )


def _catch_up_figures(scenario: str, what: str) -> tuple[Figure, ...]:
    title = f"1,000 return after 10,000 operations, {what}: "
    return (
        Figure(title + "clients that did not converge", scenario, "durable", "unconverged", "", 0, digits=0),
        Figure(title + "store reads", scenario, "durable", "store_reads_per_dashboard", "per dashboard", 1, digits=1),
        Figure(title + "loop lag p99 (PING to PONG)", scenario, "durable", "probe.p99_ms", "ms", 250, digits=1),
        Figure(title + "largest loop lag the server saw", scenario, "durable", "loop_lag_max_ms", "ms", None, digits=1),
        Figure(title + "time until the last has all", scenario, "durable", "measured_s", "s", None),
    )


FIGURES: tuple[Figure, ...] = (
    *_delivery("CPU per delivery, 1,000 members, 4 in flight", "fanout-1000-w4", 0.45, None),
    Figure("the same with every limit on", "fanout-1000-w4", "guarded", "us_per_delivery", "us", 0.5, "node"),
    *_delivery("the same, counted in flight until the last delivery", "fanout-1000-w4-last", 0.45, None),
    *_delivery("CPU per delivery, 1,000 members, 1 in flight", "fanout-1000-w1", 1.0, None),
    *_delivery("CPU per delivery, 10 members, 4 in flight", "fanout-10", 1.0, None),
    Figure("CPU per ACK, 100 dashboards, 8 in flight each", "ack-100x8", "durable", "us_per_ack", "us", 1.0, "node", digits=1),
    Figure("CPU per ACK, 100 dashboards, 8 in flight each", "ack-100x8", "memory", "us_per_ack", "us", 0.7, "node", digits=1),
    Figure("the same with every limit on", "ack-100x8", "guarded", "us_per_ack", "us", 1.1, "node", digits=1),
    Figure("send to last delivery, 1,000 members, 10/s, p50", "latency-1000", "durable", "last_delivery.p50_ms", "ms", None),
    Figure(
        "send to last delivery, 1,000 members, 10/s, p99",
        "latency-1000",
        "durable",
        "last_delivery.p99_ms",
        "ms",
        1.0,
        "node",
    ),
    Figure("handshakes", "handshakes", "durable", "handshakes_per_s", "1/s", 1.0, "node", better="higher", digits=0),
    Figure("CPU per handshake", "handshakes", "durable", "us_per_handshake", "us", None, digits=0),
    *_idle("idle-own", "on dashboards of their own"),
    *_idle("idle-one", "on one dashboard"),
    *_catch_up_figures("catch-up", "all from one place"),
    *_catch_up_figures("catch-up-spread", "each from its own place"),
    Figure("slow reader (1 kB/s, 500 updates/s): closed", "slow-reader", "durable", "slow_closed", "", 0, digits=0),
    Figure("slow reader: final state not reached", "slow-reader", "durable", "unconverged", "", 0, digits=0),
    Figure("slow reader: held for it in the process", "slow-reader", "durable", "held_kb", "kB", 64, digits=1),
    Figure(
        "slow reader: growth of the process against without it",
        "slow-reader",
        "durable",
        "rss_growth_added_kb",
        "kB",
        None,
        digits=0,
    ),
    Figure(
        "slow reader: the others' p99, more than without it",
        "slow-reader",
        "durable",
        "p99_added_ms",
        "ms",
        2,
        wanted_text="unchanged (within 2 ms)",
    ),
    Figure("slow reader: catch-ups it was sent", "slow-reader", "durable", "slow_catch_ups", "", None, digits=0),
)
