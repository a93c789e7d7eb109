"""``python -m tornado_rt``: the same as the command ``tornado-rt``. Knows nothing but where the command lives."""

from __future__ import annotations

from tornado_rt.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
