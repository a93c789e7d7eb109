"""``tornado-rt check``: would the server start? Looks at settings and store and changes neither; a server may run meanwhile."""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from pathlib import Path

from tornado_rt.cli.options import add_settings_options, read_settings, warn
from tornado_rt.config import mask_password
from tornado_rt.errors import StartFault

__all__ = ["add_commands", "examine_file"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "check",
        usage="tornado-rt check [OPTION...]",
        help="check settings and store without starting",
        description="Check the settings and that the store can be opened and written. Exit status 2 with every mistake, else "
        "0. A running server is not disturbed.",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Report on settings and store. Raises ``StartFault`` with all that is wrong."""
    from tornado_rt.app import make_gate, make_store

    settings, warnings = read_settings(arguments)
    warn(warnings)
    make_gate(settings)
    make_store(settings, lambda sentence: None)  # made, not started: it says whether this version has such a store
    print("settings: good")
    path = settings.sqlite_path
    found = examine_file(path) if path is not None else "good"
    print(f"store {mask_password(settings.store)}: {found}")
    return 0


def examine_file(path: Path) -> str:
    """What a server would find at ``path``. Raises ``StartFault`` where it could not work with it."""
    from tornado_rt.store.sqlite.schema import check, connect_read_only

    folder = path.absolute().parent
    if not folder.is_dir():
        raise StartFault(f"The folder {folder} of the store does not exist; make it, or name another with RT_STORE.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartFault(f"The folder {folder} of the store cannot be written by this user.")
    if not path.exists():
        return "good, will be made at the first start"
    if not os.access(path, os.R_OK | os.W_OK):
        raise StartFault(f"The store {path} cannot be written by this user.")
    with closing(connect_read_only(path)) as connection:
        version = check(connection, path)
    return f"good, schema version {version}"
