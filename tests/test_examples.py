"""The examples run as they stand, in processes of their own, and the documents show them as they are."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.testing import bind_unused_port

from tests.conftest import clean_environment
from tornado_rt.client import RealtimeClient

PROJECT = Path(__file__).parent.parent
EMBEDDING = PROJECT / "examples" / "embedding.py"


async def test_the_embedding_example_serves_its_own_routes_and_ours(tmp_path: Path) -> None:
    unused, port = bind_unused_port()
    unused.close()
    environ = clean_environment(PORT=str(port), RT_STORE="memory://")
    with subprocess.Popen(
        [sys.executable, str(EMBEDDING)], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"listening on port {port}\n"
            url = f"http://127.0.0.1:{port}"
            async with RealtimeClient(url, user_id="anna", dashboard_id="sales") as client:
                changes = client.changes()
                heard = asyncio.ensure_future(anext(changes))
                notice: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
                client.on("message", notice.set_result)
                answer = await AsyncHTTPClient().fetch(f"{url}/orders", method="POST", body=urlencode({"number": "17"}))
                assert answer.body == b'{"seq": 1}'
                assert (await heard).user_id == "shop"
                assert (await notice)["payload"] == {"notice": "a new order"}
                assert client.widgets == {"orders": {"last": "17"}}
                await client.update("orders", {"note": "seen"})
            assert "shop changed orders on sales\n" in process.stdout.readline()
            assert process.stdout.readline() == "anna changed orders on sales\n"
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("page", ["docs/embedding.md"])
def test_the_documents_show_the_example_as_it_is(page: str) -> None:
    code = EMBEDDING.read_text().partition("\n\n")[2]
    assert code.strip() in (PROJECT / page).read_text()
