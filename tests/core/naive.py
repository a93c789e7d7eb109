"""A second, naive telling of the rules, to hold the real ones against: one flat history of events, searched from its end.

Nothing here is shared with ``core`` but the shape of an operation. It is slow, and meant to be read next to PROTOCOL section 4.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from tornado_rt.core.document import Author
from tornado_rt.core.operation import Operation

GONE = "(gone)"  # the text of no value


@dataclass
class Event:
    """``field`` None: the document was deleted; ``text`` GONE: the field was removed. ``text`` is canonical JSON."""

    seq: int
    author: tuple[str, str]
    name: str
    field: str | None
    text: str


@dataclass
class Naive:
    """``kept`` are the tombstones that were not dropped; ``versions`` what the layouts were after each change."""

    max_tombstones: int
    layout_history: int
    events: list[Event] = field(default_factory=list)
    kept: dict[tuple[str, str | None], int] = field(default_factory=dict)
    floor: int = 0
    left_over: int = 0
    alive: set[str] = field(default_factory=set)
    changed: dict[str, tuple[int, tuple[str, str]]] = field(default_factory=dict)
    versions: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)

    def copy(self) -> Naive:
        """Events and texts are never changed, so only what holds them is copied."""
        return replace(
            self,
            events=self.events.copy(),
            kept=self.kept.copy(),
            alive=self.alive.copy(),
            changed=self.changed.copy(),
            versions=self.versions.copy(),
        )

    # What is there

    def fields(self, name: str) -> dict[str, Any]:
        found: dict[str, str] = {}
        for event in self.events:
            if event.name == name and event.field is None:
                found = {}
            elif event.name == name and event.field is not None:
                found[event.field] = event.text
        return {field: json.loads(text) for field, text in found.items() if text != GONE}

    def state(self) -> dict[str, dict[str, Any]]:
        return {name: self.fields(name) for name in self.alive}

    def last(self, name: str, field: str) -> Event | None:
        """Who touched a field last, if that is still known: the field itself, or with the document that was deleted."""
        for event in reversed(self.events):
            if event.name == name and event.field in (field, None):
                is_removal = event.text == GONE
                is_known = not is_removal or self.kept.get((name, event.field)) == event.seq
                if is_known or event.field is None:
                    return event if is_known else None
                return self.death(name)
        return None

    def death(self, name: str) -> Event | None:
        seq = self.kept.get((name, None))
        return next((each for each in self.events if (each.seq, each.name, each.field) == (seq, name, None)), None)

    def text(self, name: str, field: str) -> str:
        fields = self.fields(name) if name in self.alive else {}
        return canonical(fields[field]) if field in fields else GONE

    # What collides

    def touched(self, operation: Operation) -> list[str]:
        name = operation.name
        if not operation.replace:
            return [*operation.data, *operation.unset]
        ever = dict.fromkeys(each.field for each in self.events if each.name == name and each.field is not None)
        had = [field for field in ever if (last := self.last(name, field)) is not None and last.field == field]
        return list(dict.fromkeys([*operation.data, *had]))

    def collisions(self, operation: Operation, base: int) -> set[str] | None:
        """The fields that conflict, or None; an empty set is a conflict over the document itself."""
        name = operation.name
        if operation.type == "WIDGET_DELETE":
            return self.collisions_of_delete(operation, base)
        if name not in self.alive:
            death = self.kept.get((name, None))
            if death is None:
                return set(operation.data) if base < self.floor else None
            return set(self.touched(operation)) if death > base or base < self.floor else None
        return {field for field in self.touched(operation) if self.collides(operation, field, base)} or None

    def collides(self, operation: Operation, field: str, base: int) -> bool:
        last = self.last(operation.name, field)
        current = self.text(operation.name, field)
        if last is None or last.seq <= base:
            return base < self.floor and current == GONE and field in operation.data and (last is None or last.field is None)
        if last.field is not None and last.author == author_of(operation.author):
            return False
        return sent(operation, field) != current

    def collisions_of_delete(self, operation: Operation, base: int) -> set[str] | None:
        name, author = operation.name, author_of(operation.author)
        found = {field for field in self.known_fields(name) if self.is_news(name, field, base, author)}
        seq, who = self.changed[name]
        return found if found or (seq > base and who != author) else None

    def merged(self, operation: Operation, base: int) -> set[str]:
        name, author = operation.name, author_of(operation.author)
        if name not in self.alive:
            return set()
        others = self.known_fields(name) - set(self.touched(operation))
        return {field for field in others if self.is_news(name, field, base, author)}

    def is_news(self, name: str, field: str, base: int, author: tuple[str, str]) -> bool:
        last = self.last(name, field)
        return last is not None and last.field is not None and last.seq > base and last.author != author

    def known_fields(self, name: str) -> set[str]:
        return {each.field for each in self.events if each.name == name and each.field is not None}

    # What happens

    def perform(self, operation: Operation, seq: int) -> None:
        name, author = operation.name, author_of(operation.author)
        if operation.type == "WIDGET_DELETE":
            for key in [key for key in self.kept if key[0] == name]:
                del self.kept[key]
            self.bury((name, None), seq)
            self.events.append(Event(seq, author, name, None, GONE))
            self.alive.discard(name)
        else:
            removed = [field for field in self.touched(operation) if field not in operation.data]
            self.alive.add(name)
            for field, value in operation.data.items():
                self.kept.pop((name, field), None)
                self.events.append(Event(seq, author, name, field, canonical(value)))
            for field in removed:
                last = self.last(name, field)
                if last is not None and last.field is not None:
                    self.bury((name, field), seq)
                    self.events.append(Event(seq, author, name, field, GONE))
        self.changed[name] = (seq, author)
        if operation.kind == "layout":
            versions = [each for each in self.versions.get(name, []) if each[0] != seq]
            self.versions[name] = [*versions, (seq, self.fields(name))][-1 - self.layout_history :]

    def bury(self, key: tuple[str, str | None], seq: int) -> None:
        self.kept.pop(key, None)
        self.kept[key] = seq

    def drop(self, dropped: list[tuple[str, str | None]]) -> None:
        """At the end of an operation: as many as are too many, and the oldest. What races left over may wait for a removal."""
        excess = max(0, len(self.kept) - self.max_tombstones)
        assert len(dropped) == excess or (not dropped and excess <= self.left_over), dropped
        self.left_over = excess - len(dropped)
        newest = max((self.kept.pop(key) for key in dropped), default=0)
        assert all(seq >= newest for seq in self.kept.values()), "a younger tombstone was dropped before an older one"
        self.floor = max(self.floor, newest)

    def drop_known(self, dropped: list[tuple[str, str | None]]) -> None:
        """Where others dropped tombstones at the same time: those of these that are still there."""
        for key in dropped:
            self.floor = max(self.floor, self.kept.pop(key, 0))
        self.left_over = max(0, len(self.kept) - self.max_tombstones)


def author_of(author: Author) -> tuple[str, str]:
    return (author.user, author.device)


def sent(operation: Operation, field: str) -> str:
    return canonical(operation.data[field]) if field in operation.data else GONE


def canonical(value: Any) -> str:
    """One text for what is the same JSON: floats that are whole numbers are written as such."""

    def plain(each: Any) -> Any:
        if isinstance(each, float) and each.is_integer():
            return int(each)
        if isinstance(each, list):
            return [plain(part) for part in each]
        if isinstance(each, dict):
            return {name: plain(part) for name, part in each.items()}
        return each

    return json.dumps(plain(value), sort_keys=True)
