"""Judges what one client was handed, in order: PROTOCOL section 5, promises 3 and 4. Knows positions, not documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tornado_rt.loadtest.events import Applied, Event, Joined, Saw, Synced

__all__ = ["Delivery"]


@dataclass(slots=True)
class Delivery:
    """A client's position while its events are walked through; ``None`` until it was first set."""

    client: str
    epoch: str = ""
    position: int | None = None
    connect_seq: int = 0

    def faults(self, event: Event) -> Iterator[tuple[str, str]]:
        """Take the next event; yields ``(rule, sentence)`` for what should not have been."""
        match event:
            case Joined():
                yield from self._joined(event)
            case Saw():
                yield from self._step(event.epoch, event.seq, "a broadcast of")
            case Applied(via="socket", duplicate=False) if event.seq and not (
                self.position is not None and event.seq <= self.position
            ):
                yield from self._step(event.epoch, event.seq, f"the ACK of {event.op!r} with")
            case Synced(via="socket") if event.mode != "view":
                yield from self._synced(event)
            case Synced(mode="delta"):
                yield from self._contiguous(event)

    def _joined(self, event: Joined) -> Iterator[tuple[str, str]]:
        if event.epoch == self.epoch and self.position is not None and event.seq < self.position:
            yield "lost", f"{self.client} had seq {self.position}, but on coming back the server stood at {event.seq}"
        self.connect_seq = event.seq
        resumed = event.since is not None and event.epoch == self.epoch
        self.epoch = event.epoch
        self.position = event.since if resumed else event.seq

    def _step(self, epoch: str, seq: int, what: str) -> Iterator[tuple[str, str]]:
        if epoch != self.epoch or self.position is None:
            yield "gap", f"{self.client} got {what} seq {seq} in epoch {epoch!r}, before any snapshot of it"
        elif seq <= self.position:
            yield "repeated", f"{self.client} got {what} seq {seq} when it had {self.position} already"
            return
        elif seq > self.position + 1:
            yield "gap", f"{self.client} got {what} seq {seq} when it had only {self.position}"
        self.epoch, self.position = epoch, seq

    def _synced(self, event: Synced) -> Iterator[tuple[str, str]]:
        position = self.position if event.epoch == self.epoch else None
        if event.in_connect and event.seq != self.connect_seq:
            yield "gap", f"{self.client} was synced to seq {event.seq} inside a CONNECT of seq {self.connect_seq}"
        if position is not None and event.seq < position:
            yield "lost", f"{self.client} had seq {position}, but a {event.mode} took it back to {event.seq}"
        if event.mode != "snapshot" and (position is None or event.from_seq > position):
            yield "gap", f"{self.client} had seq {position}, but got a {event.mode} from seq {event.from_seq} on"
        if event.mode == "delta":
            yield from self._contiguous(event)
        self.epoch, self.position = event.epoch, event.seq

    def _contiguous(self, event: Synced) -> Iterator[tuple[str, str]]:
        seqs = [change["seq"] for change in event.operations]
        wanted = list(range(event.from_seq + 1, event.seq + 1))
        if seqs != wanted:
            odd = sorted(set(wanted) ^ set(seqs)) or "their order"
            yield "gap", f"{self.client} got a delta from {event.from_seq} to {event.seq} that is wrong about {_short(odd)}"


def _short(seqs: list[int] | str) -> str:
    return str(seqs) if isinstance(seqs, str) or len(seqs) <= 10 else f"{seqs[:10]} and {len(seqs) - 10} more"
