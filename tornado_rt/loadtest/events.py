"""What a client did and what it was told, one event a line; knows JSON lines, not what is right or wrong about them.

A history is a list of events. Events of one client stand in the order in which that client met them; ``at`` is in seconds of a
monotonic clock that all recorders of one machine share, so files of several processes can be merged by it.

Every event names its ``client``: one *position* (PROTOCOL section 5, 3), which may outlive many sockets. An operation is named
by ``(dashboard, user, op)``, as the server names it; its ``type`` and ``payload`` are those of the wire.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self

__all__ = [
    "Answered",
    "Applied",
    "Conflicted",
    "Event",
    "Finished",
    "History",
    "Invoked",
    "Joined",
    "Refused",
    "Saw",
    "Synced",
    "Unanswered",
]

Json = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Event:
    """What all events have: when, who, and on which dashboard."""

    kind: ClassVar[str]

    client: str
    dashboard: str
    at: float = 0.0


@dataclass(slots=True, kw_only=True)
class Invoked(Event):
    """An operation is about to be sent. A repetition is invoked again, under the same ``op`` and with the same content.

    ``epoch`` is the one in which a ``baseVersion`` counts whose payload names none; ``""``: that of the server.
    """

    kind = "invoked"

    op: str
    user: str
    device: str = ""
    type: str
    payload: Json
    epoch: str = ""
    via: str = "socket"  # or "post", whose answers move no position


@dataclass(slots=True, kw_only=True)
class Answered(Event):
    """What all verdicts have. ``via`` is how the answer came."""

    op: str
    user: str
    via: str = "socket"


@dataclass(slots=True, kw_only=True)
class Applied(Answered):
    """ACK with a seq, or ``status: success``. ``seq`` is 0 where nothing had to be changed (a conflict given up)."""

    kind = "applied"

    epoch: str
    seq: int
    merged: list[str] = field(default_factory=list)
    duplicate: bool = False


@dataclass(slots=True, kw_only=True)
class Conflicted(Answered):
    """CONFLICT_DETECTED, or ``status: conflict``: nothing was changed. ``current_version`` is 0 where the answer had none."""

    kind = "conflicted"

    epoch: str = ""
    fields: list[str] = field(default_factory=list)
    current_version: int = 0
    remote: Json | None = None  # the values that it showed, where it showed any
    duplicate: bool = False


@dataclass(slots=True, kw_only=True)
class Refused(Answered):
    """NACK, or ``status: error``: nothing was changed, unless ``outcome_unknown``."""

    kind = "refused"

    code: str
    outcome_unknown: bool = False


@dataclass(slots=True, kw_only=True)
class Unanswered(Answered):
    """The socket was cut, or the time ran out, before a verdict came: it may have been applied."""

    kind = "unanswered"


@dataclass(slots=True, kw_only=True)
class Joined(Event):
    """CONNECT. ``since`` is the position that the client offered, None where it offered none."""

    kind = "joined"

    epoch: str
    seq: int
    since: int | None = None


@dataclass(slots=True, kw_only=True)
class Saw(Event):
    """A broadcast. ``change`` is ``{type, userId, payload}``, or None in a big history: then its order alone is judged."""

    kind = "saw"

    epoch: str
    seq: int
    change: Json | None = None


@dataclass(slots=True, kw_only=True)
class Synced(Event):
    """A position was set.

    ``mode`` is ``snapshot``, ``delta`` or ``merged``, as on the wire; ``view`` for what a client itself believes the documents
    to be at its position ``seq`` (documents without versions will do). ``from_seq`` is where it begins: ``fromSeq``, or the
    ``since`` that was asked for. ``in_connect`` marks a sync that came inside CONNECT; one by POST sets no position.
    """

    kind = "synced"

    epoch: str
    seq: int
    mode: str
    from_seq: int = 0
    operations: list[Json] = field(default_factory=list)
    widgets: Json = field(default_factory=dict)
    layouts: Json = field(default_factory=dict)
    deleted: Json = field(default_factory=dict)
    in_connect: bool = False
    via: str = "socket"


@dataclass(slots=True, kw_only=True)
class Finished(Event):
    """The end: a dashboard as the server has it after all writers have stopped. Without it a loss could not be shown."""

    kind = "finished"

    epoch: str
    seq: int
    widgets: Json = field(default_factory=dict)
    layouts: Json = field(default_factory=dict)


KINDS: Mapping[str, type[Event]] = {
    cls.kind: cls for cls in (Invoked, Applied, Conflicted, Refused, Unanswered, Joined, Saw, Synced, Finished)
}


class History:
    """An append-only record of events, in memory and, given a path, in a file of JSON lines as well.

    A line is handed to the kernel before ``record`` returns, so a killed recorder loses nothing and an operation that was sent
    has been recorded. ``keep=False`` spares the memory of a long run; read the file back for judging.
    """

    def __init__(self, path: Path | None = None, *, keep: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.events: list[Event] = []
        self._keep = keep
        self._clock = clock
        self._file: IO[str] | None = path.open("a", buffering=1, encoding="utf-8") if path is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def record(self, event: Event) -> None:
        """Append an event; one without a time gets the present."""
        if not event.at:
            event.at = self._clock()
        if self._keep:
            self.events.append(event)
        if self._file is not None:
            self._file.write(_line(event))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def counts(self) -> Counter[str]:
        """How many events there are of each kind: a run that did nothing has proved nothing."""
        return Counter(event.kind for event in self.events)

    @classmethod
    def read(cls, *paths: Path) -> Self:
        """Merge files by time. A last line that a crash cut short is left out; anything else that is no event is ValueError."""
        history = cls()
        history.events = list(heapq.merge(*(_events(path) for path in paths), key=lambda event: event.at))
        return history


def _line(event: Event) -> str:
    values: Json = {"kind": event.kind}
    for each in dataclasses.fields(event):
        value = getattr(event, each.name)
        usual = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        if value != usual:
            values[each.name] = value
    return json.dumps(values, separators=(",", ":")) + "\n"


def _events(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                values = json.loads(line)
                yield KINDS[values.pop("kind")](**values)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number} is no event: {error}") from error
