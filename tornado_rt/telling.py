"""What one batch sounds like: to the other members, and to each sender (PROTOCOL sections 3 and 5). Makes frames, sends none.

Piece by piece and in the order of the seqs there are two lists: ``frames``, what others hear, and ``answers``, what the piece's
sender hears in its place. Either may be empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tornado_rt.answers import ack_of_results, duplicate_conflict
from tornado_rt.core.journal import text_of
from tornado_rt.core.operation import Applied, Batch, Conflict, Operation, Replayed, Resolution, Settled
from tornado_rt.errors import Refusal, ServerFault
from tornado_rt.intake import Item, OpenConflict
from tornado_rt.protocol.codec import broadcast, decode_json, encode_ack, encode_message, encode_nack, quote
from tornado_rt.submission import Hall, Submission
from tornado_rt.wire import encode_frame

if TYPE_CHECKING:
    from tornado_rt.picture import Picture
    from tornado_rt.session import Session

__all__ = ["Telling"]


class Telling:
    """``tells_others`` is false where nobody but the senders would hear it: then it need not be encoded."""

    __slots__ = ("_at", "_epoch", "_hall", "_recent", "_tells_others", "answers", "frames")

    def __init__(self, hall: Hall, picture: Picture, tells_others: bool) -> None:
        self.frames: list[bytes] = []
        self.answers: list[bytes] = []
        self._hall = hall
        self._at = hall.timestamp()
        self._epoch = picture.dashboard.epoch
        self._recent = picture.recent
        self._tells_others = tells_others

    def tell(self, submission: Submission) -> None:
        """Add the pieces of one submission that has been judged and, where it was applied, committed."""
        if submission.is_single:
            self._tell_single(submission)
        else:
            self._tell_several(submission)
        if submission.done is not None:
            submission.done(submission.items)

    def _tell_single(self, submission: Submission) -> None:
        item = submission.items[0]
        outcome = item.outcome
        session = submission.session
        answer = b""
        if type(outcome) is Applied:
            self.frames.append(self._told(item, outcome.stamp.seq))
            if session is not None:
                answer = self._ack(submission, outcome.stamp.seq, outcome.merged)
                if session.conflicts:
                    session.settle(submission.message)
        else:
            self.frames.append(b"")
            if session is not None:
                answer = self._answer(submission, item, session)
        self.answers.append(encode_frame(answer) if answer else b"")

    def _tell_several(self, submission: Submission) -> None:
        """The sender hears nothing of each, then one answer with everything in it."""
        leaves = submission.leaves()
        for item in leaves:
            if type(item.outcome) is Applied:
                self.frames.append(self._told(item, item.outcome.stamp.seq))
                self.answers.append(b"")
        session = submission.session
        if session is not None:
            self.frames.append(b"")
            self.answers.append(encode_frame(self._answer_to_several(submission, leaves, session)))

    def _told(self, item: Item, seq: int) -> bytes:
        self._recent.append((seq, item.record))
        return encode_frame(broadcast(text_of(item.record), seq, self._epoch)) if self._tells_others else b""

    def _ack(self, submission: Submission, seq: int, merged: tuple[str, ...] = (), duplicate: bool = False) -> bytes:
        return encode_ack(
            self._hall.new_id(),
            self._at,
            submission.author.user_json,
            None if submission.message_id is None else quote(submission.message_id),
            seq,
            merged,
            duplicate,
            type(submission.items[0].request) is Resolution,
        )

    def _answer(self, submission: Submission, item: Item, session: Session) -> bytes:
        """What the sender of one operation hears, where it was not simply applied."""
        match item.outcome:
            case Settled(version=version):
                session.settle(submission.message)
                return self._ack(submission, version)
            case Replayed(verdict=verdict) if verdict.conflict is None:
                return self._ack(submission, verdict.seq, verdict.merged, duplicate=True)
            case Replayed(request=request, verdict=verdict):
                assert verdict.conflict is not None
                operation = request.operation if isinstance(request, Resolution) else request
                if isinstance(operation, Operation):
                    self._open_conflict(session, verdict.conflict, operation)
                return self._message("CONFLICT_DETECTED", submission, duplicate_conflict(verdict.conflict))
            case Conflict() as conflict:
                assert item.conflict is not None
                self._open_conflict(session, item.conflict, conflict.operation)
                return self._message("CONFLICT_DETECTED", submission, item.conflict)
            case Refusal() as refusal:
                return self._nack(submission, refusal)
            case outcome:
                raise AssertionError(f"no single operation ends in {outcome!r}")

    def _open_conflict(self, session: Session, payload: bytes, operation: Operation) -> None:
        """The connection remembers a conflict that is still to be answered (PROTOCOL section 4)."""
        said = decode_json(payload)
        if "resolved" not in said:
            open_conflict = OpenConflict(operation, said["currentVersion"], 0.0)
            session.open_conflict(said["conflictId"], open_conflict, self._hall.monotonic())

    def _answer_to_several(self, submission: Submission, leaves: list[Item], session: Session) -> bytes:
        """One ACK with all results; but a NACK where nothing could be judged, or a batch was refused for itself."""
        first = leaves[0].outcome if leaves else None
        is_one_batch = len(leaves) == 1 and isinstance(leaves[0].request, Batch) and leaves[0].id is None
        if isinstance(first, ServerFault) or (is_one_batch and isinstance(first, Refusal)):
            return self._nack(submission, first)
        for item in leaves:
            if isinstance(item.outcome, Conflict) and item.conflict is not None:
                self._open_conflict(session, item.conflict, item.outcome.operation)
        return self._message("ACK", submission, ack_of_results(submission.items, self._at))

    def _message(self, type_: str, submission: Submission, payload: bytes) -> bytes:
        return encode_message(type_, self._hall.new_id(), self._at, submission.author.user, payload, submission.message_id)

    def _nack(self, submission: Submission, refusal: Refusal) -> bytes:
        return encode_nack(self._hall.new_id(), self._at, submission.author.user, submission.message_id, refusal)
