"""The HTTP calls against their own description: whatever it allows or forbids is sent, and judged by what it promises.

Deterministic: the same cases each time. No rates, since a 429 would tell nothing of the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.abuse.fortress import ANSWER_SECONDS, Fortress
from tornado_rt.protocol.schema import openapi

EXAMPLES = 25
DESCRIBED = schemathesis.openapi.from_dict(openapi())
DESCRIBED.config.generation.update(codec="ascii")  # of other signs no JSON Schema can say which are printable
OPERATIONS = {f"{each.ok().method.upper()} {each.ok().path}": each.ok() for each in DESCRIBED.get_all_operations()}

OPEN = ("schema", "openapi", "healthz", "readyz")


@pytest.fixture(scope="module")
def shared_fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    fortress = Fortress(tmp_path_factory.mktemp("fortress"), RT_RATE_LIMIT="0", RT_USER_RATE_LIMIT="0")
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(fortress.start())
    yield fortress
    fortress.process.close()


@pytest.fixture
def max_lines() -> int:
    """Each revocation is worth one."""
    return 2 * EXAMPLES


def test_every_call_is_tried() -> None:
    assert sorted(OPERATIONS) == [
        "GET /api/realtime",
        "GET /api/realtime/openapi",
        "GET /api/realtime/schema",
        "GET /api/realtime/stats",
        "GET /healthz",
        "GET /readyz",
        "POST /api/realtime",
        "POST /api/realtime/revoke",
    ]


# A call that needs neither identity nor body has nothing that could be wrong.
CASES = [(name, mode) for name in OPERATIONS for mode in GenerationMode if mode.is_positive or not name.endswith(OPEN)]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_every_answer_is_as_described(fortress: Fortress, name: str, mode: GenerationMode) -> None:
    """Status, type and shape; nothing of the wrong shape is taken, and no stranger is let in. ``sales`` may be read alone."""
    headers = fortress.bearer("fuzz", {"*": "admin", "sales": "viewer"})
    operation = OPERATIONS[name]
    # That numbers have 53 bits, values 16 levels and operations names of their own, no schema can say.
    beyond_words = [positive_data_acceptance] if name == "POST /api/realtime" else []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(base_url=fortress.base, headers=headers, excluded_checks=beyond_words, timeout=ANSWER_SECONDS)

    check()
