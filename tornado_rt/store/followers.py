"""Who wants to hear of a dashboard's commits, for stores whose rooms live in one process; knows no log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tornado_rt.store.base import Contents

__all__ = ["Follower", "Followers"]

Follower = Callable[[Contents], None]


class Followers:
    """The followers of each dashboard, each with the store object ("the process") that it follows through.

    A follower is told what was committed through *other* objects. On one and the same object nobody can say which follower a
    commit came from: one alone is taken for the committer and told nothing, several are all told, the committer too.
    """

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[object, Follower]]] = {}

    def add(self, dashboard_id: str, through: object, follower: Follower) -> Callable[[], bool]:
        """Returns the function that ends it; that says whether nobody follows the dashboard any more."""
        entry = (through, follower)
        self._of.setdefault(dashboard_id, []).append(entry)

        def end() -> bool:
            entries = self._of.get(dashboard_id, [])
            if any(each is entry for each in entries):
                self._of[dashboard_id] = entries = [each for each in entries if each is not entry]
            if not entries:
                self._of.pop(dashboard_id, None)
            return not entries

        return end

    def listening(self, dashboard_id: str, committer: object) -> list[Follower]:
        """Who is to be told of a commit that was made through ``committer``."""
        entries = self._of.get(dashboard_id)
        if entries is None or (len(entries) == 1 and entries[0][0] is committer):
            return []
        own = [follower for through, follower in entries if through is committer]
        others = [follower for through, follower in entries if through is not committer]
        return others + own if len(own) > 1 else others

    def all(self) -> list[tuple[str, Follower]]:
        return [(dashboard_id, follower) for dashboard_id, entries in self._of.items() for _, follower in entries]

    @staticmethod
    def tell(followers: list[Follower], contents: Contents) -> None:
        """On the loop's next turn, so that the committer has its answer before anybody hears of the commit."""
        loop = asyncio.get_running_loop()
        for follower in followers:
            loop.call_soon(follower, contents)
