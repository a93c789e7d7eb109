"""The operator's door: does the process live, can it serve (PROTOCOL section 6)."""

from __future__ import annotations

from tornado_rt.handlers.base import BaseHandler

__all__ = ["HealthHandler", "ReadyHandler"]


class HealthHandler(BaseHandler):
    """``/healthz``: the process lives. Asks nobody else."""

    def get(self, *_: str) -> None:
        self.write_json({"status": "alive"})


class ReadyHandler(BaseHandler):
    """``/readyz``: it can serve; 503 while draining or without its store, with the reason."""

    def get(self, *_: str) -> None:
        status = self.server.status
        body = {"status": status, "durability": self.server.store.durability}
        if status != "ready":
            self.set_status(503)
            self.set_header("Retry-After", "1")
            body["reason"] = self.server.store.fault or "the server is shutting down"
        self.write_json(body)
