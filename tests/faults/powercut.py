"""Replays a recorded disk up to a moment and makes the files as a power cut at that moment may have left them.

What was synced is there. Of what was written since, any part may be: each write by itself or, ``torn``, each of its sectors. Of
the names that were made or removed in the directory since its last sync, some first ones. Knows ``recorder.c``'s trace, and
nothing of databases.
"""

from __future__ import annotations

import random
import struct
import subprocess
from bisect import bisect_right
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from pathlib import Path

RECORDER = Path(__file__).with_name("recorder.c")
HEAD = struct.Struct("=IIqqq")  # kind, file, at, offset, size of what follows
SECTOR = 512


class Kind(IntEnum):
    """As in ``recorder.c``."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    UNLINK = 5
    RENAME = 6


def build_recorder(directory: Path) -> Path:
    """The recorder as a library for LD_PRELOAD."""
    library = directory / "recorder.so"
    command = ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library, RECORDER, "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


@dataclass(slots=True)
class Record:
    """One successful call. ``at`` is in seconds of CLOCK_MONOTONIC, as ``time.monotonic`` gives them."""

    kind: int
    file: int
    at: float
    offset: int
    data: bytes


@dataclass(slots=True)
class Inode:
    """A file, whatever its name: its changes as ``(index, record)``, and how far they are safe."""

    changes: list[tuple[int, Record]] = field(default_factory=list)
    synced: int = 0  # changes before this index are on the disk


class Trace:
    """What a process asked of the disk, in order."""

    def __init__(self, path: Path, root: Path) -> None:
        self.root = str(root.resolve())
        self.records: list[Record] = []
        raw = path.read_bytes()
        position = 0
        while position + HEAD.size <= len(raw):
            kind, file, at, offset, size = HEAD.unpack_from(raw, position)
            position += HEAD.size
            self.records.append(Record(kind, file, at / 1e9, offset, raw[position : position + size]))
            position += size
        self.times = [record.at for record in self.records]

    def count(self, kind: Kind) -> int:
        return sum(record.kind == kind for record in self.records)

    def cut(self, moment: float, target: Path, rng: random.Random, *, torn: bool) -> None:
        """Make in ``target`` the files of the root as they may be after a cut at ``moment``."""
        end = bisect_right(self.times, moment)
        directory_synced, renaming = self._replay(end)
        safe = [change for change in renaming if change[0] < directory_synced]
        unsafe = renaming[len(safe) :]
        final: dict[str, Inode] = {}
        for _, path, inode in (*safe, *unsafe[: rng.randint(0, len(unsafe))]):
            if inode is None:
                final.pop(path, None)
            else:
                final[path] = inode
        kept = rng.choice((0.0, 0.1, 0.5, 0.9))
        for path, inode in final.items():
            relative = path.removeprefix(self.root).lstrip("/")
            file = target / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_content(inode, rng, kept, torn=torn))

    def _replay(self, end: int) -> tuple[int, list[tuple[int, str, Inode | None]]]:
        """Up to which index the directory is synced, and each change of a name in it: ``(index, path, inode)``."""
        names: dict[str, Inode] = {}
        opened: dict[int, Inode | None] = {}  # by the recorder's number; None: the directory
        renaming: list[tuple[int, str, Inode | None]] = []
        directory_synced = 0
        for index, record in enumerate(self.records[:end]):
            match record.kind:
                case Kind.OPEN:
                    path = record.data.decode()
                    opened[record.file] = self._open(index, path, record, names, renaming)
                case Kind.WRITE | Kind.TRUNCATE:
                    inode = opened[record.file]
                    assert inode is not None
                    inode.changes.append((index, record))
                case Kind.SYNC:
                    inode = opened[record.file]
                    if inode is None:
                        directory_synced = max(directory_synced, record.offset)
                    else:
                        inode.synced = max(inode.synced, record.offset)
                case Kind.UNLINK:
                    names.pop(record.data.decode(), None)
                    renaming.append((index, record.data.decode(), None))
                case Kind.RENAME:
                    old, new = record.data[: record.offset].decode(), record.data[record.offset :].decode()
                    names[new] = names.pop(old)
                    renaming += [(index, new, names[new]), (index, old, None)]
        return directory_synced, renaming

    def _open(
        self, index: int, path: str, record: Record, names: dict[str, Inode], renaming: list[tuple[int, str, Inode | None]]
    ) -> Inode | None:
        if path == self.root:
            return None
        if path not in names:
            names[path] = Inode()
            renaming.append((index, path, names[path]))
        elif record.offset:  # opened with O_TRUNC
            names[path].changes.append((index, Record(Kind.TRUNCATE, record.file, record.at, 0, b"")))
        return names[path]


def _content(inode: Inode, rng: random.Random, kept: float, *, torn: bool) -> bytes:
    content = bytearray()
    for index, change in inode.changes:
        safe = index < inode.synced
        if change.kind == Kind.TRUNCATE:
            if safe or rng.random() < kept:
                content[change.offset :] = bytes(max(0, change.offset - len(content)))
        elif safe or not torn:
            if safe or rng.random() < kept:
                _write(content, change.offset, change.data)
        else:
            for start, piece in _sectors(change):
                if rng.random() < kept:
                    _write(content, start, piece)
    return bytes(content)


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content += bytes(offset - len(content))
    content[offset : offset + len(data)] = data


def _sectors(change: Record) -> list[tuple[int, bytes]]:
    """A write, cut where the disk's sectors end."""
    end = change.offset + len(change.data)
    edges = [change.offset, *range((change.offset // SECTOR + 1) * SECTOR, end, SECTOR), end]
    return [(start, change.data[start - change.offset : stop - change.offset]) for start, stop in pairwise(edges)]
