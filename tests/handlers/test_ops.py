"""The operator's door: does the process live, can it serve."""

from __future__ import annotations

import json

from tests.handlers.conftest import House


async def test_it_lives_and_can_serve(house: House) -> None:
    assert await house.fetch_json("/healthz") == {"status": "alive"}
    assert await house.fetch_json("/readyz") == {"status": "ready", "durability": "memory"}


async def test_while_draining_it_lives_and_cannot_serve(house: House) -> None:
    house.server.is_draining = True
    assert (await house.fetch("/healthz")).code == 200
    answer = await house.fetch("/readyz")
    assert (answer.code, answer.headers["Retry-After"]) == (503, "1")
    body = json.loads(answer.body)
    assert (body["status"], body["reason"]) == ("draining", "the server is shutting down")


async def test_without_its_store_it_cannot_serve(house: House) -> None:
    await house.server.store.close()
    answer = await house.fetch("/readyz")
    body = json.loads(answer.body)
    assert (answer.code, body["status"], body["reason"]) == (503, "degraded", "The store is closed.")
