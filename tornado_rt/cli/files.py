"""``tornado-rt backup`` and ``tornado-rt new-epoch``: care for the file of a SQLite store. What is in it, the store knows."""

from __future__ import annotations

import argparse
from pathlib import Path

from tornado_rt.cli.options import add_settings_options, read_settings, warn
from tornado_rt.config import Settings, mask_password
from tornado_rt.errors import StartFault

__all__ = ["add_commands"]

STORE_ALONE = frozenset({"store"})


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "backup",
        help="copy the store's file, also while a server runs on it",
        description="Copy a SQLite store to PATH. A server may run meanwhile. The copy is marked, so that clients of a server "
        "that starts from it take nothing old for new.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="the copy; must not exist yet")
    add_settings_options(parser, only=STORE_ALONE)
    parser.set_defaults(run=run_backup)

    parser = commands.add_parser(
        "new-epoch",
        help="mark a store that was restored from a plain copy of its file",
        description="Run this once, with the server stopped, after putting back a store's file that was copied by other means "
        "than `tornado-rt backup`, such as cp or a disk image.",
    )
    add_settings_options(parser, only=STORE_ALONE)
    parser.set_defaults(run=run_new_epoch)


def run_backup(arguments: argparse.Namespace) -> int:
    """Copy, then say where and how large."""
    from tornado_rt.app import new_epoch
    from tornado_rt.store import sqlite

    source = _existing_file(arguments)
    sqlite.backup(source, arguments.path, new_epoch())
    print(f"{source} is copied to {arguments.path} ({arguments.path.stat().st_size:,} bytes)")
    return 0


def run_new_epoch(arguments: argparse.Namespace) -> int:
    """Mark the file, then say what follows from it."""
    from tornado_rt.app import new_epoch
    from tornado_rt.store import sqlite

    path = _existing_file(arguments)
    sqlite.new_epoch(path, new_epoch())
    print(f"{path} has a new epoch: clients that come back get the whole dashboard afresh")
    return 0


def _existing_file(arguments: argparse.Namespace) -> Path:
    settings, warnings = read_settings(arguments)
    warn(warnings)
    path = sqlite_path(settings)
    if not path.is_file():
        raise StartFault(f"There is no file {path}; name the store with --store sqlite:///path or RT_STORE.")
    return path


def sqlite_path(settings: Settings) -> Path:
    """The store's file. Raises ``StartFault`` for a store that is none."""
    if settings.sqlite_path is None:
        raise StartFault(f"This is for SQLite stores alone, and the store is {mask_password(settings.store)}.")
    return settings.sqlite_path
