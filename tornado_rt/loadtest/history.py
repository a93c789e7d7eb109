"""The judge of recorded histories: nothing lost, doubled, reordered or overwritten unseen. Knows the protocol, not the server.

Record with a ``History`` (by hand, or from wire messages with ``witness.Witness``), close it with a ``Finished`` event for each
dashboard, then::

    violations = check(History.read(*paths))

Each ``Violation`` is a sentence with its evidence. The rules, by name (PROTOCOL sections 4 and 5):

========== =========================================================================================================
lost       what was acknowledged or shown is in the final log, at its seq
doubled    no operation stands in the log twice; what was refused stands in it nowhere
misplaced  an ACK's seq is the operation's place in the log, and no one else's
verdict    a repetition gets the first one's verdict, marked as a duplicate
hole       seqs are dense: 1, 2, 3, ... up to the final one
split      all who were told of a seq were told the same
gap        a client is handed position + 1 next, and nothing of an epoch that it has no snapshot of
repeated   and is handed nothing twice
view       documents handed out, and those that clients show, are what the log up to their seq folds to
stale      no edit overwrote what another device had set after the edit's base
needless   no conflict without a touched field that another device had changed after the base
order      what was sent after an ACK was in hand stands behind it
unfinished the final state is known
========== =========================================================================================================
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tornado_rt.loadtest.delivery import Delivery
from tornado_rt.loadtest.events import (
    Answered,
    Applied,
    Conflicted,
    Event,
    Finished,
    History,
    Invoked,
    Joined,
    Refused,
    Saw,
    Synced,
    Unanswered,
)
from tornado_rt.loadtest.fold import Fold
from tornado_rt.loadtest.ledger import Entry, Ledger, Log, Operation

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
    "Violation",
    "check",
]

VERDICTS_KEPT = 10_000  # operations of a dashboard after which a repetition may be judged anew
SHOWN_PER_RULE = 20  # a broken server breaks a rule thousands of times: so many sentences are enough


@dataclass(slots=True, frozen=True)
class Violation:
    """A broken rule and the evidence for it, in one sentence."""

    rule: str
    dashboard: str
    sentence: str

    def __str__(self) -> str:
        return f"[{self.rule}] dashboard {self.dashboard!r}: {self.sentence}"


def check(
    history: Iterable[Event], *, one_clock: bool = True, conflicts: bool = True, new_epochs: bool = False
) -> list[Violation]:
    """Judge a history; an empty list means that nothing is wrong with it.

    ``one_clock``: times can be compared between clients (one machine). ``conflicts``: the server detects conflicts, and leaves
    them to people. ``new_epochs``: a log may be lost and begun anew, as in a Redis failover; each epoch is judged by itself.
    At most 20 sentences a rule and dashboard are returned, the last of them saying how many more there are.
    """
    return _Judge(Ledger(history), one_clock, conflicts, new_epochs).judge()


class _Judge:
    def __init__(self, ledger: Ledger, one_clock: bool, conflicts: bool, new_epochs: bool) -> None:
        self.ledger = ledger
        self.one_clock = one_clock
        self.conflicts = conflicts
        self.new_epochs = new_epochs
        self.violations: list[Violation] = []
        self.said: Counter[tuple[str, str]] = Counter()

    def say(self, rule: str, dashboard: str, sentence: str) -> None:
        self.said[rule, dashboard] += 1
        if self.said[rule, dashboard] <= SHOWN_PER_RULE:
            self.violations.append(Violation(rule, dashboard, sentence))

    def judge(self) -> list[Violation]:
        for stray in self.ledger.strays:
            self.say("verdict", stray.dashboard, f"{stray.client} got a verdict on {stray.op!r}, which it never sent")
        self._operations()
        for log in list(self.ledger.logs.values()):
            for sentence in log.split:
                self.say("split", log.dashboard, sentence)
        self._unacknowledged()
        for log in self.ledger.logs.values():
            self._end(log)
        self._documents()
        for (dashboard, client), events in self.ledger.clients.items():
            delivery = Delivery(client)
            for event in events:
                for rule, sentence in delivery.faults(event):
                    self.say(rule, dashboard, sentence)
        for (rule, dashboard), count in self.said.items():
            if count > SHOWN_PER_RULE:
                self.violations.append(Violation(rule, dashboard, f"and {count - SHOWN_PER_RULE} more of the kind"))
        return self.violations

    # -- operations and their verdicts -----------------------------------------------------------------------------------

    def _operations(self) -> None:
        places: dict[tuple[str, str, str], list[Operation]] = defaultdict(list)
        for operation in self.ledger.operations.values():
            self._verdicts(operation)
            for answer in operation.applied:
                self._place(operation, answer)
            if operation.outcome == "applied":
                places[operation.dashboard, operation.user, operation.op].append(operation)
        for (dashboard, user, op), operations in places.items():
            if len(operations) > 1 and not self._forgotten(operations):
                self.say(
                    "verdict", dashboard, f"the id {op!r} of {user!r} was accepted for {len(operations)} different contents"
                )

    def _forgotten(self, operations: Iterable[Operation]) -> bool:
        """Whether verdicts may have been dropped in between: only then is a repetition a new operation."""
        seqs = [answer.seq for operation in operations for answer in operation.applied]
        return max(seqs) - min(seqs) >= VERDICTS_KEPT

    def _verdicts(self, operation: Operation) -> None:
        applied, conflicted = operation.applied, operation.conflicted
        seqs = sorted({(answer.epoch, answer.seq) for answer in applied})
        say, dashboard = self.say, operation.dashboard
        if applied and self._forgotten([operation]):
            return
        if len(seqs) > 1 and not (self.new_epochs and len({epoch for epoch, _ in seqs}) == len(seqs)):
            say("doubled", dashboard, f"{operation} was acknowledged at {' and '.join(f'seq {seq}' for _, seq in seqs)}")
        if applied and conflicted:
            say("verdict", dashboard, f"{operation} was applied at seq {applied[0].seq} and also answered with a conflict")
        if len({(tuple(answer.fields), answer.current_version) for answer in conflicted}) > 1:
            say("verdict", dashboard, f"{operation} was answered with {len(conflicted)} different conflicts")
        verdicts: list[Applied | Conflicted] = [*applied, *conflicted]
        fresh = [answer for answer in verdicts if not answer.duplicate]
        if len(fresh) > 1 and not self.new_epochs:
            say("verdict", dashboard, f"{operation} was judged {len(fresh)} times: {len(fresh)} verdicts are no duplicates")
        for answer in operation.answers[operation.answers_before :]:
            fresh_seq = answer.seq if isinstance(answer, Applied) and not answer.duplicate else 0
            if operation.payload.get("resolution") == "remote":
                continue  # nothing was written: its seq is that of what was kept
            if self.one_clock and 0 < fresh_seq <= operation.shown_before and applied[0].epoch == operation.epoch:
                sentence = f"{operation} was repeated when seq {fresh_seq}, its own, was known, but its ACK is no duplicate"
                say("verdict", dashboard, sentence)
        if not fresh and (applied or conflicted) and operation.invoked == 1:
            say("verdict", dashboard, f"{operation} was sent once, but its verdict says that it is a duplicate")

    def _place(self, operation: Operation, answer: Applied) -> None:
        if operation.payload.get("resolution") == "remote":
            return
        if not answer.seq:
            if operation.type != "CONFLICT_RESOLVED":
                self.say("misplaced", operation.dashboard, f"{operation} was acknowledged without a seq")
            return
        entries = self.ledger.log(operation.dashboard, answer.epoch).entries
        entry = entries.get(answer.seq)
        if entry is None:
            edits = [] if operation.says_less else operation.edits
            about = (operation.user, operation.type, operation.payload, edits, operation.text)
            entries[answer.seq] = Entry(answer.seq, *about, f"the ACK to {answer.client}", operation)
        elif entry.op is not None and entry.op is not operation:
            self.say("misplaced", operation.dashboard, f"{operation} and {entry.op} were both acknowledged at seq {answer.seq}")
        elif entry.user != operation.user or (not operation.says_less and entry.text != operation.text):
            sentence = f"{operation}, {operation.text}, was acknowledged at seq {answer.seq}, but {entry.source} was told that "
            self.say("misplaced", operation.dashboard, f"{sentence}this is {entry.text} by {entry.user!r}")
        else:
            entry.op = operation
        before = operation.acked_before
        if self.one_clock and before is not None and before[0] == answer.epoch and before[1] >= answer.seq:
            sentence = f"{operation} stands at seq {answer.seq}, but was first sent after {before[2]!r} was acknowledged at"
            self.say("order", operation.dashboard, f"{sentence} seq {before[1]}")

    def _unacknowledged(self) -> None:
        """Find an operation for each entry that no ACK speaks of."""
        known: dict[tuple[str, str, str], list[Operation]] = defaultdict(list)
        users, resolvers = set(), set()
        for operation in self.ledger.operations.values():
            known[operation.dashboard, operation.user, operation.text].append(operation)
            users.add((operation.dashboard, operation.user))
            if operation.says_less and operation.outcome == "maybe":
                resolvers.add((operation.dashboard, operation.user))
        alike = {key for key, operations in known.items() if len(operations) > 1}
        for log in self.ledger.logs.values():
            for entry in log.entries.values():
                whose, key = (log.dashboard, entry.user), (log.dashboard, entry.user, entry.text)
                if entry.op is None and whose in users:
                    entry.is_guess = key in alike
                    self._explain(log, entry, known[key], whose in resolvers)

    def _explain(self, log: Log, entry: Entry, candidates: list[Operation], may_be_resolved: bool) -> None:
        """``may_be_resolved``: a conflict's "local" may have brought its operation into the log after all."""
        for operation in candidates:
            if operation.outcome == "maybe":
                entry.op = operation
                candidates.remove(operation)  # it can explain one entry only
                return
        where = f"seq {entry.seq} ({entry.text} by {entry.user!r}, told to {entry.source})"
        applied = next((operation for operation in candidates if operation.outcome == "applied"), None)
        if applied is not None:
            seqs = sorted({answer.seq for answer in applied.applied})
            self.say("doubled", log.dashboard, f"{where} has the content of {applied}, which stands at {seqs} already")
        elif may_be_resolved:
            return
        elif candidates:
            sentence = f"{where} has the content of {candidates[0]}, which was refused, or stands elsewhere"
            self.say("doubled", log.dashboard, sentence)
        else:
            self.say("doubled", log.dashboard, f"{where} is an operation that nobody sent")

    # -- the end of the log ----------------------------------------------------------------------------------------------

    def _end(self, log: Log) -> None:
        final = self.ledger.finals.get(log.dashboard)
        if final is None:
            if log.shown:
                self.say("unfinished", log.dashboard, "the history does not tell how the dashboard stood at the end")
        elif final.epoch != log.epoch:
            if log.shown and not self.new_epochs:
                self.say("lost", log.dashboard, f"epoch {log.epoch!r} with {log.shown} seqs was followed by {final.epoch!r}")
        else:
            for seq in sorted(seq for seq in log.entries if seq > final.seq):
                entry = log.entries[seq]
                what = (
                    f"{entry.op} was acknowledged at" if entry.op and entry.op.outcome == "applied" else f"{entry.source} saw"
                )
                self.say("lost", log.dashboard, f"{what} seq {seq}, but the final log ends at {final.seq}")
            if log.shown > max(final.seq, max(log.entries, default=0)):
                self.say(
                    "lost", log.dashboard, f"{log.shown_by} spoke of seq {log.shown}, but the final log ends at {final.seq}"
                )
            self._holes(log, final.seq)

    def _holes(self, log: Log, end: int) -> None:
        """A seq that nobody was told of must be the place of an operation whose sender never learnt its fate."""
        start = Fold.start_of(log)
        holes = [seq for seq in range(start + 1, end + 1) if seq not in log.entries]
        placed = {id(entry.op) for entry in log.entries.values() if entry.op is not None}
        open_ops = [
            operation
            for operation in self.ledger.operations.values()
            if operation.dashboard == log.dashboard and operation.outcome == "maybe" and id(operation) not in placed
        ]
        if len(holes) > len(open_ops):
            shown = holes[:10]
            sentence = f"{len(holes)} seqs up to {end} hold nothing that anyone sent or saw, the first {shown}; "
            self.say("hole", log.dashboard, f"{sentence}{len(open_ops)} operations have an unknown outcome")

    # -- documents -------------------------------------------------------------------------------------------------------

    def _documents(self) -> None:
        folds: dict[tuple[str, str], Fold] = {}
        for key, log in self.ledger.logs.items():
            fold = folds[key] = Fold(log, conflicts=self.conflicts)
            for rule, sentence in fold.run():
                self.say(rule, log.dashboard, sentence)
        for (dashboard, _), events in self.ledger.clients.items():
            for event in events:
                if isinstance(event, Synced | Finished):
                    for sentence in (
                        folds[dashboard, event.epoch].differences(event) if (dashboard, event.epoch) in folds else ()
                    ):
                        self.say("view", dashboard, sentence)
        for operation in self.ledger.operations.values():
            for conflict in operation.conflicted:
                if self.conflicts and (operation.dashboard, conflict.epoch) in folds:
                    fold = folds[operation.dashboard, conflict.epoch]
                    for rule, sentence in fold.conflict_faults(operation, conflict):
                        self.say(rule, operation.dashboard, sentence)
