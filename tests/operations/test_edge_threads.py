"""The threads that run requests."""

import asyncio
import sys
from typing import Any

from apps.access.requests import ANYONE, Answer, Request, answer
from apps.operations.edge.threads import Threads
from apps.telemetry.observation import Observation


def test_threads_switch_often_only_while_a_write_runs() -> None:
    seconds = []

    def handle(request: Request) -> Answer:
        seconds.append(sys.getswitchinterval())
        return answer(200, b"text/plain", b"")

    async def ask(*methods: str) -> None:
        threads = Threads(2, handle)
        for method in methods:
            scope: dict[str, Any] = {"method": method, "path": "/api/v1/libraries"}
            await threads.run(Request("", ANYONE, scope, {}, b"", Observation()))

    asyncio.run(ask("GET", "POST", "GET", "POST", "GET"))
    alone, beside = sys.getswitchinterval(), seconds[1]
    assert beside < alone
    assert seconds == [alone, beside, alone, beside, alone]
